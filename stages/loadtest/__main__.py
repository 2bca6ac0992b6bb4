"""The command line: `python -m stages.loadtest compare --model FILE --rows FILE --out DIR`."""

from __future__ import annotations

import locust  # noqa: F401  # It exchanges sockets for gevent's, so that it must come first.

# isort: split
import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core import hostinfo
from stages.core.artifact import hash_file
from stages.core.errors import CartwrightError, InputError
from stages.intent.rows import read_rows
from stages.loadtest import bars, compare, overload, samples, soak
from stages.loadtest.samples import Limits

PARTS = ("compare", "overload", "soak")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints tables, and writes `load-test-PART.json` and its samples.

    Returns:
        0 measured, whether the aims are met or not; 1 a server failed; 2 wrong input.
    """
    given = _parse(arguments)
    try:
        rows = read_rows(given.rows)
        if not given.model.is_file():
            raise InputError(f"{given.model} is not there: name a .gguf file")
        for part in PARTS if given.part == "all" else (given.part,):
            _measure(part, rows, given)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _measure(part: str, rows: list[Any], given: argparse.Namespace) -> None:
    print(f"{part} ...", flush=True)
    if part == "compare":
        limits = Limits(given.seconds, given.requests_each, 20 * given.seconds)
        groups = compare.measure(
            given.model, rows, given.threads, given.rounds, limits, given.exact_rows
        )
        found, made = {"loads": compare.figures(groups)}, compare.bars(groups)
        print(f"\n{compare.table(found['loads'])}")
    elif part == "overload":
        found, groups = overload.measure(
            given.model, rows, given.threads, given.connections, given.flood_sec
        )
        made = overload.bars(found)
    else:
        found, groups = soak.measure(given.model, rows, given.threads, given.requests)
        made = soak.bars(found)
    print(f"\n{bars.table(made)}\n", flush=True)
    record = {
        "schema": 1,
        "part": part,
        "command": given.command,
        "commit": given.commit,
        "parameters": {
            name: value for name, value in vars(given).items() if isinstance(value, int | float)
        },
        "model": {"name": given.model.name, "sha256": hash_file(given.model)},
        "rows": {"name": given.rows.name, "sha256": hash_file(given.rows)},
        "host": hostinfo.describe(),
        "versions": _versions(),
        "bars": [one._asdict() for one in made],
        "figures": found,
    }
    _publish(given.out, f"load-test-{part}", record, groups)


def _publish(folder: Path, name: str, record: dict[str, Any], groups: list[Any]) -> None:
    """Writes the samples and then the result, each in one rename."""
    raw, result = folder / f"{name}-samples.jsonl.gz", folder / f"{name}.json"
    drafts = [path.with_name(f".{path.name}.new") for path in (raw, result)]
    try:
        samples.write(drafts[0], groups)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        drafts[1].write_text(text + "\n", encoding="utf-8")
        for draft, path in zip(drafts, (raw, result), strict=True):
            draft.replace(path)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}") from error
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    packages = ("fastapi", "uvicorn", "llama-cpp-python", "locust")
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)
    waiting = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "")}
    return {name: version(name) for name in packages} | {"h2load": h2load.stdout.strip()} | waiting


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.loadtest", description="Put the service under load."
    )
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("--model", type=Path, required=True, metavar="GGUF")
    parser.add_argument("--rows", type=Path, required=True, metavar="JSONL", help="a dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the results")
    parser.add_argument("--threads", type=int, default=hostinfo.usable_cores())
    parser.add_argument("--seconds", type=float, default=4.0, help="of one comparison, at least")
    parser.add_argument("--requests-each", type=int, default=32, help="of one comparison, at least")
    parser.add_argument("--rounds", type=int, default=3, help="of comparisons")
    parser.add_argument("--exact-rows", type=int, default=200, help="that show who answers right")
    parser.add_argument("--connections", type=int, default=1_000, help="of a flood")
    parser.add_argument("--flood-sec", type=float, default=20.0, help="that a flood lasts")
    parser.add_argument("--requests", type=int, default=10_000, help="of the soak")
    parser.add_argument("--command", default="", help="what the user typed, for the record")
    parser.add_argument("--commit", default="", help="of the sources, for the record")
    given = parser.parse_args(arguments)
    for name in ("threads", "rounds", "requests_each", "exact_rows", "connections", "requests"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("seconds", "flood_sec"):
        if not 0 < getattr(given, name) <= 600:
            parser.error(f"--{name.replace('_', '-')} must be above 0 and at most 600")
    if given.connections < overload.BODIES or given.requests < soak.PARTS:
        parser.error("--connections must be at least 4, --requests at least 10")
    return given


if __name__ == "__main__":
    raise SystemExit(main())
