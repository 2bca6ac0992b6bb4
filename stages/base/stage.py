"""Brings a base model into the pipeline: from this project, a folder, or the hub."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.base.checks import MODEL_FILES, check
from stages.base.params import HUB, Params
from stages.core.errors import InputError

SHIPPED = Path(__file__).with_name("shipped")
PRETRAINING = "pretraining.json"
"""How the shipped model was made: its own manifest, renamed because the artifact has one too."""


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Checks a model and copies its files, byte for byte, to the top of `out`.

    Raises:
        InputError: the model cannot be had or is not one that the pipeline may load.
    """
    if params.source.startswith(HUB):
        from stages.base import backend

        repository = params.source.removeprefix(HUB)
        print(f"fetching {repository} at {params.revision[:12]}", flush=True)
        download = out / ".download"
        backend.fetch(repository, params.revision, MODEL_FILES, download)
        facts = check(download)
        for path in _model_files(download):
            path.rename(out / path.name)
        shutil.rmtree(download)
    else:
        folder = SHIPPED if params.source == "shipped" else Path(params.path)
        print(f"checking {folder.name}", flush=True)
        facts = check(folder)
        for path in _model_files(folder):
            _copy(path, out / path.name)
        if params.source == "shipped":
            _copy(SHIPPED / "manifest.json", out / PRETRAINING)
    print(f"base model of {facts.parameters:,} parameters is ready", flush=True)
    return {"source": params.source, "revision": params.revision, **asdict(facts)}


def _model_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})


def _copy(source: Path, target: Path) -> None:
    """Copies the bytes, not the permissions: what is mounted read-only must be deletable later."""
    try:
        shutil.copyfile(source, target)
    except PermissionError:
        raise InputError(f"{source}: cannot be read by this user; change its permissions") from None
