"""What a manifest says about where an artifact came from."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.core import artifact, hostinfo
from stages.core.errors import InputError


def package_versions() -> dict[str, str]:
    """Version of every installed distribution by its name."""
    found = {
        str(distribution.metadata["Name"]): distribution.version
        for distribution in metadata.distributions()
        if distribution.metadata["Name"]
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def peak_rss_bytes() -> tuple[int, int]:
    """Peak resident memory of this process and of its largest finished child, in bytes."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return own * unit_bytes, child * unit_bytes


def describe_inputs(inputs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Key and content of each input artifact; a plain file or folder has no key.

    Raises:
        InputError: One is not there, or its manifest cannot be read.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, folder in inputs.items():
        if not folder.exists():
            raise InputError(f"--input {name}={folder}: no such file or folder")
        if (folder / artifact.MANIFEST_NAME).is_file():
            manifest = artifact.read_manifest(folder)
            described[name] = {
                "stage": manifest["stage"],
                "key": manifest["key"],
                "content_sha256": manifest["content_sha256"],
                "manifest_sha256": artifact.hash_file(folder / artifact.MANIFEST_NAME),
            }
        else:
            content = artifact.hash_path(folder)
            described[name] = {
                "stage": None,
                "key": None,
                "content_sha256": content,
                "manifest_sha256": None,
            }
    return described


def make_manifest(
    *,
    stage: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    started_at: datetime,
    wall_sec: float,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of a finished stage.

    Args:
        stage: Name of the stage.
        params: Its parameters as plain values, defaults included.
        inputs: As `describe_inputs` gives them, read before the stage ran.
        files: Inventory of the output folder.
        metrics: What the stage returned.
        started_at: Time of the start, with its zone.
        wall_sec: Duration of the stage's own work.
        given: What only the caller knows: key, recipe (the parts of the key), git, image, device.
    """
    own_rss_bytes, child_rss_bytes = peak_rss_bytes()
    return {
        "schema_version": artifact.SCHEMA_VERSION,
        "stage": stage,
        "key": given.get("key"),
        "content_sha256": artifact.content_identity(files),
        "params": dict(params),
        "seed": params.get("seed"),
        "inputs": {name: dict(record) for name, record in inputs.items()},
        "files": {name: dict(record) for name, record in files.items()},
        "metrics": dict(metrics),
        "started_at": started_at.isoformat(timespec="seconds"),
        "wall_sec": round(wall_sec, 3),
        "peak_rss_bytes": max(own_rss_bytes, child_rss_bytes),
        "peak_child_rss_bytes": child_rss_bytes,
        "git": given.get("git"),
        "image": given.get("image"),
        "device": given.get("device"),
        "host": hostinfo.describe(),
        "packages": package_versions(),
        "recipe": given.get("recipe"),
    }
