"""The bench image on a user's own models and rows, without the pipeline."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import yamlfile
from stages.core.errors import InputError
from stages.host import collecting, images, serving, settings
from stages.host.view import View, columns

FOLDER = "measurements"
_IMAGE = "bench"


def parameters(assignments: Sequence[str]) -> dict[str, Any]:
    """Parameters that the user gave as `name=value`.

    Raises:
        InputError: One is no assignment.
    """
    found = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"--set {assignment}: must be parameter=value")
        found[name] = yamlfile.scalar(text, f"--set {assignment}")
    return found


def bench_cpu(
    models: Sequence[str], dataset: str, params: Mapping[str, Any], view: View
) -> tuple[int, Path]:
    """Measure GGUF files as the stage bench-cpu does.

    Args:
        models: GGUF files and folders of them.
        dataset: JSONL file with rows; empty for the sample in the image.
        params: Parameters of the stage that differ from its defaults.
        view: Where progress goes.

    Returns:
        Exit code, and the folder with metrics.json and samples.jsonl.

    Raises:
        InputError: A file is not there, or two models have the same name.
    """
    files = _gguf_files(models)
    mounts = [(path, f"/inputs/gguf/{path.name}") for path in files]
    inputs = ["--input", "gguf=/inputs/gguf"]
    if dataset:
        rows = serving.existing_file(dataset, "--dataset")
        mounts.append((rows, f"/inputs/data/{rows.name}"))
        inputs += ["--input", f"data=/inputs/data/{rows.name}"]
    images.ensure([_IMAGE], view)
    view.end()
    artifacts = settings.artifacts()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    out = Path(FOLDER) / "bench-cpu" / name
    (artifacts / out.parent).mkdir(parents=True, exist_ok=True)
    call = artifacts / ".measure" / f"{name}.json"
    call.parent.mkdir(exist_ok=True)
    call.write_text(json.dumps(dict(params)), encoding="utf-8")
    try:
        code = serving.run_tool(
            _IMAGE,
            mounts,
            "stages.bench_cpu",
            "--params",
            f"/artifacts/.measure/{name}.json",
            *inputs,
            "--out",
            f"/artifacts/{out}",
        )
    finally:
        call.unlink()
    return code, artifacts / out


def _gguf_files(models: Sequence[str]) -> list[Path]:
    """The files to measure, folders opened.

    Raises:
        InputError: Nothing was named, something is not there, or a name occurs twice.
    """
    files: list[Path] = []
    for model in models:
        path = Path(model).expanduser().resolve()
        if path.is_dir():
            inside = sorted(path.glob("*.gguf"))
            if not inside:
                raise InputError(f"--model {model}: the folder holds no .gguf file")
            files += inside
        else:
            files.append(serving.existing_file(model, "--model"))
    if not files:
        raise InputError("--model is missing: name a .gguf file or a folder of them")
    names = [path.name for path in files]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--model: two files are named {name}; measure them one by one")
    return files


def table(folder: Path) -> str:
    """The measured figures for people."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows = [("variant", "MiB", "exact %", "p50 ms", "p99 ms", "decode tok/s", "peak MiB")]
    for one in metrics["variants"]:
        rows.append(
            (
                one["name"],
                f"{one['size_bytes'] / 2**20:,.1f}",
                f"{100 * one['accuracy']['exact']['value']:.1f}",
                f"{1000 * one['latency_sec']['p50']:.1f}",
                f"{1000 * one['latency_sec']['p99']:.1f}",
                f"{one['decode_tokens_per_sec']:,.0f}",
                f"{one['peak_rss_bytes'] / 2**20:,.0f}",
            )
        )
    return columns(rows)


def evaluate(
    model: Path, dataset: str, view: View, *, as_json: bool, endpoint_model: str = ""
) -> int:
    """Print a model's accuracy on rows, and an endpoint's beside it; returns the exit code.

    Raises:
        InputError: A file is not there, or an endpoint's model is named and no endpoint.
    """
    rows = serving.existing_file(dataset, "--dataset")
    url = collecting.endpoint_url() if endpoint_model else ""
    images.ensure([_IMAGE], view)
    view.end()
    return serving.run_tool(
        # Only with an endpoint to ask does the container get a network.
        collecting.SERVICE if endpoint_model else _IMAGE,
        [(model, f"/inputs/model/{model.name}"), (rows, f"/inputs/data/{rows.name}")],
        "stages.bench_cpu.evaluate",
        "--model",
        f"/inputs/model/{model.name}",
        "--dataset",
        f"/inputs/data/{rows.name}",
        *(["--endpoint-model", endpoint_model] if endpoint_model else []),
        *(["--json"] if as_json else []),
        variables={"OPENAI_BASE_URL": url},
        secret=settings.setting(collecting.KEY_VARIABLE, "") if endpoint_model else "",
    )
