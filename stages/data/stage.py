"""Makes the rows of the three splits, checks them, and counts what is in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.data.generate import generate
from stages.data.importing import Imported, import_rows
from stages.data.leaks import Messages, check_leaks, messages_of, normalize, people, template
from stages.data.params import Params
from stages.data.products import SPLITS
from stages.intent.rows import Row, write_rows

# Kinds of a row that statistics.json counts, from its `slice`.
SLICE_KEYS = ("register", "quantity_form", "mention", "noise", "near_miss")


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes train, validation and test rows, their statistics, and the rows that were skipped.

    rejects.jsonl is always there, and empty where no row was skipped.

    Raises:
        InputError: the imported file is bad, or a language is unknown.
        StageFailed: a held-out message or template is in train, or an evaluation message is.
    """
    counts = {
        "train": params.train_rows,
        "validation": params.validation_rows,
        "test": params.test_rows,
    }
    imported: Imported | None = None
    if params.import_path:
        print(f"importing {params.import_path}", flush=True)
        imported = import_rows(
            Path(params.import_path), counts, params.seed, skip_invalid=params.skip_invalid
        )
    rows = imported.rows if imported else _generated_splits(params, counts)
    print("checking the splits for leaks", flush=True)
    checked = check_leaks(rows)
    for split in SPLITS:
        write_rows(out / f"{split}.jsonl", rows[split])
    rejects = imported.rejects if imported else []
    with (out / "rejects.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejects)
    statistics = {
        "source": "import" if imported else "generator",
        "rows": {split: len(rows[split]) for split in SPLITS},
        **({"import": imported.counts()} if imported else {}),
        "leak_check": checked,
        "splits": {split: describe(rows[split]) for split in SPLITS},
    }
    text = json.dumps(statistics, indent=2, ensure_ascii=False) + "\n"
    (out / "statistics.json").write_text(text, encoding="utf-8")
    sizes = ", ".join(f"{len(rows[split]):,} {split}" for split in SPLITS)
    skipped = f"; {len(rejects):,} skipped, see rejects.jsonl" if rejects else ""
    print(f"wrote {sizes} rows; no leaks{skipped}", flush=True)
    return {"rows": statistics["rows"], "skipped_rows": len(rejects), "leaks": checked["leaks"]}


def _generated_splits(params: Params, counts: Mapping[str, int]) -> dict[str, list[Row]]:
    """Rows of the three splits; a held-out one that asks nearly what train asks is drawn anew."""
    rows: dict[str, list[Row]] = {}
    known = [people()]
    for split in SPLITS:
        print(f"generating {counts[split]:,} rows for {split}", flush=True)
        rows[split] = _generated(params, split, counts[split], known)
        if split == "train":
            known.append(messages_of(split, rows[split]))
    return rows


def _generated(params: Params, split: str, count: int, known: Sequence[Messages]) -> list[Row]:
    """Rows of a split, no message twice and none that is known."""
    lines = (params.min_catalog_lines, params.max_catalog_lines)
    unique: dict[str, Row] = {}
    # Repeats are a few in ten thousand: one row in ten to spare is plenty.
    spare = count + count // 10 + 20
    for row in generate(params.seed, split, spare, params.languages, lines, params):
        if not any(messages.twin(row) for messages in known):
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
