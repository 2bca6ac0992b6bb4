"""An artifact: a folder that is complete if, and only if, it holds a manifest.

A stage writes into a sibling folder named `.tmp-...`, the manifest last, and one rename makes it
visible. So a reader never needs a lock: a folder without a manifest is rubbish.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import InputError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
TEMPORARY_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20


def hash_file(path: Path, *, sync: bool = False) -> str:
    """SHA-256 of a file in hex.

    Args:
        path: The file.
        sync: Also push the file to the disk, so that a manifest never survives a power cut that
            the file it names did not.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
        if sync:
            os.fsync(stream.fileno())
    return digest.hexdigest()


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder with its relative POSIX path, sorted, without the manifest."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative != MANIFEST_NAME:
            yield relative, path


def inventory(folder: Path, *, sync: bool = False) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a folder: `{path: {size_bytes, sha256}}`."""
    return {
        name: {"size_bytes": path.stat().st_size, "sha256": hash_file(path, sync=sync)}
        for name, path in files_in(folder)
    }


def content_identity(files: Mapping[str, Mapping[str, Any]]) -> str:
    """What a later stage depends on: the names and bytes of the files, not when they were made.

    A stage that ran again and wrote the same bytes has the same identity, so that nothing behind
    it has to run again.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]['sha256']}\n".encode())
    return digest.hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    return hash_file(path) if path.is_file() else content_identity(inventory(path))


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and push it and its folder to the disk."""
    with (folder / MANIFEST_NAME).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2, ensure_ascii=False, sort_keys=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Push a folder's own entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact folder.

    Raises:
        InputError: The folder has none, or it is not a manifest of a version that is read here.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {MANIFEST_NAME}, so this is not a complete artifact; run its stage"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete the folder and run") from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: not a manifest of schema version {SCHEMA_VERSION}; delete the folder and run"
        )
    return manifest


def damage(folder: Path, manifest: Mapping[str, Any], *, rehash: bool = False) -> list[str]:
    """What is wrong with a complete artifact's files, as sentences; empty if nothing is.

    Args:
        folder: The artifact.
        manifest: Its manifest.
        rehash: Read every file and compare its SHA-256; otherwise only presence and size.
    """
    problems = []
    for name, record in manifest["files"].items():
        path = folder / name
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            problems.append(f"{name} is gone")
            continue
        if size_bytes != record["size_bytes"]:
            problems.append(f"{name} has {size_bytes} bytes instead of {record['size_bytes']}")
        elif rehash and hash_file(path) != record["sha256"]:
            problems.append(f"{name} was changed after it was written")
    return problems


def remove_leftovers(parent: Path) -> list[Path]:
    """Delete the half-written folders that an interrupted run left below a folder.

    Returns:
        What was deleted.
    """
    leftovers = sorted(parent.rglob(f"{TEMPORARY_PREFIX}*")) if parent.is_dir() else []
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    return leftovers
