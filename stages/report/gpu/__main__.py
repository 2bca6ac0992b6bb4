r"""`python -m stages.report.gpu RESULT.json [--plots DIR]`: a GPU result as the docs show it.

For docs/results/bench-gpu-*.json: metrics.json of a bench-gpu run, with the `command` that gave it
and, if wanted, the `packages` of its manifest. Prints the report's section on it as Markdown, and
writes its plots as SVG files, so that what the docs say of a result is made from it and not by
hand. The plots need matplotlib, which the bench image has:

    docker run --rm -u "$(id -u)" -v "$PWD:/checkout" -w /checkout --entrypoint python3 \
        cartwright/bench:local -m stages.report.gpu docs/results/RESULT.json --plots docs/plots
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import CartwrightError, InputError, MissingDependency
from stages.report import markdown
from stages.report.gpu.schema import Gpu
from stages.report.gpu.section import section
from stages.report.params import Params
from stages.report.records import read_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the section; the exit code is 2 for a result that is not as bench-gpu writes it."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.report.gpu", description="Print a GPU result as Markdown."
    )
    parser.add_argument("result", metavar="RESULT.json", help="metrics.json of bench-gpu")
    parser.add_argument("--plots", metavar="DIR", help="folder to write the plots to, as SVG")
    given = parser.parse_args(arguments)
    try:
        path = Path(given.result)
        metrics = read_json(path)
        packages = metrics.get("packages") or {} if isinstance(metrics, dict) else {}
        gpu = section(path, metrics, packages, Params().max_accuracy_drop)
        if given.plots:
            _write_plots(gpu, Path(given.plots))
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown.gpu_section(gpu))
    return 0


def _write_plots(gpu: Gpu, folder: Path) -> None:
    try:
        from stages.report import canvas
        from stages.report.gpu import plots
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"--plots needs the package {error.name}, which is not installed here: run this in the "
            "bench image"
        ) from error
    drawn = plots.plots(gpu)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, kinds in drawn.items():
            (folder / f"{name}.svg").write_text(canvas.as_file(kinds["wide"]), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--plots {folder}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    raise SystemExit(main())
