"""Runs a stage's own command line on this host, as a container would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.commands import ROOT


def run_stage(
    name: str, params: dict[str, Any], inputs: dict[str, Path], out: Path, **environment: str
) -> dict[str, Any]:
    """Runs a stage and returns its manifest; what it prints goes on to this process's output.

    `environment` adds to this process's own.
    """
    given = out.with_suffix(".params.json")
    given.write_text(json.dumps(params), encoding="utf-8")
    command = [sys.executable, "-m", f"stages.{name}", "--params", str(given), "--out", str(out)]
    for key, path in inputs.items():
        command += ["--input", f"{key}={path}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-4_000:])
    assert done.returncode == 0, f"stages.{name}: {done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return manifest
