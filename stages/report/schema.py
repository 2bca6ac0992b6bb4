"""What report.json holds. Shares are from 0 to 1, sizes in bytes, times in seconds.

Everything that report.html, report.md and the model card show is in it, each plot's data too.
"""

from __future__ import annotations

from typing import Any, TypedDict

from stages.report.gpu.schema import Gpu
from stages.report.measured import Latency, Rate

SCHEMA_VERSION = 2


class Accuracy(TypedDict):
    """How right the answers to the test rows were; counts are of rows.

    `by_slice` is exact match by each value of each key of the rows' own `slice`, empty without any.
    """

    exact: Rate
    action: Rate
    product: Rate
    quantity: Rate
    invalid_json: int
    invented_products: int
    by_language: dict[str, Rate]
    by_slice: dict[str, dict[str, Rate]]


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


class Requests(Latency):
    """`p50_low` to `p50_high` holds the median with 95 % confidence, by order statistics.

    It is of these requests in this run; how far two runs differ, the noise says.
    """

    p50_low: float
    p50_high: float


class Memory(TypedDict):
    """Of a process of its own that loaded the model and answered requests, nothing beside it.

    `peak_rss_bytes` is the most that was resident, all that it maps included. The rest is at the
    end: `pss_bytes`, its proportional share of what is mapped by several processes, as the
    libraries are (null where the system does not tell); `rss_file_bytes` is of mapped files,
    which the system can drop and read again, `rss_anonymous_bytes` what it cannot.
    """

    peak_rss_bytes: int
    pss_bytes: int | None
    rss_file_bytes: int
    rss_anonymous_bytes: int


class MemoryModes(TypedDict):
    """`mapped`: the file is mapped, llama.cpp's default; `read`: it is read (null for others)."""

    mapped: Memory
    read: Memory | None


class Fidelity(TypedDict):
    """How near a variant is to the reference.

    `agreement` is the share of test rows with the reference's very answer. `kl_divergence_nats` is
    the mean over the `tokens` of right answers to `rows` rows of the Kullback-Leibler divergence of
    the variant's distribution over the vocabulary from the reference's; `kl_p99_nats` its 99th
    percentile. Both are null where the vocabularies differ.
    """

    agreement: Rate
    kl_divergence_nats: float | None
    kl_p99_nats: float | None
    tokens: int
    rows: int


class LlamaBench(TypedDict):
    """llama-bench's own tokens per second, of random tokens.

    `prompt_tokens_per_sec` is of a pass over `prompt_tokens` tokens; `decode_tokens_per_sec` of
    `decode_tokens` one-token passes from an empty cache, `decode_at_depth_tokens_per_sec` after
    `prompt_tokens` tokens, as a request has it.
    """

    prompt_tokens: int
    decode_tokens: int
    prompt_tokens_per_sec: float
    decode_tokens_per_sec: float
    decode_at_depth_tokens_per_sec: float


class Variant(TypedDict):
    """One measured model.

    `accuracy` is of the answers as they are served (constrained to the catalog), `free` of plain
    greedy decoding; either is null where it was not measured, and so are `confidence`,
    `latency_free_sec`, `latency_known_sec` (of requests whose catalog is known, as the service
    keeps it) and `energy_joules_per_request` (what all processor packages used). `fidelity` is null
    for the reference itself and where there is none. `engine` is `llama.cpp` or `transformers`, the
    baseline. `peak_rss_bytes` is that of `memory.mapped`; `before_load_rss_bytes` is the part of it
    that the interpreter and its libraries took before the model was loaded.
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
    fidelity: Fidelity | None
    latency_sec: Requests
    latency_mode: str
    latency_known_sec: Requests | None
    energy_joules_per_request: float | None
    latency_free_sec: Requests | None
    prompt_tokens_per_sec: float | None
    decode_tokens_per_sec: float | None
    llama_bench: LlamaBench | None
    load_sec: float
    memory: MemoryModes
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
    """The variant to use; `sentence` is the answer, `reason` what speaks for it and against it.

    `max_accuracy_drop` and `noise` are what `rule` went by, as shares.
    """

    variant: str
    file: str | None
    sentence: str
    reason: str
    rule: str
    max_accuracy_drop: float
    noise: float
    runner_up: str | None
    verdicts: list[Verdict]


class Comparison(TypedDict):
    """The recommended variant against the Hugging Face baseline, beside the paper's figures.

    `requests_ratio` is the median time of the baseline's freely decoded answers, or of its
    constrained ones where those are all, over that of the variant's as they are served;
    `known_ratio` the same where the catalog is known, null where that was not measured;
    `decode_ratio` is of tokens per second; `memory_change` is negative for less memory.
    """

    baseline: str
    variant: str
    requests_ratio: float
    known_ratio: float | None
    decode_ratio: float | None
    memory_change: float
    paper_throughput_ratio: float
    paper_memory_change: float


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


class ThreadsPoint(TypedDict):
    """The swept variant on so many threads, pinned to as many cores."""

    threads: int
    latency_sec: Requests
    prompt_tokens_per_sec: float
    decode_tokens_per_sec: float


class Threads(TypedDict):
    """What more threads gain."""

    variant: str
    points: list[ThreadsPoint]


class Noise(TypedDict):
    """One variant measured as if it were two: `relative` is how far their medians are apart.

    `round_spread` is how far they are at most within one round; `warning` a sentence if the machine
    was too noisy to rank what is close.
    """

    variant: str
    p50_sec: list[float]
    relative: float
    round_spread: float
    warning: str | None


class Point(TypedDict):
    """A variant as the plots over latency, memory and size draw it.

    `front_*` is whether no other GGUF variant has both a higher exact match and less of that cost.
    """

    name: str
    engine: str
    recommended: bool
    exact: float
    exact_low: float
    exact_high: float
    latency_p50_sec: float
    latency_p50_low_sec: float
    latency_p50_high_sec: float
    peak_rss_bytes: int
    size_bytes: int
    bits_per_weight: float
    front_latency: bool
    front_memory: bool
    front_size: bool


class CurvePoint(TypedDict):
    """A logged step of training; what was not measured at it is null."""

    step: int
    loss: float | None
    learning_rate: float | None
    eval_loss: float | None
    eval_exact_match: float | None
    elapsed_sec: float | None


class Slice(TypedDict):
    """Exact match of the recommended variant on the rows whose `slice` has `key` as `value`."""

    key: str
    value: str
    exact: Rate


class Plots(TypedDict):
    """The data of every plot of the CPU bench and of training; `gpu.cells` is that of the GPU's."""

    variants: list[Point]
    learning_curve: list[CurvePoint]
    confidence: Confidence | None
    slices: list[Slice]
    threads: Threads | None


class Report(TypedDict):
    """The whole of report.json; `reference` is the variant that `fidelity` is against."""

    schema: int
    title: str
    profile: str
    recommendation: Recommendation
    comparison: Comparison | None
    gpu: Gpu | None
    reference: str | None
    variants: list[Variant]
    plots: Plots
    parity: Any
    data: Any
    training: Any
    host: dict[str, Any]
    noise: Noise | None
    settings: dict[str, Any]
    lineage: list[LineageStep]
    rerun: list[str]
