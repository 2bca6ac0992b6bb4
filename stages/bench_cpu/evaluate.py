"""A model against rows: `python -m stages.bench_cpu.evaluate --model GGUF --dataset FILE.jsonl`.

Answers are decoded over each row's catalog, as they are served. Prints a table, or JSON with
`--json`: `model`, `dataset`, `rows`, `summary` (as `intent.metrics.summarize`), `by_slice`,
`confusion`, `coverage` and `calibration` (as `breakdown`), `baselines` (by name, a `summary` of the
same rows: `rules`, and with `--endpoint-model` also `endpoint:NAME`, as `outside.baseline`), and
`worst` (wrong rows, those with the most wrong fields and the surest first).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.bench_cpu import breakdown, outside
from stages.core import hostinfo
from stages.core.errors import CartwrightError, InputError
from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.metrics import FIELDS, Score, score, summarize
from stages.intent.rows import Row, read_rows
from stages.intent.trie import AnswerTrie
from stages.runtime.endpoint import Endpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates and prints; returns the exit code (2 for wrong input)."""
    given = _parse(arguments)
    try:
        # Refused, if it is, before anything is measured.
        endpoint = Endpoint.from_environment(given.endpoint_model) if given.endpoint_model else None
        report = evaluate(given.model, given.dataset, given.threads, given.worst, endpoint)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print(json.dumps(report, indent=2, ensure_ascii=False) if given.json else table(report))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench_cpu.evaluate",
        description="Exact match and accuracy per field and language of a GGUF model on rows.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="GGUF")
    parser.add_argument("--dataset", type=Path, required=True, metavar="JSONL")
    parser.add_argument("--threads", type=int, default=0, help="0 for all usable cores")
    parser.add_argument(
        "--endpoint-model",
        default="",
        metavar="NAME",
        help="also one behind OPENAI_BASE_URL",
    )
    parser.add_argument("--worst", type=int, default=20, help="wrong rows to show")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


def evaluate(
    model: Path, dataset: Path, threads: int, worst: int, endpoint: Endpoint | None = None
) -> dict[str, Any]:
    """Answers every row of a dataset.

    Args:
        model: GGUF file.
        dataset: JSONL file.
        threads: 0 for all usable cores.
        worst: how many wrong rows to list.
        endpoint: a model to compare with; it is asked first.

    Raises:
        InputError: the dataset is empty or has a bad row, the file is no model that loads, or the
            endpoint refuses.
        StageFailed: the endpoint does not answer.
    """
    rows = read_rows(dataset)
    baselines = {"rules": summarize(rows, _by_rules(rows))}
    if endpoint is not None:
        print(f"asking {endpoint.model} for {len(rows):,} answers", file=sys.stderr, flush=True)
        baselines[f"endpoint:{endpoint.model}"] = outside.baseline(endpoint, rows)
    from stages.runtime.llama import LlamaEngine

    engine = LlamaEngine(model, threads=threads or hostinfo.usable_cores())
    scores, answers, probabilities, wrong = [], [], [], []
    for number, row in enumerate(rows, 1):
        prompt = prompt_tokens(engine, row.catalog, row.message)
        try:
            trie = AnswerTrie(engine.encode, row.catalog)
            decoded = constrained(engine, trie, prompt, rules.guess(row.message))
        except (InputError, ValueError) as error:
            raise InputError(f"{dataset}, row {number}: {error}") from error
        answers.append(decoded.answer)
        probabilities.append(decoded.probability)
        scores.append(score(row, decoded.answer.to_json()))
        if not scores[-1].exact:
            wrong.append(
                _mistake(number, row, decoded.answer.to_json(), scores[-1], decoded.probability)
            )
    engine.close()
    wrong.sort(key=lambda one: (-len(one["wrong"]), -one["probability"]))
    return {
        "model": model.name,
        "dataset": dataset.name,
        "rows": len(rows),
        "summary": summarize(rows, scores),
        "by_slice": breakdown.by_slice(rows, scores),
        "confusion": breakdown.confusion(rows, answers),
        "coverage": breakdown.coverage(probabilities, scores),
        "calibration": breakdown.calibration(probabilities, scores),
        "baselines": baselines,
        "worst": wrong[:worst],
    }


def _by_rules(rows: Sequence[Row]) -> list[Score]:
    return [score(row, rules.answer(row.catalog, row.message).to_json()) for row in rows]


def _mistake(number: int, row: Row, text: str, got: Score, probability: float) -> dict[str, Any]:
    return {
        "row": number,
        "language": row.language,
        "message": row.message,
        "expected": row.completion,
        "got": text,
        "wrong": [name for name in ("action", "product", "quantity") if not getattr(got, name)],
        "probability": round(probability, 4),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    summary = report["summary"]
    lines = [
        f"{report['model']} on {report['dataset']}, {report['rows']:,} rows",
        "",
        f"{'':<24}{'right':>8}  {'95 % interval':<18}{'rows':>7}",
    ]
    lines += [_line(name, summary[name]) for name in FIELDS]
    lines += [_line(f"  {name}", one) for name, one in summary["by_language"].items()]
    lines.append(
        f"invalid JSON: {summary['invalid_json']}, "
        f"invented products: {summary['invented_products']}"
    )
    for name, other in report["baselines"].items():
        lines.append(_line(f"baseline: {name}", other["exact"]))
        if "structured" in other:
            held = "held to a schema" if other["structured"] else "not held to a schema"
            lines.append(
                f"  {held}; invalid JSON: {other['invalid_json']}, "
                f"invented products: {other['invented_products']}"
            )
    for wanted, got in report["confusion"].items():
        counts = ", ".join(f"{count:,} answered {action}" for action, count in got.items())
        lines.append(f"wanted {wanted}: {counts}")
    for key, values in report["by_slice"].items():
        lines += ["", f"By {key.replace('_', ' ')}:"]
        lines += [_line(f"  {value}", one) for value, one in values.items()]
    lines += ["", "If only the surest answers are given, and the rest go to a person:"]
    for point in report["coverage"]:
        lines.append(
            f"  {point['share']:>4.0%} of the rows, probability ≥ {point['threshold']:.3f}: "
            f"{point['exact']['value']:.1%} right"
        )
    lines.append(
        "Probability and share of right answers differ by "
        f"{report['calibration']['expected_error']:.1%} on average."
    )
    if report["worst"]:
        lines += ["", "Wrong, the worst first:"]
    for one in report["worst"]:
        lines.append(f"  row {one['row']} ({', '.join(one['wrong'])}): {one['message']!r}")
        lines.append(f"    expected {one['expected']}")
        lines.append(f"    got      {one['got']}  (probability {one['probability']:.2f})")
    return "\n".join(lines)


def _line(name: str, rate: dict[str, Any]) -> str:
    interval = f"{rate['low']:.1%} to {rate['high']:.1%}"
    return f"{name:<24}{rate['value']:>8.1%}  {interval:<18}{rate['n']:>7,}"


if __name__ == "__main__":
    raise SystemExit(main())
