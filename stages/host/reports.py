"""Reports that are there: found by file, folder, profile or key, asked, compared, exported."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import artifact, plan
from stages.core.errors import InputError
from stages.core.key import SHORT_KEY_LENGTH
from stages.host import images, inspection, serving, settings
from stages.host.view import View

REPORT = "report.json"
FOLDER = "measurements"
_IMAGE = "bench"
_LICENSE = settings.ROOT / "LICENSE"
_OWN_LICENSE = "apache-2.0"


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
    if (path / REPORT).is_file():
        return path / REPORT
    of_profile = plan.newest_first(settings.artifacts() / Path(name).stem / "report")[:1]
    found = of_profile or inspection.by_key("report", name)
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


def compare(names: Sequence[str], view: View) -> tuple[int, Path]:
    """Hold two reports against each other; what differs is printed.

    Args:
        names: The two, each as for `find`; what they are called in the result.
        view: Where progress goes.

    Returns:
        Exit code, and the folder with comparison.html, comparison.md and comparison.json.

    Raises:
        InputError: There are not two names, or one is no report.
    """
    if len(names) != 2:
        raise InputError(
            f"--compare was given {len(names)} times and takes two reports: "
            "`invoke report --compare A --compare B`"
        )
    found = [find(name, "--compare") for name in names]
    images.ensure([_IMAGE], view)
    view.end()
    out = Path(FOLDER) / "compare" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    words, mounts = ["--out", f"/artifacts/{out}"], []
    for side, file, name in zip(("first", "second"), found, names, strict=True):
        place = f"/inputs/{side}/{REPORT}"
        mounts.append((file, place))
        words += [f"--{side}", place, f"--{side}-label", _label(name)]
    code = serving.run_tool(_IMAGE, mounts, "stages.report.compare", *words)
    return code, settings.artifacts() / out


def export(
    report: Path, out: str, variants: str, license_file: str, view: View, *, merged: bool
) -> int:
    """Make a folder that a hub upload takes as it is; returns the exit code.

    Args:
        report: A report's report.json, in its artifact.
        out: The folder to create.
        variants: As for `stages.report.export`.
        license_file: The license's text; empty for Apache-2.0.
        view: Where progress goes.
        merged: Also the transformers model.

    Raises:
        InputError: The report is of no profile's run, what it was made from is gone, or its
            license's text is not given.
    """
    folder = report.parent
    there = (folder / artifact.MANIFEST_NAME).is_file()
    manifest = artifact.read_manifest(folder) if there else {}
    if not there or "gguf" not in manifest["inputs"]:
        raise InputError(
            f"{folder} is not the report of a profile's run: measurements alone have no model to "
            "export; `invoke report` makes one"
        )
    license_name = manifest["params"]["license"]
    if not license_file and license_name != _OWN_LICENSE:
        raise InputError(
            f"the model's license is {license_name}: give its text with --license-file FILE"
        )
    text = serving.existing_file(license_file, "--license-file") if license_file else _LICENSE
    target = Path(out).expanduser().resolve()
    if target.exists() or not target.parent.is_dir():
        reason = "exists already" if target.exists() else "its parent folder is not there"
        raise InputError(f"--out {out}: {reason}; name a new folder")
    mounts = [(folder, "/inputs/report"), (_input(folder, manifest, "gguf"), "/inputs/gguf")]
    mounts.append((text, "/inputs/LICENSE"))
    words = ["--report", "/inputs/report", "--gguf", "/inputs/gguf", "--variants", variants]
    words += ["--license", "/inputs/LICENSE", "--out", f"/out/{target.name}"]
    if merged:
        mounts.append((_input(folder, manifest, "train") / "merged", "/inputs/merged"))
        words += ["--merged", "/inputs/merged"]
    images.ensure([_IMAGE], view)
    view.end()
    return serving.run_tool(
        _IMAGE, mounts, "stages.report.export", *words, writable=[(target.parent, "/out")]
    )


def _input(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """The artifact that a report was made from."""
    key = str(manifest["inputs"].get(name, {}).get("key") or "none")
    found = folder.parent.parent / name / key[:SHORT_KEY_LENGTH]
    if not found.is_dir():
        raise InputError(
            f"the report {folder.name} was made from the {name} artifact "
            f"{key[:SHORT_KEY_LENGTH]}, which is not there; `invoke report` makes both"
        )
    return found


def _label(name: str) -> str:
    """What a report is called by: a path's last part that says something."""
    path = Path(name)
    return path.parent.name if path.name == REPORT and path.parent.name else path.name
