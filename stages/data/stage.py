"""Makes the rows of the three splits, checks them, and counts what is in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.data.generate import generate
from stages.data.params import Params
from stages.data.products import SPLITS
from stages.data.splits import check_leaks, import_rows, normalize, template
from stages.intent.rows import Row, write_rows

# Kinds of a row that statistics.json counts, from its `slice`.
SLICE_KEYS = ("register", "quantity_form", "mention", "noise", "near_miss")


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes train, validation and test rows and their statistics.

    Raises:
        InputError: the imported file is bad, or a language is unknown.
        StageFailed: a held-out message or template is in train.
    """
    counts = {
        "train": params.train_rows,
        "validation": params.validation_rows,
        "test": params.test_rows,
    }
    if params.import_path:
        print(f"importing {params.import_path}", flush=True)
        rows = import_rows(Path(params.import_path), counts, params.seed)
    else:
        rows = {}
        for split in SPLITS:
            print(f"generating {counts[split]:,} rows for {split}", flush=True)
            rows[split] = _generated(params, split, counts[split])
    print("checking the splits for leaks", flush=True)
    checked = check_leaks(rows)
    for split in SPLITS:
        write_rows(out / f"{split}.jsonl", rows[split])
    statistics = {
        "source": "import" if params.import_path else "generator",
        "rows": {split: len(rows[split]) for split in SPLITS},
        "leak_check": checked,
        "splits": {split: describe(rows[split]) for split in SPLITS},
    }
    text = json.dumps(statistics, indent=2, ensure_ascii=False) + "\n"
    (out / "statistics.json").write_text(text, encoding="utf-8")
    sizes = ", ".join(f"{len(rows[split]):,} {split}" for split in SPLITS)
    print(f"wrote {sizes} rows; no leaks", flush=True)
    return {"rows": statistics["rows"], "leaks": checked["leaks"]}


def _generated(params: Params, split: str, count: int) -> list[Row]:
    """Rows of a split, no message twice."""
    lines = (params.min_catalog_lines, params.max_catalog_lines)
    unique: dict[str, Row] = {}
    # Repeats are a few in ten thousand: one row in ten to spare is plenty.
    spare = count + count // 10 + 20
    for row in generate(params.seed, split, spare, params.languages, lines, params):
        unique.setdefault(normalize(row.message), row)
        if len(unique) == count:
            break
    return list(unique.values())


def describe(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of a split's rows by language, action, quantity, catalog size and slice."""
    numbers = Counter(row.answer.quantity for row in rows)
    lines = Counter(len(row.catalog) for row in rows)
    described: dict[str, Any] = {
        "languages": _counts(row.language or "unknown" for row in rows),
        "actions": _counts(row.answer.action for row in rows),
        "quantities": {
            "1": numbers[1],
            "2-12": sum(n for number, n in numbers.items() if 2 <= number <= 12),
            "13-100": sum(n for number, n in numbers.items() if 13 <= number <= 100),
            "above 100": sum(n for number, n in numbers.items() if number > 100),
        },
        "catalog_lines": {str(size): lines[size] for size in sorted(lines)},
        "message_chars": {
            "mean": round(sum(len(row.message) for row in rows) / len(rows), 1),
            "longest": max(len(row.message) for row in rows),
        },
        "products": len({line for row in rows for line in row.catalog}),
        "templates": len({template(row) for row in rows} - {None}),
    }
    for key in SLICE_KEYS:
        slices = (row.extra.get("slice") for row in rows)
        found = [one[key] for one in slices if isinstance(one, dict) and key in one]
        if found:
            described[key] = _counts(str(value).lower() for value in found)
    return described


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
