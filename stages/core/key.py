"""The key of an artifact: a hash over everything that can change its bytes.

The parts are kept in the manifest as its recipe, so that a later plan can name what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import site
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stages.core import artifact, source
from stages.core.dockerfile import Dockerfile
from stages.core.pipeline import Stage

SHORT_KEY_LENGTH = 16
LOCAL = "local"
_CACHED_FROM_BYTES = 256 * 1024


class HashCache:
    """SHA-256 of large files, remembered by path, size, inode and times of change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._known: dict[str, list[Any]] = {}
        if path.is_file():
            try:
                self._known = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # Only a cache: an unreadable one is started anew.
                self._known = {}

    def hash_file(self, path: Path) -> str:
        """SHA-256 of a file; a large one is read only if it looks changed."""
        status = path.stat()
        if status.st_size < _CACHED_FROM_BYTES:
            return artifact.hash_file(path)
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(str(path))
        if known is None or known[:4] != stamp:
            known = [*stamp, artifact.hash_file(path)]
            self._known[str(path)] = known
            self._changed = True
        return str(known[4])

    def hash_path(self, path: Path) -> str:
        """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
        if path.is_file():
            return self.hash_file(path)
        return artifact.content_identity(
            {name: {"sha256": self.hash_file(item)} for name, item in artifact.files_in(path)}
        )

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if not self._changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._known), encoding="utf-8")
        temporary.replace(self._path)
        self._changed = False


@cache
def local_environment() -> dict[str, str]:
    """What stands in for an image when a stage runs on the bare host: Python and its packages."""
    folders = {*site.getsitepackages(), site.getusersitepackages()}
    names = sorted(
        item.name
        for folder in folders
        if Path(folder).is_dir()
        for item in Path(folder).iterdir()
        if item.name.endswith(".dist-info")
    )
    return {
        "host Python": platform.python_version(),
        "host machine": platform.machine(),
        f"packages of {sys.prefix}": hashlib.sha256("\n".join(names).encode()).hexdigest(),
    }


def recipe(
    *,
    root: Path,
    dockerfile: Dockerfile,
    stage: Stage,
    device: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    cache: HashCache,
) -> dict[str, Any]:
    """All that an artifact depends on, in parts that a reader can compare.

    Args:
        root: The project's folder.
        dockerfile: The images.
        stage: The stage.
        device: `cpu`, `gpu` or, on the bare host, `local`.
        params: Parameters as plain values, defaults included.
        inputs: Content identity of each input artifact.
        cache: Hashes of large files.
    """
    files = {name: cache.hash_path(Path(params[name])) for name in stage.files if params[name]}
    environment = (
        local_environment() if device == LOCAL else dockerfile.recipe(stage.images[device])
    )
    sources = source.files_of(root, stage.module)
    return {
        "stage": stage.name,
        # A file counts by what is in it, not by where it lies.
        "params": {name: value for name, value in params.items() if name not in files},
        "files": files,
        "inputs": dict(inputs),
        "source": {path.relative_to(root).as_posix(): cache.hash_file(path) for path in sources},
        "environment": environment,
    }


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of a recipe as canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
