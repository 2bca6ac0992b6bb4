"""QLoRA with bitsandbytes, peft and trl: training, merging, and the engines that are compared."""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import InputError, StageFailed
from stages.intent import decode, rules
from stages.intent.metrics import score
from stages.intent.prompt import render
from stages.intent.rows import Answer, Row, read_rows
from stages.intent.trie import AnswerTrie
from stages.train.params import Params

_MAX_ANSWER_TOKENS = 128


def isolate(scratch: Path) -> None:
    """Keeps the libraries offline, their caches in `scratch`, and their notes to themselves.

    Call it before any other function here.
    """
    # About calls between the libraries, and about kernels that a CPU does not need.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.update(
        HF_HOME=str(scratch / "hf"),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
        BITSANDBYTES_NOWELCOME="1",
    )


@dataclass(frozen=True)
class Job:
    """All that a training process needs.

    Attributes:
        train: token ids and completion mask of each training row.
        validation: rows scored during training, and `validation_tokens` for their loss.
    """

    params: Params
    device: str
    base: Path
    adapter: Path
    scratch: Path
    train: list[dict[str, list[int]]]
    validation: list[Row]
    validation_tokens: list[dict[str, list[int]]]


def make_job(params: Params, base: Path, data: Path, adapter: Path, scratch: Path) -> Job:
    """Reads and tokenizes the rows.

    Raises:
        InputError: a row cannot be read or is too long, or the GPU that is asked for is missing.
    """
    from stages.runtime.hf import choose_device

    device = choose_device(params.device)
    validation = read_rows(data / "validation.jsonl")[: params.evaluation_rows]
    encoded = [
        _tokenize(base, rows, params.max_tokens, name)
        for rows, name in (
            (read_rows(data / "train.jsonl"), "train.jsonl"),
            (validation, "validation.jsonl"),
        )
    ]
    return Job(params, device, base, adapter, scratch, encoded[0], validation, encoded[1])


def _tokenize(
    base: Path, rows: Sequence[Row], max_tokens: int, file: str
) -> list[dict[str, list[int]]]:
    """`[BOS] prompt` and `answer [EOS]`, tokenized apart, with a mask that is 1 on the answer."""
    from stages.runtime.hf import encode, load_tokenizer

    tokenizer = load_tokenizer(base)
    encoded = []
    for number, row in enumerate(rows, 1):
        prompt = [tokenizer.bos_token_id, *encode(tokenizer, render(row.prompt))]
        answer = [*encode(tokenizer, row.completion), tokenizer.eos_token_id]
        if len(prompt) + len(answer) > max_tokens:
            raise InputError(
                f"{file}:{number}: the row has {len(prompt) + len(answer):,} tokens, more than "
                f"max_tokens {max_tokens:,}; raise it or shorten the catalog"
            )
        mask = [0] * len(prompt) + [1] * len(answer)
        encoded.append({"input_ids": prompt + answer, "completion_mask": mask})
    return encoded


