"""`python -m stages.report.compare --first A.json --second B.json --out DIR`.

Writes comparison.json, comparison.md and comparison.html into a new folder, and prints what
differs. Either report is a report.json or a folder that holds one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import CartwrightError, InputError
from stages.report.check import read_report
from stages.report.compare import page
from stages.report.compare.content import compare
from stages.report.compare.schema import Comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares, writes and prints; returns the exit code (2 for wrong input)."""
    given = _parse(arguments)
    try:
        if given.out.exists():
            raise InputError(f"--out {given.out}: exists already; name a new folder or delete it")
        found = compare(
            [read_report(given.first), read_report(given.second)],
            [given.first_label or given.first.name, given.second_label or given.second.name],
        )
        _write(found, given.out)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print("\n".join(found["sentences"]))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.report.compare",
        description="Two reports side by side: what differs, and what is within the noise.",
    )
    for side in ("first", "second"):
        parser.add_argument(f"--{side}", type=Path, required=True, metavar="JSON")
        parser.add_argument(f"--{side}-label", default="", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    return parser.parse_args(arguments)


def _write(found: Comparison, out: Path) -> None:
    """All files or none."""
    from stages.report import backend
    from stages.report.compare import plots

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from error
    try:
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        (made / "comparison.json").write_text(text + "\n", encoding="utf-8")
        (made / "comparison.md").write_text(page.render(found), encoding="utf-8")
        html = backend.page(page.content(found, plots.plots(found)), "compare.html.j2")
        (made / "comparison.html").write_text(html, encoding="utf-8")
        made.chmod(0o755)
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
