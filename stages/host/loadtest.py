"""The service under load, beside llama.cpp's servers, in a container without a network."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import plan
from stages.core.errors import InputError
from stages.host import images, serving, settings
from stages.host.measure import FOLDER
from stages.host.view import View

PARTS = ("compare", "overload", "soak", "all")
_IMAGE = "load"


def dataset_of(profile: str, dataset: str) -> Path:
    """The rows to ask: the file that the user named, or the profile's test rows.

    Raises:
        InputError: The file is not there, or the profile has no rows yet.
    """
    if dataset:
        return serving.existing_file(dataset, "--dataset")
    for folder in plan.newest_first(settings.artifacts() / profile / "data")[:1]:
        return folder / "test.jsonl"
    raise InputError(
        f"the profile {profile} has no rows yet: `invoke run --profile {profile} --until data` "
        "makes them; or name a JSONL file with --dataset"
    )


def run(
    part: str, model: Path, dataset: Path, out: str, options: Mapping[str, Any], view: View
) -> tuple[int, Path]:
    """Measure a model's service.

    Args:
        part: `compare`, `overload`, `soak` or `all`.
        model: GGUF file.
        dataset: JSONL file of rows.
        out: Folder for `load-test-PART.json` and the samples; empty for one among the artifacts.
        options: Numbers of `stages.loadtest` that differ from its own.
        view: Where a build's progress goes.

    Returns:
        Exit code, and the folder.

    Raises:
        InputError: There is no such part, or the folder cannot be made.
    """
    if part not in PARTS:
        raise InputError(f"--part {part}: must be one of {', '.join(PARTS)}")
    folder = Path(out).expanduser().resolve() if out else None
    folder = folder or settings.artifacts() / FOLDER / "load-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; name a folder") from error
    words = [word for name, value in options.items() for word in (f"--{_dashed(name)}", f"{value}")]
    images.ensure([_IMAGE], view)
    view.end()
    code = serving.run_tool(
        _IMAGE,
        [(model, f"/inputs/model/{model.name}"), (dataset, f"/inputs/data/{dataset.name}")],
        "stages.loadtest",
        part,
        "--model",
        f"/inputs/model/{model.name}",
        "--rows",
        f"/inputs/data/{dataset.name}",
        "--out",
        "/out",
        "--command",
        shlex.join(["invoke", *sys.argv[1:]]),
        "--commit",
        images.git_revision() or "unknown",
        *words,
        writable=[(folder, "/out")],
    )
    return code, folder


def _dashed(name: str) -> str:
    return name.replace("_", "-")
