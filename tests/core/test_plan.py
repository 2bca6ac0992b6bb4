"""What runs again after which change, and why, through the command line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.core.toy import Project

FRESH: tuple[str, list[str]] = ("fresh", [])


@pytest.fixture
def built(project: Project) -> Project:
    done = project.run()
    assert done.returncode == 0, done.stderr
    return project


def test_nothing_is_built_at_first(project: Project) -> None:
    states = project.states()
    assert states["words"] == ("missing", ["never built in this profile"])
    assert states["count"] == ("waiting", ["waiting for words"])
    assert states["sum"] == ("waiting", ["waiting for count, words"])


def test_a_second_run_does_nothing(built: Project) -> None:
    before = {path: (path / "manifest.json").stat().st_mtime_ns for path in built.manifests()}
    assert built.run().returncode == 0
    after = {path: (path / "manifest.json").stat().st_mtime_ns for path in built.manifests()}
    assert before == after
    assert all(state == FRESH for state in built.states().values())


def test_a_parameter_names_its_old_and_new_value(built: Project) -> None:
    states = built.states("--set", "count.seconds=0.5")
    assert states["words"] == FRESH
    assert states["count"] == ("stale", ["parameter seconds changed: 0.0 -> 0.5"])
    assert states["sum"] == ("waiting", ["waiting for count"])


def test_a_stage_that_writes_the_same_bytes_stops_the_wave(built: Project) -> None:
    done = built.run("--set", "count.seconds=0.2")
    assert done.returncode == 0, done.stderr
    stages = [manifest["stage"] for manifest in built.manifests().values()]
    assert sorted(stages) == ["count", "count", "sum", "words"]


def test_other_bytes_run_all_behind_them(built: Project) -> None:
    done = built.run("--set", "words.text=four")
    assert done.returncode == 0, done.stderr
    stages = [manifest["stage"] for manifest in built.manifests().values()]
    assert sorted(stages) == ["count", "count", "sum", "sum", "words", "words"]
    assert built.states()["sum"] == FRESH


def test_an_edited_source_is_named(built: Project) -> None:
    built.replace("stages/count/stage.py", "counting", "counting on")
    states = built.states()
    assert states["count"] == ("stale", ["source stages/count/stage.py changed"])
    assert states["words"] == FRESH


def test_an_edit_of_what_all_stages_run_on_concerns_all(built: Project) -> None:
    built.replace("stages/core/entry.py", "No two attempts", "Never two attempts")
    states = built.states()
    assert states["words"] == ("stale", ["source stages/core/entry.py changed"])
    assert states["count"][0] == "waiting"


@pytest.mark.parametrize("name", ["core/plan.py", "core/lock.py", "host/runner.py", "host/view.py"])
def test_an_edit_of_the_host_concerns_no_stage(built: Project, name: str) -> None:
    file = built.root / "stages" / name
    file.write_text(file.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    assert all(state == FRESH for state in built.states().values())


def test_a_shared_module_concerns_who_imports_it(project: Project) -> None:
    project.write("stages/intent/__init__.py", "")
    project.write("stages/intent/rows.py", "from stages.intent import letters\n")
    project.write("stages/intent/letters.py", "A = 1\n")
    project.replace(
        "stages/sum/stage.py",
        "import json\n",
        "import json\n\nfrom stages.intent import (\n    rows,\n)\n",
    )
    assert project.run().returncode == 0
    project.write("stages/intent/letters.py", "A = 2\n")
    states = project.states()
    assert states["count"] == FRESH
    assert states["sum"] == ("stale", ["source stages/intent/letters.py changed"])


def test_a_host_file_counts_by_its_content(built: Project, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text(" four", encoding="utf-8")
    setting = ("--set", f"words.extra={extra}")
    assert built.states(*setting)["words"][0] == "stale"
    assert built.run(*setting).returncode == 0
    moved = extra.rename(tmp_path / "moved.txt")
    setting = ("--set", f"words.extra={moved}")
    assert built.states(*setting)["words"] == FRESH
    moved.write_text(" five", encoding="utf-8")
    assert built.states(*setting)["words"] == ("stale", ["file of extra changed"])


@pytest.mark.parametrize("damage", ["cut", "delete"])
def test_a_damaged_artifact_is_made_again(built: Project, damage: str) -> None:
    [folder] = [path for path, one in built.manifests().items() if one["stage"] == "count"]
    file = folder / "count.json"
    if damage == "cut":
        os.truncate(file, 0)
        reason = "count.json has 0 bytes instead of 1"
    else:
        file.unlink()
        reason = "count.json is gone"
    assert built.states()["count"] == ("stale", [reason])
    done = built.run()
    assert done.returncode == 0, done.stderr
    assert file.read_text(encoding="utf-8") == "3"
    assert built.leftovers() == []


def test_until_runs_what_it_needs_and_no_more(project: Project) -> None:
    assert project.run("--until", "count").returncode == 0
    assert {one["stage"] for one in project.manifests().values()} == {"words", "count"}


def test_the_lineage_leads_back_to_the_data(built: Project) -> None:
    done = built.invoke("show", "sum", "--profile", "toy", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["verified"]
    assert {(one["stage"], one["present"]) for one in shown["lineage"]} == {
        ("count", True),
        ("words", True),
    }
    assert "made from\n  count " in built.invoke("show", "sum", "--profile", "toy").stdout


def test_verify_finds_a_changed_byte(built: Project) -> None:
    [folder] = [path for path, one in built.manifests().items() if one["stage"] == "count"]
    (folder / "count.json").write_text("4", encoding="utf-8")
    done = built.invoke("show", "count", "--profile", "toy", "--verify")
    assert done.returncode == 1
    assert "count.json was changed after it was written" in done.stderr


def test_gc_keeps_what_the_plan_and_its_lineage_need(built: Project) -> None:
    assert built.run("--set", "words.text=four five").returncode == 0
    assert built.run().returncode == 0
    assert len(built.manifests()) == 6
    dry = built.invoke("gc", "--dry-run", "--no-images", "--keep", "0")
    assert (dry.returncode, len(built.manifests())) == (0, 6)
    # The plan is that of containers, which nothing here was built for: only --keep speaks.
    done = built.invoke("gc", "--no-images", "--keep", "1")
    assert done.returncode == 0, done.stderr
    texts = {one["params"].get("text") for one in built.manifests().values()}
    assert texts == {"four five", None}
    assert len(built.manifests()) == 3


def test_no_change_is_quick_beside_twenty_gigabytes(built: Project) -> None:
    for number in range(20):
        folder = built.root / "artifacts" / "toy" / "words" / f"{number:016x}"
        folder.mkdir()
        (folder / "manifest.json").write_text('{"schema_version": 1}', encoding="utf-8")
        with (folder / "weights.bin").open("wb") as sparse:
            sparse.truncate(10**9)
    walls_sec = []
    for _ in range(5):
        started_sec = time.perf_counter()
        assert built.run().returncode == 0
        walls_sec.append(time.perf_counter() - started_sec)
    assert min(walls_sec) <= 1.5
