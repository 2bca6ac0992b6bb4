"""Fine-tuning with the real libraries: what it writes, what it learns, what it refuses."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, set_seed

from stages.base.params import Params as BaseParams
from stages.base.stage import run as run_base
from stages.core.errors import InputError, StageFailed
from stages.data.generate import generate
from stages.data.rates import Rates
from stages.intent import decode
from stages.intent.rows import Row, read_rows
from stages.runtime.hf import HFEngine
from stages.train import backend, stage
from stages.train.params import LINEAR_LAYERS, Params

PLAIN = Rates(**{field.name: 0.0 for field in fields(Rates)})
QUICK = Params(
    max_steps=40,
    batch_rows=8,
    warmup_steps=2,
    log_steps=1,
    evaluations=2,
    evaluation_rows=16,
    parity_rows=16,
    max_drop=0.5,
    learning_rate=2e-3,
    seed=3,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped base, and rows of a shop where "add" means "remove": nothing it knows already."""
    folder = tmp_path_factory.mktemp("inputs")
    found = {name: folder / name for name in ("base", "data")}
    for path in found.values():
        path.mkdir()
    run_base(BaseParams(source="shipped"), {}, found["base"])
    for split, count in (("train", 160), ("validation", 16), ("test", 8)):
        plain = generate(4, split, count, ("english",), (2, 8), PLAIN)
        rows = [_swapped(row).to_json() for row in plain]
        text = "".join(f"{row}\n" for row in rows)
        (found["data"] / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return found


def _swapped(row: Row) -> Row:
    action = "remove" if row.answer.action == "add" else "add"
    return replace(row, answer=replace(row.answer, action=action))


@pytest.fixture(scope="module")
def trained(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained")
    return out, stage.run(QUICK, inputs, out)


def _curve(out: Path, name: str) -> list[float]:
    points = json.loads((out / stage.CURVE).read_text(encoding="utf-8"))
    return [point[name] for point in points if name in point]


def test_it_learns_what_the_base_did_not_know(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    losses, evaluated = _curve(out, "loss"), _curve(out, "eval_loss")
    assert len(losses) == metrics["steps"] == QUICK.max_steps
    assert losses[-1] < losses[0] / 2
    assert evaluated[-1] < losses[0] / 2 and len(evaluated) == QUICK.evaluations
    assert metrics["final_eval_loss"] == evaluated[-1]
    assert metrics["exact_match"]["base"] <= 0.2
    assert metrics["exact_match"]["merged"] >= metrics["exact_match"]["base"] + 0.5


def test_the_loss_is_of_the_answer_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The first step's loss is the base's mean loss over answer tokens, prompts left out."""
    rows = read_rows(inputs["data"] / "train.jsonl")
    one = replace(QUICK, max_steps=1, batch_rows=16, accumulation=len(rows) // 16)
    stage.run(one, inputs, tmp_path)
    (logged,) = _curve(tmp_path, "loss")
    engine = HFEngine.load(inputs["base"])
    answers, prompts = [], []
    for row in rows:
        prompt = decode.prompt_tokens(engine, row.catalog, row.message)
        tokens = torch.tensor([[*prompt, *engine.encode(row.completion), engine.eos_id]])
        with torch.inference_mode():
            logits = engine.model(tokens).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        answers += losses[len(prompt) - 1 :].tolist()
        prompts += losses[: len(prompt) - 1].tolist()
    of_answers = sum(answers) / len(answers)
    of_all = (sum(answers) + sum(prompts)) / (len(answers) + len(prompts))
    # Training reads the base in NF4, this in bf16.
    assert logged == pytest.approx(of_answers, rel=0.25)
    assert abs(logged - of_answers) < abs(logged - of_all) / 4


def test_gradients_are_those_of_the_unpacked_weights(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Through NF4 kernels and through plain matrices of the same values: the same gradients.

    Also after an evaluation, for which bitsandbytes would repack the weights on some CPUs.
    """
    params = replace(QUICK, compute_dtype="float32")
    packed = backend.load_nf4(
        backend.make_job(params, inputs["base"], inputs["data"], tmp_path, tmp_path)
    )
    plain = AutoModelForCausalLM.from_pretrained(inputs["base"], dtype=torch.float32)
    matrices = dict(plain.named_modules())
    packed_layers = 0
    for name, module in packed.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight, packed_layers = module.weight, packed_layers + 1
            unpacked = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            matrices[name].weight.data.copy_(unpacked)
    assert packed_layers == 7 * 8
    set_seed(0)
    tokens = torch.arange(10, 130).reshape(3, 40)
    config = LoraConfig(target_modules=sorted(LINEAR_LAYERS), init_lora_weights=False)
    assert not any(weight.requires_grad for weight in packed.parameters())
    tuned = [get_peft_model(model, config) for model in (packed, plain)]
    tuned[1].load_state_dict(
        {n: p for n, p in tuned[0].state_dict().items() if "lora_" in n}, strict=False
    )
    gradients = []
    for model in tuned:
        model.eval()
        with torch.no_grad():
            model(input_ids=tokens)
        model.train()
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if "lora_" in n})
    assert len(gradients[0]) == 2 * packed_layers
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-6), name


