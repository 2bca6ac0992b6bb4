"""Reports that are there: found by file, folder, profile or key, asked, compared, exported."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from stages.core import plan
from stages.core.errors import InputError
from stages.core.key import SHORT_KEY_LENGTH
from stages.host import settings

REPORT = "report.json"
_KEY = re.compile(r"[0-9a-f]{6,64}")


def find(name: str, option: str) -> Path:
    """The report.json that a user named.

    Args:
        name: A file, a folder with a report.json (a report's artifact or a measurement), a profile
            that has a report, or the beginning of a report artifact's key.
        option: For sentences.

    Raises:
        InputError: There is none, or several keys begin so.
    """
    path = Path(name).expanduser().resolve()
    if path.is_file():
        return path
    for folder in (path, path / "report"):
        if (folder / REPORT).is_file():
            return folder / REPORT
    artifacts = settings.artifacts()
    found = plan.newest_first(artifacts / name / "report")[:1] if "/" not in name else []
    if not found and _KEY.fullmatch(name):
        pattern = f"[!.]*/report/{name[:SHORT_KEY_LENGTH]}*/{REPORT}"
        found = [file.parent for file in artifacts.glob(pattern)]
    if len(found) != 1:
        raise InputError(
            f"{option} {name}: {len(found) or 'no'} reports are called so; give a report.json, its "
            "folder, a profile that has a report (`invoke report` makes it) or a report's key"
        )
    return found[0] / REPORT


def recommend(report: Path, limits: Mapping[str, str], *, as_json: bool) -> int:
    """Print which variant of a report meets limits, or what is in the way; returns the exit code.

    Args:
        report: The report.json.
        limits: Options of `stages.report.ask` without dashes before them; empty ones are left out.
        as_json: Print JSON.
    """
    words = [f"--{name}={value}" for name, value in limits.items() if value]
    # It reads one file with nothing but Python's own library: no container is needed.
    return subprocess.run(
        [
            *(sys.executable, "-m", "stages.report.ask", "--report", str(report)),
            *words,
            *(["--json"] if as_json else []),
        ],
        cwd=settings.ROOT,
        check=False,
    ).returncode
