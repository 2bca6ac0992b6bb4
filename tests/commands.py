"""Running the commands as a user does, and finding what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_invoke(*arguments: str, artifacts: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `invoke` as a user does, in the checkout, without a terminal."""
    env = dict(os.environ)
    if artifacts is not None:
        env["CARTWRIGHT_ARTIFACTS"] = str(artifacts)
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )


def one_artifact(artifacts: Path, stage: str, profile: str = "tiny") -> Path:
    """The only complete artifact of a stage."""
    (folder,) = (m.parent for m in (artifacts / profile / stage).glob("[!.]*/manifest.json"))
    return folder
