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