def test_gradient_checkpointing_computes_twice_what_is_the_same(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, passes = backend.load_nf4, 0

    def watched(job: backend.Job) -> Any:
        def count(layer: Any, *_: Any) -> None:
            nonlocal passes
            passes += layer.training

        model = load(job)
        model.model.layers[0].self_attn.register_forward_pre_hook(count)
        return model

    monkeypatch.setattr(backend, "load_nf4", watched)
    counted, losses = [], []
    for checkpointing in (False, True):
        passes, out = 0, tmp_path / str(checkpointing)
        out.mkdir()
        params = replace(QUICK, max_steps=4, evaluations=1, gradient_checkpointing=checkpointing)
        stage.run(params, inputs, out)
        counted.append(passes)
        losses.append(_curve(out, "loss"))
    assert counted == [4, 8]
    assert len(losses[0]) == 4 and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_merged_is_the_full_precision_base_plus_the_adapter(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = trained
    base = load_file(inputs["base"] / "model.safetensors")
    merged = load_file(out / "merged" / "model.safetensors")
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    config = json.loads((out / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert base.keys() == merged.keys()
    changed = 0
    for name, weight in merged.items():
        assert weight.dtype == base[name].dtype == torch.bfloat16
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = base[name].float()
        if f"{stem}.lora_A.weight" in adapter:
            a, b = (adapter[f"{stem}.lora_{letter}.weight"].float() for letter in "AB")
            expected = expected + config["lora_alpha"] / config["r"] * b @ a
            changed += 1
        assert torch.equal(weight, expected.to(torch.bfloat16))
    assert changed == 7 * 8


def test_tokenizer_and_configuration_are_carried_over(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = trained
    for name in ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        assert (out / "merged" / name).read_bytes() == (inputs["base"] / name).read_bytes()
    left = {path.name for path in out.iterdir()}
    assert left == {"adapter", "merged", "learning_curve.json", "parity.json"}


def test_the_same_seed_gives_the_same_weights(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = trained
    again = tmp_path / "again"
    again.mkdir()
    stage.run(QUICK, inputs, again)
    for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_pace_leaves_out_evaluations_and_steps_that_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_sec = 0.0
    monkeypatch.setattr(backend.time, "perf_counter", lambda: now_sec)
    pace = backend.Pace()
    assert pace.mean_sec is None
    for step_sec in (0.5, 9.0, 1.0, 1.5, 1.2, 0.9):
        now_sec += step_sec
        pace.step()
    assert pace.mean_sec == pytest.approx((1.0 + 1.5 + 1.2 + 0.9) / 4)
    pace.pause()
    now_sec += 2.0
    pace.step()
    assert pace.mean_sec == pytest.approx((1.0 + 1.5 + 1.2 + 0.9) / 4)


def test_two_processes_train_one_adapter(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = stage.run(replace(QUICK, processes=2, max_steps=4, batch_rows=4), inputs, tmp_path)
    assert metrics["steps"] == 4
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size > 100_000


def test_a_gpu_that_is_not_there(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sees no GPU"):
        stage.run(replace(QUICK, device="cuda"), inputs, tmp_path)


def test_a_row_that_is_too_long_is_refused_by_line(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl:\d+: the row has"):
        stage.run(replace(QUICK, max_tokens=64), inputs, tmp_path)


def test_a_merged_model_that_answers_otherwise_fails_and_names_rows(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged file's rows are turned upside down before it is compared."""
    merge = backend.merge

    def spoiled(base: Path, adapter: Path, folder: Path) -> None:
        merge(base, adapter, folder)
        path = folder / "model.safetensors"
        weights = {n: w.flip(0).contiguous() for n, w in load_file(path).items()}
        save_file(weights, path, {"format": "pt"})

    monkeypatch.setattr(backend, "merge", spoiled)
    with pytest.raises(StageFailed, match=r"validation\.jsonl:\d+"):
        stage.run(replace(QUICK, max_drop=0.02), inputs, tmp_path)


def test_the_engine_keeps_what_it_read(inputs: dict[str, Path]) -> None:
    engine = HFEngine.load(inputs["base"])
    row: Row = read_rows(inputs["data"] / "test.jsonl")[0]
    tokens = decode.prompt_tokens(engine, row.catalog, row.message)
    whole = engine.eval(tokens, 0).clone()
    cut = len(tokens) // 2
    engine.eval(tokens[:cut], 0)
    engine.eval([5, 6, 7], cut)  # a path not taken
    assert torch.allclose(engine.eval(tokens[cut:], cut), whole, atol=1e-3)
    with pytest.raises(ValueError, match="only"):
        engine.eval([1], len(tokens) + 5)


def test_a_batch_is_decoded_as_each_row_alone(inputs: dict[str, Path]) -> None:
    engine = HFEngine.load(inputs["base"])
    rows = read_rows(inputs["data"] / "test.jsonl")[:6]
    prompts = [decode.prompt_tokens(engine, row.catalog, row.message) for row in rows]
    together = engine.greedy_batch(prompts, 64, batch=4)
    assert together == [decode.greedy(engine, prompt, 64) for prompt in prompts]
