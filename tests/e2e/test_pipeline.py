"""The tiny profile through every CPU image: what it leaves behind, and what a second run does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

from tests.commands import ROOT, one_artifact, run_invoke

STAGES = ("data", "base", "train", "gguf", "gptq", "bench-cpu", "report")


def test_every_stage_left_one_complete_artifact(tiny: Path) -> None:
    for stage in STAGES:
        folder = one_artifact(tiny, stage)
        manifest = json.loads((folder / "manifest.json").read_text())
        on_disk = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "manifest.json"
        }
        assert set(manifest["files"]) == on_disk
        assert manifest["stage"] == stage and manifest["wall_sec"] > 0
        assert manifest["peak_rss_bytes"] > 1_000_000
    assert not list(tiny.rglob(".tmp-*"))


def test_artifacts_belong_to_the_caller(tiny: Path) -> None:
    owners = {path.stat().st_uid for path in tiny.rglob("*")}
    assert owners == {os.getuid()}


def test_nothing_changed_runs_nothing_and_is_quick(tiny: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny.rglob("manifest.json")}
    took_sec = []
    for _ in range(3):
        started_sec = time.monotonic()
        done = run_invoke("run", "--profile", "tiny", artifacts=tiny)
        took_sec.append(time.monotonic() - started_sec)
        assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in tiny.rglob("manifest.json")} == before
    # The bar is 1.0 s on a quiet machine; a test machine may be busy.
    assert min(took_sec) <= 2.0


def test_only_what_depends_on_a_change_runs_again(tiny: Path) -> None:
    done = run_invoke(
        "status", "--profile", "tiny", "--set", "gguf.imatrix_rows=17", "--why", "--json",
        artifacts=tiny,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    states = {row["stage"]: row["state"] for row in json.loads(done.stdout)}
    assert states == {
        "data": "fresh",
        "base": "fresh",
        "train": "fresh",
        "gguf": "stale",
        "gptq": "fresh",
        "bench-cpu": "waiting",
        "report": "waiting",
    }
    assert "imatrix_rows" in done.stdout


def test_every_variant_was_measured_and_none_answers_outside_its_catalog(tiny: Path) -> None:
    metrics = json.loads((one_artifact(tiny, "bench-cpu") / "metrics.json").read_text())
    variants = {variant["encoding"]: variant for variant in metrics["variants"]}
    assert {"F16", "Q8_0", "Q4_K_M"} <= set(variants)
    assert any(variant["engine"] == "transformers" for variant in metrics["variants"])
    for variant in metrics["variants"]:
        assert variant["latency_sec"]["p50"] > 0 and variant["peak_rss_bytes"] > 1_000_000
        accuracy = variant["accuracy"]
        assert accuracy["invalid_json"] == 0 and accuracy["invented_products"] == 0
        assert accuracy["exact"]["low"] <= accuracy["exact"]["value"] <= accuracy["exact"]["high"]
    # The base knows the shop before it is fine-tuned, so even the tiny profile answers well.
    assert variants["F16"]["accuracy"]["exact"]["value"] > 0.5
    samples = (one_artifact(tiny, "bench-cpu") / "samples.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in samples)


def test_train_and_test_share_no_message_template(tiny: Path) -> None:
    folder = one_artifact(tiny, "data")
    templates = {
        split: {
            json.loads(line)["template"]
            for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        }
        for split in ("train", "test")
    }
    assert templates["train"] and templates["test"]
    assert not templates["train"] & templates["test"]


def test_tokenizer_files_are_carried_over_untouched(tiny: Path) -> None:
    base, merged = one_artifact(tiny, "base"), one_artifact(tiny, "train") / "merged"
    names = [path.name for path in base.glob("*token*")]
    assert "tokenizer.model" in names
    for name in names:
        assert (base / name).read_bytes() == (merged / name).read_bytes()


def test_report_stands_alone(tiny: Path) -> None:
    folder = one_artifact(tiny, "report")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert not re.findall(r"""(?:src|href)=["']?https?:""", html)
    report = json.loads((folder / "report.json").read_text())
    assert report["recommendation"]["variant"]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "model-index" in card


def test_show_follows_the_lineage_back_to_the_data(tiny: Path) -> None:
    done = run_invoke("show", "gguf", "--profile", "tiny", "--verify", artifacts=tiny)
    assert done.returncode == 0, done.stderr
    for stage in ("gguf", "train", "base", "data"):
        assert one_artifact(tiny, stage).name[:12] in done.stdout


def test_same_inputs_give_the_same_rows(tiny: Path, tmp_path: Path) -> None:
    done = run_invoke("run", "--profile", "tiny", "--until", "data", artifacts=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = one_artifact(tiny, "data"), one_artifact(tmp_path, "data")
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_second_run_waits_or_says_so(tiny: Path) -> None:
    holder = subprocess.Popen(
        ["flock", str(tiny / ".lock"), "sleep", "30"], cwd=ROOT, stdin=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        done = run_invoke("run", "--profile", "tiny", "--no-wait", artifacts=tiny)
        assert done.returncode == 2 and "in use by another run" in done.stderr
    finally:
        holder.terminate()
        holder.wait()
