"""The CPU bench without an engine: parameters, rows, variants, percentiles, noise, the table."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.bench_cpu import dataset, quality
from stages.bench_cpu.energy import Energy
from stages.bench_cpu.evaluate import main, table
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.stage import run
from stages.bench_cpu.variants import Variant, gguf_variants, transformers_variants
from stages.core import figures
from stages.core.errors import InputError, StageFailed
from stages.intent.metrics import rate, score, summarize
from stages.intent.rows import read_rows
from tests.stages.test_gguf import gguf_bytes, write


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"threads": -1}, "threads"),
        ({"rows": -5}, "rows"),
        ({"rounds": 0}, "rounds"),
        ({"latency_rows": 0}, "latency_rows"),
        ({"context_tokens": 8}, "context_tokens"),
        ({"hf_dtypes": ("int8",)}, "hf_dtypes: 'int8'"),
    ],
)
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Params(**values)


# ------------------------------------------------------------------ figures


def test_percentiles_lie_between_neighbours() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert figures.percentile(values, 0.0) == 1
    assert figures.percentile(values, 0.5) == 50.5
    assert figures.percentile(values, 0.99) == pytest.approx(99.01)
    assert figures.percentile(values, 1.0) == 100
    assert figures.percentile([7.0], 0.9) == 7
    assert figures.latency([0.1, 0.3]) == pytest.approx(
        {"p50": 0.2, "p90": 0.28, "p99": 0.298, "mean": 0.2, "n": 2}
    )


def test_the_interval_of_a_median_is_between_two_samples() -> None:
    values = [float(n) for n in range(100)]
    # Of 100 samples the 40th and the 61st, as the binomial distribution has it.
    assert figures.median_interval(values) == (39, 60)
    assert figures.median_interval([3.0]) == (3, 3)
    # Of many draws, the true median must lie in it in about 95 of a hundred.
    draw = random.Random(7)
    hits = 0
    for _ in range(1000):
        low, high = figures.median_interval([draw.expovariate(1.0) for _ in range(60)])
        hits += low <= math.log(2) <= high
    assert 940 <= hits <= 985


def test_noise_is_the_difference_of_a_twin() -> None:
    quiet = figures.noise("Q4_0", [[0.010, 0.011, 0.012]], [[0.0115, 0.0112, 0.011]])
    assert quiet["p50_sec"] == [0.011, 0.0112]
    assert quiet["relative"] == pytest.approx(0.018, abs=0.001)
    assert quiet["warning"] is None
    loud = figures.noise("Q4_0", [[0.010]], [[0.015]])
    assert "too noisy" in loud["warning"]
    other_requests = figures.noise("Q4_0", [[0.010], [0.020]], [[0.010], [0.020]])
    assert other_requests["relative"] == other_requests["round_spread"] == 0
    assert other_requests["warning"] is None
    wavering = figures.noise("Q4_0", [[0.010], [0.020]], [[0.020], [0.010]])
    assert wavering["relative"] == 0
    assert "by up to 100% within a round" in wavering["warning"]


# ------------------------------------------------------------------ rows


def test_the_sample_is_sound_and_has_all_languages() -> None:
    rows = read_rows(dataset.SAMPLE)
    assert {row.language for row in rows} == {"english", "croatian", "spanish"}
    assert dataset.dataset_file(None) == dataset.SAMPLE


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 \*.jsonl files"):
        dataset.dataset_file(tmp_path)
    (tmp_path / "mine.jsonl").touch()
    assert dataset.dataset_file(tmp_path).name == "mine.jsonl"
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(InputError, match=r"2 \*.jsonl files"):
        dataset.dataset_file(tmp_path)
    (tmp_path / "test.jsonl").touch()
    assert dataset.dataset_file(tmp_path).name == "test.jsonl"
    assert dataset.dataset_file(tmp_path / "mine.jsonl").name == "mine.jsonl"


def test_choice_is_seeded_and_nested() -> None:
    ten, five = (dataset.choose(dataset.SAMPLE, n, seed=3) for n in (10, 5))
    assert ten[:5] == five
    assert ten != dataset.choose(dataset.SAMPLE, 10, seed=4)
    assert len(dataset.choose(dataset.SAMPLE, 0, seed=3)) == 24
    assert dataset.cycle(["a", "b", "c"], 2, 4) == ["c", "a", "b", "c"]


# ------------------------------------------------------------------ variants


def test_variants_are_named_by_encoding_unless_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, gguf_bytes(), "one.gguf")
    (only,) = gguf_variants(tmp_path)
    assert (only.name, only.encoding, only.parameters) == ("Q4_K_M", "Q4_K_M", 512)
    assert only.to_record()["file"] == "one.gguf"
    write(tmp_path, gguf_bytes(), "two.gguf")
    assert {one.name for one in gguf_variants(tmp_path)} == {"one", "two"}


def safetensors(folder: Path, shapes: dict[str, list[int]]) -> None:
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    (folder / "config.json").write_text("{}")


def test_transformers_variants_count_their_weights(tmp_path: Path) -> None:
    safetensors(tmp_path, {"a": [4, 3], "b": [5]})
    fp32, bf16 = transformers_variants(tmp_path, ("float32", "bfloat16"))
    assert (fp32.name, fp32.parameters, fp32.memory_bytes) == ("transformers FP32", 17, 68)
    assert (bf16.encoding, bf16.bits_per_weight, bf16.memory_bytes) == ("BF16", 16.0, 34)
    assert fp32.to_record()["file"] is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 12)
    with pytest.raises(InputError, match="no sound safetensors"):
        transformers_variants(tmp_path, ("float32",))


def test_large_models_are_not_held_together() -> None:
    def variant(memory_bytes: int) -> Variant:
        return Variant("v", "llama.cpp", Path("v"), "F16", 1, memory_bytes, 16.0, 1)

    assert quality.plan([variant(1 << 20)] * 3, cores=2) == (2, 1)
    assert quality.plan([variant(1 << 50)] * 3, cores=8) == (1, 8)
    assert quality.plan([variant(1 << 20)], cores=8) == (1, 8)


# ------------------------------------------------------------------ workers and the stage


def test_dead_worker_is_a_failed_stage(tmp_path: Path) -> None:
    variant = Variant("odd", "no such engine", tmp_path, "F16", 1, 1, 16.0, 1, dtype="float32")
    with pytest.raises(StageFailed, match="the process of odd was ended with 1"):
        Worker(variant, threads=1, context_tokens=64)


def test_stage_refuses_inputs_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no --input gguf"):
        run(Params(), {}, tmp_path)
    with pytest.raises(InputError, match="--input modle"):
        run(Params(), {"gguf": tmp_path, "modle": tmp_path}, tmp_path)
    with pytest.raises(InputError, match="holds no GGUF model"):
        run(Params(), {"gguf": tmp_path}, tmp_path)


# ------------------------------------------------------------------ evaluate


def evaluate(model: Path, rows: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.bench_cpu.evaluate"]
    command += ["--model", str(model), "--dataset", str(rows)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{not json", "rows.jsonl:2: the row is not JSON"),
        ('{"prompt": "x"}', "rows.jsonl:2: the key 'completion' is missing"),
    ],
)
def test_evaluate_names_the_bad_row(tmp_path: Path, line: str, sentence: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(dataset.SAMPLE.read_text(encoding="utf-8").splitlines()[0] + f"\n{line}\n")
    done = evaluate(write(tmp_path, gguf_bytes()), rows)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_evaluate_refuses_an_empty_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").touch()
    arguments = ["--model", "m.gguf", "--dataset", str(tmp_path / "rows.jsonl")]
    assert main(arguments) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_table_has_every_rate_and_the_worst_rows() -> None:
    rows = read_rows(dataset.SAMPLE)
    texts = [row.completion for row in rows]
    texts[0] = texts[0].replace("add", "remove")
    scores = [score(row, text) for row, text in zip(rows, texts, strict=True)]
    mistake = {
        "row": 1, "language": "english", "message": rows[0].message, "probability": 0.5,
        "expected": rows[0].completion, "got": texts[0], "wrong": ["action"],
    }  # fmt: skip
    report = {
        "model": "m.gguf", "dataset": "d.jsonl", "rows": 24,
        "summary": summarize(rows, scores), "worst": [mistake],
        "by_slice": {"near_miss": {"true": rate([True, False])}},
        "confusion": {"add": {"add": 11, "remove": 1}, "remove": {"add": 0, "remove": 12}},
        "coverage": [{"share": 0.9, "threshold": 0.75, "exact": rate([True] * 9)}],
        "calibration": {"bins": [], "expected_error": 0.034},
        "baselines": {"rules": {"exact": rate([True, True, False, False])}},
    }  # fmt: skip
    shown = table(report)
    assert "exact                      95.8%  79.8% to 99.3%         24" in shown
    assert "baseline: rules            50.0%" in shown
    assert "wanted add: 11 answered add, 1 answered remove" in shown
    assert "By near miss:\n  true                     50.0%" in shown
    assert " 90% of the rows, probability ≥ 0.750: 100.0% right" in shown
    assert "differ by 3.4% on average" in shown
    assert "  croatian                100.0%" in shown
    assert "row 1 (action)" in shown


def counter(folder: Path, name: str, energy_uj: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / name / "max_energy_range_uj").write_text("9999999\n")


def test_energy_is_that_of_all_packages_and_survives_a_counter_that_begins_anew(
    tmp_path: Path,
) -> None:
    counter(tmp_path, "intel-rapl:0", 9_000_000)
    counter(tmp_path, "intel-rapl:1", 1_000_000)
    counter(tmp_path, "intel-rapl:0:0", 500)  # a part of the first
    energy = Energy(tmp_path)
    before = energy.read()
    assert before == [9_000_000, 1_000_000]
    counter(tmp_path, "intel-rapl:0", 500_000)
    counter(tmp_path, "intel-rapl:1", 3_000_000)
    counter(tmp_path, "intel-rapl:0:0", 400)
    assert energy.joules_since(before) == pytest.approx(1.5 + 2.0)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert energy.read() == [] and energy.joules_since(before) is None


def test_energy_is_none_where_the_system_counts_none(tmp_path: Path) -> None:
    energy = Energy(tmp_path / "nothing")
    assert energy.read() == [] and energy.joules_since([]) is None
