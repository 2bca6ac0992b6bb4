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


def keep_result(name: str, test: str, manifest: dict[str, Any], **more: Any) -> None:
    """Writes what a test measured to the folder CARTWRIGHT_RESULTS, if that is set."""
    folder = os.environ.get("CARTWRIGHT_RESULTS")
    if not folder:
        return
    kept = {key: manifest[key] for key in ("params", "metrics", "wall_sec", "host", "packages")}
    command = f"CARTWRIGHT_RESULTS=DIR pytest -m gpu tests/gpu/{test}"
    text = json.dumps({"command": command, **kept, **more}, indent=1)
    Path(folder, f"{name}.json").write_text(text + "\n", encoding="utf-8")
