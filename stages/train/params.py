"""Parameters of the stage `train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.core.errors import InputError

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Params:
    """How the adapter is trained and what the merged model is held to.

    Attributes:
        device: `auto` is a GPU if torch is built for one, else the CPU; a GPU that is asked for
            and missing is an error.
        processes: Training processes, one for each GPU; started by torch's launcher.
        compute_dtype: What NF4 weights are unpacked to and multiplied in.
        rank: Rank of the LoRA matrices.
        alpha: LoRA scale; the update counts `alpha / rank`.
        dropout: Share of a LoRA input that is dropped in training.
        target_modules: Linear layers that get an adapter, by the last part of their name.
        epochs: Passes over the training rows; `max_steps` above 0 overrules it.
        max_steps: Optimizer steps, 0 to count in epochs.
        batch_rows: Rows in a step of one process.
        accumulation: Batches whose gradients are summed before a step.
        learning_rate: Peak rate.
        warmup_steps: Steps of linear rise to it.
        scheduler: Its course after that.
        weight_decay: AdamW's, on the adapter.
        max_tokens: Longest row, answer included; a longer one is refused, never cut.
        gradient_checkpointing: Compute activations twice to hold fewer of them.
        compile_layers: Fuse the small operations of a layer: the first steps take a minute longer,
            the others half as long. A GPU alone does it; a CPU trains as without it.
        log_steps: Steps between two points of the learning curve.
        evaluations: How often the validation sample is scored, the end included.
        evaluation_rows: Validation rows scored during training.
        parity_rows: Validation rows on which adapter and merged model are compared.
        max_drop: Largest accepted drop in exact match by merging, as a share.
        seed: Seed of initialization, order and dropout.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = 1
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    epochs: float = 1.0
    max_steps: int = 0
    batch_rows: int = 16
    accumulation: int = 1
    learning_rate: float = 2e-4
    warmup_steps: int = 10
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: float = 0.0
    max_tokens: int = 1024
    gradient_checkpointing: bool = False
    compile_layers: bool = False
    log_steps: int = 10
    evaluations: int = 3
    evaluation_rows: int = 96
    parity_rows: int = 96
    max_drop: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "processes",
            "rank",
            "alpha",
            "batch_rows",
            "accumulation",
            "max_tokens",
            "log_steps",
            "evaluations",
            "evaluation_rows",
            "parity_rows",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_steps", "warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be from 0 to below 1, not {self.dropout}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate must be above 0 and below 1, not {self.learning_rate}")
        if self.epochs <= 0:
            raise InputError(f"epochs must be above 0, not {self.epochs}")
        if not 0 <= self.max_drop <= 1:
            raise InputError(f"max_drop must be from 0 to 1, not {self.max_drop}")
        if not self.target_modules:
            raise InputError("target_modules must name at least one layer")
