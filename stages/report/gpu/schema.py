"""What report.json holds of bench-gpu; see `stages.report.schema`."""

from __future__ import annotations

from typing import Any, TypedDict

from stages.report.measured import Latency, Rate


class GpuLoaded(TypedDict):
    """A variant on an engine, loaded: `kernel` is the class that its linear layers really are.

    `steady_*` is the memory with the model there and nothing running: by torch's allocator, and by
    NVML for the whole process (null where the driver does not tell).
    """

    variant: str
    engine: str
    kernel: str
    dtype: str
    load_sec: float
    weights_bytes: int
    steady_allocated_bytes: int
    steady_process_bytes: int | None


class GpuAgainstFirst(TypedDict):
    """A cell against the first variant's on the same engine and batch.

    Ratios are of tokens per second, above 1 for faster; each has whether it is within the noise,
    and so no difference. `memory_change` is of the allocator's peak, negative for less.
    """

    decode_ratio: float
    decode_within_noise: bool
    request_ratio: float
    request_within_noise: bool
    memory_change: float


class GpuCell(TypedDict):
    """A variant on an engine at a batch size; the latency is of a whole batch.

    `decode_tokens_per_sec` and `request_tokens_per_sec` count the new tokens of all sequences, the
    latter over the whole batch's time, prompt included. `memory_bandwidth_share` is how much of the
    GPU's bandwidth it takes to read the weights once a decoding step. `against_first` is null for
    the first variant itself.
    """

    variant: str
    engine: str
    batch: int
    decode_tokens_per_sec: float
    request_tokens_per_sec: float
    latency_sec: Latency
    first_token_sec: Latency
    peak_allocated_bytes: int
    process_bytes: int | None
    energy_joules_per_request: float
    memory_bandwidth_share: float
    against_first: GpuAgainstFirst | None


class GpuNoise(TypedDict):
    """The A/A pair at a batch size: the first variant's two processes on `engine`.

    `request` and `decode` are the relative differences of their whole requests and of their decoded
    tokens per second; `relative` is the larger: up to it, nothing counts as a difference.
    """

    batch: int
    engine: str
    request: float
    decode: float
    relative: float
    round_spread: float
    warning: str | None


class GpuAnswers(TypedDict):
    """Whole constrained requests of a variant on the graph engine, and how right they were."""

    variant: str
    latency_sec: Latency
    exact: Rate


class GpuKernel(TypedDict):
    """CUDA kernels of one short name, of one decoding step; `share` is of all kernels' time."""

    kernel: str
    calls: float
    sec: float
    share: float


class GpuStep(TypedDict):
    """Where a decoding step's time goes: the longest kernels, and the rest."""

    variant: str
    batch: int
    kernels_sec: float
    step_sec: float
    kernels: list[GpuKernel]


class Gpu(TypedDict):
    """What bench-gpu measured; `first` is the variant that the others are held against.

    `sentence` names the fastest variant and is null where the graph engine was not measured;
    `paper` is null where no GPTQ checkpoint was measured on `generate`.
    """

    first: str
    sentence: str | None
    paper: str | None
    host: dict[str, str]
    settings: dict[str, Any]
    loaded: list[GpuLoaded]
    cells: list[GpuCell]
    noise: list[GpuNoise]
    answers: list[GpuAnswers]
    steps: list[GpuStep]
