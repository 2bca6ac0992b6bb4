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
from stages.host import collecting, images, inspection, serving, settings
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
    models: Sequence[str],
    dataset: str,
    baseline: str,
    params: Mapping[str, Any],
    view: View,
    *,
    as_json: bool,
) -> tuple[int, Path, Path]:
    """Measure GGUF files as the stage bench-cpu does, and report on them.

    Args:
        models: GGUF files, folders of them, and keys of GGUF artifacts.
        dataset: JSONL file with rows; empty for the sample in the image.
        baseline: `hf:` and a transformers model's folder; empty for none.
        params: Parameters of the stage that differ from its defaults.
        view: Where progress goes.
        as_json: Keep standard output free for the result.

    Returns:
        Exit code, the folder with metrics.json and samples.jsonl, and that of the report.

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
    if baseline:
        mounts.append((_baseline(baseline), "/inputs/model"))
        inputs += ["--input", "model=/inputs/model"]
    images.ensure([_IMAGE], view)
    view.end()
    artifacts = settings.artifacts()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    out, report = Path(FOLDER) / "bench-cpu" / name, Path(FOLDER) / "report" / name
    for folder in (out, report):
        (artifacts / folder.parent).mkdir(parents=True, exist_ok=True)
    words = ["stages.bench_cpu", *inputs, "--out", f"/artifacts/{out}"]
    code = _run_with(params, name, mounts, words, to_stderr=as_json)
    if code == 0:
        words = ["stages.report", "--input", f"bench-cpu=/artifacts/{out}"]
        words += ["--out", f"/artifacts/{report}"]
        code = _run_with({"profile": "bench-cpu"}, name, [], words, to_stderr=as_json)
    return code, artifacts / out, artifacts / report


def _run_with(
    params: Mapping[str, Any],
    name: str,
    mounts: Sequence[tuple[Path, str]],
    words: Sequence[str],
    *,
    to_stderr: bool,
) -> int:
    """Run a stage's module with parameters, which reach it as a file for that long."""
    call = settings.artifacts() / ".measure" / f"{name}.json"
    call.parent.mkdir(exist_ok=True)
    call.write_text(json.dumps(dict(params)), encoding="utf-8")
    try:
        words = [*words, "--params", f"/artifacts/.measure/{name}.json"]
        return serving.run_tool(_IMAGE, mounts, *words, to_stderr=to_stderr)
    finally:
        call.unlink()


def _baseline(given: str) -> Path:
    """The folder that is to be run by transformers.

    Raises:
        InputError: It is not given as `hf:FOLDER`, or is no model's folder.
    """
    kind, separator, text = given.partition(":")
    folder = Path(text).expanduser().resolve()
    if not separator or kind != "hf":
        raise InputError(f"--baseline {given}: must be hf:FOLDER, a model folder for transformers")
    if not any((one / "config.json").is_file() for one in (folder, folder / "merged")):
        raise InputError(f"--baseline {given}: no config.json in it, nor in a merged/ of it")
    return folder


def _gguf_files(models: Sequence[str]) -> list[Path]:
    """The files to measure, folders opened.

    Raises:
        InputError: Nothing was named, something is not there, or a name occurs twice.
    """
    files: list[Path] = []
    for model in models:
        path = Path(model).expanduser().resolve()
        found = [] if path.exists() else inspection.by_key("gguf", model)
        if path.is_dir() or len(found) == 1:
            path = found[0] if found else path
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
