"""What report.json holds. Shares are from 0 to 1, sizes in bytes, times in seconds.

Everything that report.html, report.md and the model card show is in it, each plot's data too.
"""

from __future__ import annotations

from typing import Any, TypedDict

SCHEMA_VERSION = 1


class Rate(TypedDict):
    """A share of `n` trials with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int


class Accuracy(TypedDict):
    """How right the answers to the test rows were; counts are of rows."""

    exact: Rate
    action: Rate
    product: Rate
    quantity: Rate
    invalid_json: int
    invented_products: int
    by_language: dict[str, Rate]


class Coverage(TypedDict):
    """Exact match among the surest `share` of the answers: those of a probability ≥ `threshold`."""

    share: float
    threshold: float
    exact: Rate


class CalibrationBin(TypedDict):
    """Answers of a probability from `low` to `high`, and how often they were right."""

    low: float
    high: float
    mean_probability: float
    exact: Rate


class Calibration(TypedDict):
    """`expected_error`: how far probability and share of right answers are apart, by rows."""

    bins: list[CalibrationBin]
    expected_error: float


class Confidence(TypedDict):
    """What the probability of an answer is worth."""

    coverage: list[Coverage]
    calibration: Calibration


class Latency(TypedDict):
    """Whole requests, tokenizing included; `n` requests were timed."""

    p50: float
    p90: float
    p99: float
    n: int


class Variant(TypedDict):
    """One measured model.

    `accuracy` is of the answers as they are served (constrained to the catalog), `free` of plain
    greedy decoding; either is null where it was not measured, and so are `confidence` and
    `latency_free_sec`.
    `engine` is `llama.cpp` or `transformers`, the baseline. `before_load_rss_bytes` is the part of
    `peak_rss_bytes` that the interpreter and its libraries took before the model was loaded.
    """

    name: str
    file: str | None
    encoding: str
    engine: str
    size_bytes: int
    bits_per_weight: float
    accuracy: Accuracy | None
    free: Accuracy | None
    confidence: Confidence | None
    latency_sec: Latency
    latency_mode: str
    latency_free_sec: Latency | None
    prompt_tokens_per_sec: float | None
    decode_tokens_per_sec: float | None
    load_sec: float
    peak_rss_bytes: int
    before_load_rss_bytes: int | None
    sha256: str | None
    recommended: bool


class Verdict(TypedDict):
    """Why a variant may, or may not, be recommended."""

    name: str
    accepted: bool
    why: str


class Recommendation(TypedDict):
    """The variant to use; `sentence` is the answer, `reason` what speaks for it and against it."""

    variant: str
    file: str | None
    sentence: str
    reason: str
    rule: str
    runner_up: str | None
    verdicts: list[Verdict]


class Comparison(TypedDict):
    """The recommended variant against the Hugging Face baseline, beside the paper's figures.

    `requests_ratio` is the baseline's median time over the variant's; `decode_ratio` that of the
    tokens per second; `memory_change` is negative for less memory.
    """

    baseline: str
    variant: str
    requests_ratio: float
    decode_ratio: float | None
    memory_change: float
    paper_throughput_ratio: float
    paper_memory_change: float


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


class LineageFile(TypedDict):
    """One file of an artifact."""

    name: str
    size_bytes: int
    sha256: str


class LineageStep(TypedDict):
    """One artifact between the data and the report, from its manifest.

    `inputs` maps the stage that an input comes from to that artifact's key.
    """

    stage: str
    key: str | None
    content_sha256: str
    seed: int | None
    git: Any
    image: Any
    started_at: str
    wall_sec: float
    peak_rss_bytes: int
    inputs: dict[str, str | None]
    files: list[LineageFile]


class Report(TypedDict):
    """The whole of report.json."""

    schema: int
    title: str
    profile: str
    recommendation: Recommendation
    comparison: Comparison | None
    gpu: Gpu | None
    variants: list[Variant]
    plots: dict[str, Any]
    parity: Any
    data: Any
    training: Any
    host: dict[str, Any]
    noise: dict[str, Any] | None
    settings: dict[str, Any]
    lineage: list[LineageStep]
    rerun: list[str]
