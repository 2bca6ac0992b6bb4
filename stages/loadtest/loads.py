"""What is asked: rows of a dataset, on catalogs that are known and on others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random

from stages.core.errors import InputError
from stages.intent.rows import Row

CATALOG_LINES = 20


def known(rows: Sequence[Row], catalogs: int) -> list[Row]:
    """Rows on a few catalogs, one catalog after the other.

    A catalog has the products that 20 rows ask for, so that their messages and answers stay true.

    Args:
        rows: of a dataset.
        catalogs: how many there should be; fewer if there are too few rows.

    Raises:
        InputError: There are fewer than 20 rows.
    """
    groups = [
        rows[begin : begin + CATALOG_LINES]
        for begin in range(0, len(rows) - CATALOG_LINES + 1, CATALOG_LINES)
    ][:catalogs]
    if not groups:
        raise InputError(f"the dataset has {len(rows)} rows: at least {CATALOG_LINES} are needed")
    on_one = [
        [Row(catalog, row.message, row.answer) for row in group]
        for group in groups
        for catalog in [tuple(dict.fromkeys(row.answer.product for row in group))]
    ]
    return list(itertools.chain.from_iterable(zip(*on_one, strict=True)))


def unknown(rows: Sequence[Row], seed: int) -> Iterator[Row]:
    """The same rows without an end, each with its catalog's lines in an order of its own."""
    random = Random(seed)
    for row in itertools.cycle(known(rows, len(rows))):
        lines = list(row.catalog)
        random.shuffle(lines)
        yield Row(tuple(lines), row.message, row.answer)
