"""The CPU bench on a real file: isolated workers, the whole stage, the evaluate command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stages.bench_cpu import fidelity, llama_bench, machine
from stages.bench_cpu.dataset import SAMPLE
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.variants import gguf_variants
from stages.core.errors import InputError, StageFailed
from stages.intent.rows import read_rows

MODEL = Path(os.environ["CARTWRIGHT_TEST_GGUF"])
LINES = SAMPLE.read_text(encoding="utf-8").splitlines()


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


# ------------------------------------------------------------------ workers


def test_workers_are_apart_and_measured_alone() -> None:
    (variant,) = gguf_variants(MODEL)
    # The parent's memory must not count as the worker's.
    ballast = b"\1" * (400 << 20)
    with Worker(variant, 1, 512) as one, Worker(variant, 1, 512) as other:
        assert one.loaded["load_sec"] > 0
        assert one.loaded["start_sec"] > one.loaded["load_sec"]
        (sample,) = one.answer(LINES[:1], "constrained")
        assert json.loads(sample["text"]).keys() == {"action", "product", "quantity"}
        assert sample["passes"] >= 1
        memory = one.memory()
        assert variant.size_bytes < memory["peak_rss_bytes"] < len(ballast)
        assert memory["peak_rss_bytes"] > one.loaded["before_load_rss_bytes"] > 0
        one.close()
        (same,) = other.answer(LINES[:1], "constrained")
        assert same["text"] == sample["text"]
        (free,) = other.answer(LINES[:1], "free")
        assert free["tokens"] <= 96
        (speed,) = other.speed(LINES[:1], 5)
        assert speed["decode_tokens"] == 5
        assert speed["prompt_tokens"] == sample["prompt_tokens"]


def test_worker_tells_a_mistake_from_a_crash(tmp_path: Path) -> None:
    (variant,) = gguf_variants(MODEL)
    with Worker(variant, 1, 64) as worker:
        with pytest.raises(InputError, match="the context holds"):
            worker.answer(LINES[:1], "constrained")
        with pytest.raises(StageFailed, match=r"ended with 1: Traceback.*KeyError"):
            worker.answer(LINES[:1], "no such mode")


# ------------------------------------------------------------------ the stage


def test_one_file_alone_is_measured_whole(tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    shutil.copy(MODEL, models)
    values = {"rows": 9, "free_rows": 3, "latency_rows": 4, "rounds": 2, "warmup": 1}
    (tmp_path / "p.json").write_text(json.dumps(values))
    stage = ("stages.bench_cpu", "--params", tmp_path / "p.json", "--out", out)
    done = python(*stage, "--input", f"gguf={models}")
    assert done.returncode == 0, done.stderr
    assert "latency round 2/2" in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    (variant,) = metrics["variants"]
    assert variant["file"] == MODEL.name
    assert variant["engine"] == "llama.cpp"
    assert variant["accuracy"]["exact"]["n"] == 9
    coverage = variant["confidence"]["coverage"]
    assert coverage[-1]["share"] == 1 and coverage[-1]["exact"] == variant["accuracy"]["exact"]
    assert [one["threshold"] for one in coverage] == sorted(
        (one["threshold"] for one in coverage), reverse=True
    )
    bins = variant["confidence"]["calibration"]["bins"]
    assert sum(one["exact"]["n"] for one in bins) == 9
    assert variant["accuracy"]["invalid_json"] == 0
    assert variant["accuracy"]["invented_products"] == 0
    assert variant["free"]["exact"]["n"] == 3
    latency = variant["latency_sec"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert latency["n"] == variant["latency_known_sec"]["n"] == 8
    for key in ("prompt_tokens_per_sec", "decode_tokens_per_sec", "load_sec", "peak_rss_bytes"):
        assert variant[key] > 0
    assert metrics["noise"]["variant"] == variant["name"]
    assert len(metrics["noise"]["p50_sec"]) == 2
    assert metrics["host"]["kernel_backend"].startswith("libggml-cpu")
    assert metrics["settings"]["dataset"] == "built-in sample"
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    timed = [s for s in samples if s["phase"] == "latency" and s["mode"] == "constrained"]
    # Twice eight: the model takes part as its own twin.
    assert len(timed) == 16
    assert metrics["host"]["memory_read_bytes_per_sec"] > 1e9
    known = [s for s in samples if s["phase"] == "latency" and s["mode"] == "known"]
    by_row = {s["row"]: s for s in timed}
    assert len(known) == 16 and all(s["text"] == by_row[s["row"]]["text"] for s in known)
    assert sum(s["phase"] == "accuracy" for s in samples) == 9 + 3
    # Nothing is beside it to be held against.
    assert metrics["reference"] is None and variant["fidelity"] is None
    assert latency["p50_low"] <= latency["p50"] <= latency["p50_high"]
    points = metrics["threads"]["points"]
    assert points[0]["threads"] == 1 and points[-1]["latency_sec"]["n"] == 8
    assert len(metrics["settings"]["pinned_cores"]) == points[-1]["threads"]
    # Mapped pages are the file's; read ones belong to the process alone.
    mapped, read = variant["memory"]["mapped"], variant["memory"]["read"]
    assert variant["peak_rss_bytes"] == mapped["peak_rss_bytes"]
    assert mapped["rss_file_bytes"] - read["rss_file_bytes"] > variant["size_bytes"] / 2
    assert 0 < mapped["pss_bytes"] <= mapped["peak_rss_bytes"]
    own = variant["llama_bench"]
    assert own["prompt_tokens"] > 20 and own["decode_tokens"] == 24
    assert own["decode_tokens_per_sec"] > own["decode_at_depth_tokens_per_sec"] / 2 > 0


# ------------------------------------------------------------------ beside a reference


def quantized(folder: Path, kind: str) -> None:
    command = ["llama-quantize", "--allow-requantize", MODEL, folder / f"{kind}.gguf", kind]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def test_a_coarser_file_is_further_from_the_reference(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for kind in ("F16", "Q8_0", "Q2_K"):
        quantized(models, kind)
    variants = gguf_variants(models)
    rows = read_rows(SAMPLE)
    texts = {variant.name: [row.completion for row in rows] for variant in variants}
    texts["Q2_K"][0] = texts["Q2_K"][1]
    samples: list[dict[str, object]] = []
    params = Params(kl_rows=4)
    name, near = fidelity.measure(params, variants, rows, texts, tmp_path, 1, samples.append)
    assert name == "F16" and near["F16"] is None
    fine, coarse = near["Q8_0"], near["Q2_K"]
    assert fine and coarse
    assert 0 < fine["kl_divergence_nats"] < 1e-3 < coarse["kl_divergence_nats"]
    assert fine["kl_divergence_nats"] < fine["kl_p99_nats"] < coarse["kl_p99_nats"]
    assert (fine["agreement"]["value"], coarse["agreement"]["value"]) == (1, 23 / 24)
    assert fine["rows"] == 4 and fine["tokens"] == coarse["tokens"]
    assert sum(len(one["kl_nats"]) for one in samples) == 2 * fine["tokens"]  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [models], "the reference's distributions are left behind"
    # Not asked for: the answers are compared all the same.
    _, near = fidelity.measure(
        Params(kl_rows=0), variants, rows, texts, tmp_path, 1, samples.append
    )
    assert near["Q8_0"] and near["Q8_0"]["kl_divergence_nats"] is None


def test_a_model_is_no_distance_from_itself(tmp_path: Path) -> None:
    (variant,) = gguf_variants(MODEL)
    with Worker(variant, 1, 512) as one:
        one.distributions(LINES[:2], tmp_path, write=True)
        first, second = one.distributions(LINES[:2], tmp_path, write=False)
        assert max(*first["kl_nats"], *second["kl_nats"]) < 1e-6
        # The same answer in another place is another distribution.
        one.distributions(LINES[:1], tmp_path, write=True)
        other = json.loads(LINES[0])
        other["prompt"] = other["prompt"].replace("User:\n", "User:\nplease, ")
        (moved,) = one.distributions([json.dumps(other)], tmp_path, write=False)
        assert max(moved["kl_nats"]) > 1e-6


def test_a_program_is_pinned_where_its_threads_are_few() -> None:
    usable = sorted(os.sched_getaffinity(0))
    (variant,) = gguf_variants(MODEL)
    with Worker(variant, 1, 64, pin=True) as worker:
        assert os.sched_getaffinity(worker.process_id) == set(machine.choose_cores(1))
    with Worker(variant, 1, 64) as worker:
        assert sorted(os.sched_getaffinity(worker.process_id)) == usable
    assert len(machine.choose_cores(1)) == 1
    assert machine.choose_cores(10_000) == usable == sorted(os.sched_getaffinity(0))


def test_llama_bench_refuses_what_is_no_model(tmp_path: Path) -> None:
    (variant,) = gguf_variants(MODEL)
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    broken = replace(variant, path=tmp_path / "none.gguf")
    with pytest.raises(StageFailed, match=r"llama-bench on none\.gguf ended with 1"):
        llama_bench.measure(Params(), [broken], 30, 1)
    assert llama_bench.measure(Params(llama_bench_runs=0), [variant], 30, 1) == {"Q4_K_M": None}


def test_rows_of_ones_own(tmp_path: Path) -> None:
    models, data = tmp_path / "models", tmp_path / "data"
    for folder in (models, data):
        folder.mkdir()
    shutil.copy(MODEL, models)
    (data / "mine.jsonl").write_text("\n".join([*LINES[:2], "{}"]), encoding="utf-8")
    (tmp_path / "p.json").write_text("{}")
    inputs = ("--input", f"gguf={models}", "--input", f"data={data}", "--out", tmp_path / "out")
    done = python("stages.bench_cpu", "--params", tmp_path / "p.json", *inputs)
    assert done.returncode == 2
    assert "mine.jsonl:3: the key 'prompt' is missing" in done.stderr
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ evaluate


def test_evaluate_counts_every_row(tmp_path: Path) -> None:
    done = python("stages.bench_cpu.evaluate", "--model", MODEL, "--dataset", SAMPLE, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    summary = report["summary"]
    assert report["rows"] == summary["exact"]["n"] == len(LINES)
    assert set(summary["by_language"]) == {"croatian", "english", "spanish"}
    assert summary["exact"]["low"] <= summary["exact"]["value"] <= summary["exact"]["high"]
    wrong = round(len(LINES) * (1 - summary["exact"]["value"]))
    assert len(report["worst"]) == min(20, wrong)
    assert sum(sum(row.values()) for row in report["confusion"].values()) == len(LINES)
    assert report["coverage"][-1]["exact"] == summary["exact"]
    assert report["baselines"]["rules"]["exact"]["n"] == len(LINES)
    assert sum(one["exact"]["n"] for one in report["calibration"]["bins"]) == len(LINES)
    shown = python("stages.bench_cpu.evaluate", "--model", MODEL, "--dataset", SAMPLE)
    assert "95 % interval" in shown.stdout
    assert shown.stderr == ""


def test_evaluate_refuses_what_is_no_model(tmp_path: Path) -> None:
    text = tmp_path / "model.gguf"
    text.write_text("not a model")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(MODEL.read_bytes()[:-1])
    for file, sentence in ((text, "is not a GGUF file"), (cut, "is truncated")):
        done = python("stages.bench_cpu.evaluate", "--model", file, "--dataset", SAMPLE)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
