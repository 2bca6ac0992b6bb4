"""Kills at any moment, two runs at once, on the bare host with real processes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from stages.core import artifact
from tests.core.toy import Project


def test_kill_9_at_ten_random_moments(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "seconds: 0.6")
    generator = random.Random(20250)
    for attempt in range(10):
        project.replace("stages/profiles/toy.yaml", "text: one", "text: one more")
        process = project.start("run", "--profile", "toy", "--local")
        time.sleep(generator.uniform(0.1, 1.8))
        if attempt % 2:
            process.kill()
        else:
            _kill_stage(project, process.pid)
        process.communicate(timeout=30)
        for folder, manifest in project.manifests().items():
            assert artifact.damage(folder, manifest, rehash=True) == []
    done = project.run()
    assert done.returncode == 0, done.stderr
    assert project.leftovers() == []
    for folder, manifest in project.manifests().items():
        assert artifact.damage(folder, manifest, rehash=True) == []
    assert {state for state, _ in project.states().values()} == {"fresh"}


def _kill_stage(project: Project, parent: int, kind: int = signal.SIGKILL) -> None:
    """Kill the stage that a run has started, if it has one now."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            os.kill(int(status.parent.name), kind)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (signal.SIGKILL, "count was ended from outside by signal 9; nothing was kept of it"),
        (signal.SIGILL, "count crashed with SIGILL, most likely in a library"),
    ],
)
def test_a_killed_stage_is_named_and_the_next_run_finishes(
    project: Project, kind: int, sentence: str
) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "seconds: 2.0")
    process = project.start("run", "--profile", "toy", "--local")
    _wait_for_stage(project, "count")
    _kill_stage(project, process.pid, kind)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert sentence in stderr
    assert project.run().returncode == 0


def test_a_killed_run_takes_its_stage_with_it(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "seconds: 60")
    process = project.start("run", "--profile", "toy", "--local")
    _wait_for_stage(project, "count")
    process.kill()
    process.communicate(timeout=30)
    deadline_sec = time.monotonic() + 10
    while project.leftovers() and time.monotonic() < deadline_sec:
        time.sleep(0.05)
    assert project.leftovers() == []


def test_sigterm_stops_the_stage_and_says_so(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "seconds: 60")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = project.start("run", "--profile", "toy", "--local")
        _wait_for_stage(project, "count")
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == code
        assert "error: interrupted; finished stages are kept, run again to go on\n" in stderr
        assert project.leftovers() == []


def test_two_runs_at_once(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "seconds: 2.0")
    first = project.start("run", "--profile", "toy", "--local")
    _wait_for_stage(project, "count")
    refused = project.run("--no-wait")
    assert refused.returncode == 2
    assert f"is in use by another run (process {first.pid}, since " in refused.stderr
    second = project.run()
    assert second.returncode == 0, second.stderr
    assert f"to end (process {first.pid}, since " in second.stdout
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert len(project.manifests()) == 3


def _wait_for_stage(project: Project, name: str) -> None:
    deadline_sec = time.monotonic() + 20
    while time.monotonic() < deadline_sec:
        if list((project.root / "artifacts" / "toy" / name).glob(".tmp-*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} did not start")
