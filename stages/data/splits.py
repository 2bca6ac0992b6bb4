"""Rows of one file dealt to the splits, those that ask the same together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from stages.core.errors import InputError
from stages.data.leaks import Alike, normalize, skeleton, template
from stages.data.products import SPLITS
from stages.intent.rows import Row


def together(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of rows that must not be in different splits.

    Rows are in one group if their messages are equal or alike, as `leaks` has it, if they name the
    same `template`, and if others lead from one to the other.
    """
    parents = list(range(len(rows)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = at = parents[parents[at]]
        return at

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parents[high] = low

    first: dict[tuple[str, str], int] = {}
    skeletons: dict[str, int] = {}
    for at, row in enumerate(rows):
        join(at, first.setdefault(("message", normalize(row.message)), at))
        if (name := template(row)) is not None:
            join(at, first.setdefault(("template", name), at))
        if (text := skeleton(row)) is not None:
            join(at, skeletons.setdefault(text, at))
    homes = list(skeletons.values())
    alike = Alike(list(skeletons))
    for position, (text, at) in enumerate(skeletons.items()):
        for other in alike.find(text, before=position):
            join(at, homes[other])
    groups: dict[int, list[Row]] = {}
    for at, row in enumerate(rows):
        groups.setdefault(root(at), []).append(row)
    return list(groups.values())


def deal(
    groups: Sequence[list[Row]], proportions: Mapping[str, int], seed: int
) -> dict[str, list[Row]]:
    """Deals groups of rows to the splits.

    A group that is larger than what test or validation still lacks goes to train.

    Args:
        groups: rows that must stay together.
        proportions: by split, its share of the rows relative to the others.
        seed: of the dealing.

    Raises:
        InputError: there are too few groups to fill every split.
    """
    left = list(groups)
    Random(f"{seed}:import").shuffle(left)
    rows, total = sum(map(len, groups)), sum(proportions.values())
    dealt: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in ("test", "validation"):
        wanted = max(1, round(rows * proportions[split] / total))
        if left and min(map(len, left)) > wanted:
            wanted = min(map(len, left))
        passed = []
        for group in left:
            if len(dealt[split]) + len(group) <= wanted:
                dealt[split] += group
            else:
                passed.append(group)
        left = passed
    dealt["train"] = [row for group in left for row in group]
    if not all(dealt.values()):
        raise InputError(
            f"its {rows} rows have too few different messages to fill train, validation and test "
            f"({len(groups)} that are not alike): add rows that ask otherwise"
        )
    return dealt
