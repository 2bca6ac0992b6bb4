"""`kill -9` of the run, or of a stage's container, at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.commands import ROOT, run_invoke

SEED, MOMENTS = 20_260_101, 10


def _complete_but_broken(artifacts: Path) -> list[str]:
    """Artifacts with a manifest whose files are not all there at their recorded sizes."""
    broken = []
    for manifest in artifacts.glob("*/*/[!.]*/manifest.json"):
        for name, entry in json.loads(manifest.read_text())["files"].items():
            path = manifest.parent / name
            if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
                broken.append(str(path))
    return broken


def _containers() -> list[str]:
    listed = subprocess.run(
        ["docker", "ps", "--quiet", "--filter", "name=cartwright-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def test_no_moment_of_death_leaves_half_an_artifact(cpu_images: None, tmp_path: Path) -> None:
    moments = random.Random(SEED)
    for attempt in range(MOMENTS):
        run = subprocess.Popen(
            [sys.executable, "-m", "invoke", "run", "--profile", "tiny", "--until", "train"],
            cwd=ROOT,
            env={**os.environ, "CARTWRIGHT_ARTIFACTS": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0.3, 9.0))
        if attempt % 2:
            for container in _containers():
                subprocess.run(
                    ["docker", "kill", "--signal", "KILL", container],
                    capture_output=True,
                    check=False,  # It may have ended a moment ago.
                )
            run.wait(timeout=120)
        else:
            run.send_signal(signal.SIGKILL)
            run.wait()
        assert _complete_but_broken(tmp_path) == []
    done = run_invoke("run", "--profile", "tiny", "--until", "train", artifacts=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _complete_but_broken(tmp_path) == []
    assert not list(tmp_path.rglob(".tmp-*"))
    for stage in ("data", "base", "train"):
        assert len(list((tmp_path / "tiny" / stage).glob("[!.]*/manifest.json"))) == 1