def train(job: Job) -> list[dict[str, Any]]:
    """Trains the adapter and saves it; every process of a launch runs this.

    Returns:
        The learning curve, points of `step`, `elapsed_sec` and `loss`, `learning_rate`,
        `rows_per_sec` so far or `eval_loss`, `eval_exact_match`; empty in all processes but the
        first.

    Raises:
        StageFailed: the processes found no group, and each would train alone.
    """
    import torch
    from accelerate import PartialState
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from stages.runtime.hf import load_tokenizer, use_all_cores

    disable_progress_bars()
    params = job.params
    if job.device == "cpu":
        torch.set_num_threads(max(1, use_all_cores() // params.processes))
    found = PartialState(cpu=job.device == "cpu").num_processes
    if found != params.processes:
        raise StageFailed(f"{params.processes} processes were to train together, not {found}")
    set_seed(params.seed)
    base = load_nf4(job)
    if params.gradient_checkpointing:
        base.enable_input_require_grads()
    model = get_peft_model(
        base,
        LoraConfig(
            r=params.rank,
            lora_alpha=params.alpha,
            lora_dropout=params.dropout,
            target_modules=sorted(params.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    if params.compile_layers and job.device == "cuda":
        for layer in base.model.layers:
            layer.compile(dynamic=True)
    rows_a_step = params.batch_rows * params.accumulation * params.processes
    steps = params.max_steps or math.ceil(len(job.train) * params.epochs / rows_a_step)
    eval_steps = math.ceil(steps / params.evaluations)
    tokenizer = load_tokenizer(job.base)
    curve = _curve_callback(job, tokenizer, steps, rows_a_step)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(job.scratch / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=params.batch_rows,
            per_device_eval_batch_size=params.batch_rows,
            gradient_accumulation_steps=params.accumulation,
            gradient_checkpointing=params.gradient_checkpointing,
            learning_rate=params.learning_rate,
            warmup_steps=min(params.warmup_steps, steps // 2),
            lr_scheduler_type=params.scheduler,
            weight_decay=params.weight_decay,
            max_length=params.max_tokens,
            completion_only_loss=True,
            # Rows of like length share a batch, so that little of it is padding.
            train_sampling_strategy="group_by_length",
            logging_steps=min(params.log_steps, steps),
            eval_strategy="steps",
            eval_steps=eval_steps,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=job.device == "cpu",
            bf16=params.compute_dtype == "bfloat16",
            fp16=params.compute_dtype == "float16",
            dataloader_pin_memory=job.device == "cuda",
            seed=params.seed,
            data_seed=params.seed,
        ),
        train_dataset=Dataset.from_list(job.train),
        eval_dataset=Dataset.from_list(job.validation_tokens),
        processing_class=tokenizer,
        callbacks=[curve],
    )
    # The default one prints raw dictionaries between our lines.
    trainer.remove_callback(_printer_callback())
    trainer.train()
    if steps % eval_steps:  # all processes take part, though only the first has a curve
        trainer.evaluate()
    if trainer.accelerator.is_main_process:
        save_adapter(trainer.model, job.adapter)
    return curve.points


def load_nf4(job: Job) -> Any:
    """The base in NF4 with double quantization, frozen, on this process's device."""
    from accelerate import PartialState
    from bitsandbytes.nn import Linear4bit

    from stages.runtime import hf

    compute_dtype = job.params.compute_dtype
    index = PartialState(cpu=job.device == "cpu").local_process_index
    model = hf.load_nf4(
        job.base,
        compute_dtype=compute_dtype,
        dtype="float32" if job.device == "cpu" else compute_dtype,
        device=index if job.device == "cuda" else "cpu",
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks the weights at the first pass in
            # evaluation mode, and from then on gives wrong gradients without a word.
            module.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False)


class Pace:
    """Time that a training step takes, without evaluations and without steps that compile."""

    _OUTLIER = 3.0
    """Times the median from which on a step did something else than training."""

    def __init__(self) -> None:
        self._steps_sec: list[float] = []
        self._last_sec: float | None = None

    def step(self) -> None:
        """A step is over."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now_sec = time.perf_counter()
        if self._last_sec is not None:
            self._steps_sec.append(now_sec - self._last_sec)
        self._last_sec = now_sec

    def pause(self) -> None:
        """Something else was done since the last step."""
        self._last_sec = None

    @property
    def mean_sec(self) -> float | None:
        """Mean time of a step; None before the second one."""
        if not self._steps_sec:
            return None
        limit_sec = self._OUTLIER * statistics.median(self._steps_sec)
        return statistics.mean(sec for sec in self._steps_sec if sec <= limit_sec)


def _printer_callback() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback


def _curve_callback(job: Job, tokenizer: Any, steps: int, rows_a_step: int) -> Any:
    """A trainer callback that keeps the learning curve, prints it, and scores validation rows."""
    import torch
    from transformers import TrainerCallback

    from stages.runtime.hf import HFEngine

    started_sec = time.monotonic()

    class Curve(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.points: list[dict[str, Any]] = []
            self.pace = Pace()

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            self.pace.step()

        def on_log(self, _args: Any, state: Any, _control: Any, logs: Any, **_: Any) -> None:
            if not state.is_world_process_zero or "loss" not in logs:
                return
            rate = float(logs["learning_rate"])
            self._add(state.global_step, loss=float(logs["loss"]), learning_rate=rate)
            if self.pace.mean_sec is not None:
                self.points[-1]["rows_per_sec"] = round(rows_a_step / self.pace.mean_sec, 2)
            print(f"step {state.global_step}/{steps} loss {self.points[-1]['loss']}", flush=True)

        def on_evaluate(
            self, _args: Any, state: Any, _control: Any, metrics: Any, model: Any, **_: Any
        ) -> None:
            self.pace.pause()
            if not state.is_world_process_zero:
                return
            with torch.compiler.set_stance("force_eager"):  # passes of every length
                exact = _exact_match(HFEngine(model, tokenizer), job.validation)
            loss = float(metrics["eval_loss"])
            self._add(state.global_step, eval_loss=loss, eval_exact_match=exact)
            print(
                f"step {state.global_step}/{steps} eval loss {loss:.4f} eval exact {exact:.3f}",
                flush=True,
            )

        def _add(self, step: int, **values: float) -> None:
            elapsed_sec = round(time.monotonic() - started_sec, 2)
            if not self.points or self.points[-1]["step"] != step:
                self.points.append({"step": step})
            self.points[-1] |= {name: round(value, 6) for name, value in values.items()}
            self.points[-1]["learning_rate"] = values.get(
                "learning_rate", self.points[-1].get("learning_rate")
            )
            self.points[-1]["elapsed_sec"] = elapsed_sec

    return Curve()


def _exact_match(engine: Any, rows: Sequence[Row]) -> float:
    """Share of rows answered exactly by free greedy decoding."""
    prompts = [decode.prompt_tokens(engine, row.catalog, row.message) for row in rows]
    texts = map(engine.decode, engine.greedy_batch(prompts, _MAX_ANSWER_TOKENS))
    return sum(score(row, text).exact for row, text in zip(rows, texts, strict=True)) / len(rows)


def save_adapter(model: Any, folder: Path) -> None:
    """Saves the adapter; its configuration names no path of this host and has one order."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "base"
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Adds the adapter to the unquantized base and saves it in the base's own type.

    The sum is made in float32: in bf16 most of a small update would be rounded away.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = AutoConfig.from_pretrained(base, local_files_only=True).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    merged.to(dtype).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def adapter_engine(job: Job) -> Any:
    """The NF4 base with its trained adapter, as training left it."""
    from peft import PeftModel

    from stages.runtime.hf import HFEngine, load_tokenizer

    model = PeftModel.from_pretrained(load_nf4(job), str(job.adapter))
    return HFEngine(model, load_tokenizer(job.base))


def model_engine(folder: Path, device: str) -> Any:
    """A full-precision model folder."""
    from stages.runtime.hf import HFEngine

    return HFEngine.load(folder, dtype="float32", device=device)


def answers(engine: Any, rows: Sequence[Row]) -> list[Answer]:
    """The answers that rows get when decoding over their catalogs' tries, as they are served."""
    return [
        decode.constrained(
            engine,
            AnswerTrie(engine.encode, row.catalog),
            decode.prompt_tokens(engine, row.catalog, row.message),
            rules.guess(row.message),
        ).answer
        for row in rows
    ]
