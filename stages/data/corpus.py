"""Pre-training text for the shipped base model: shop text of the train side, in many styles.

A base model has read a lot and answers in no fixed format. Three of four request texts here carry
another cue than the task's and another notation than the task's JSON; fine-tuning then teaches the
format. Nothing of validation or test is in it: no frame, no family of products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from stages.data.draw import Weighted, pick
from stages.data.generate import DEFAULT_LANGUAGES, Writer
from stages.data.grammar import load
from stages.data.products import Product, compose, invented_name, shop_range
from stages.data.rates import Rates
from stages.data.shops import Shops
from stages.intent.prompt import ANSWER_CUE
from stages.intent.rows import Row

# What a text is: requests about one catalog, a list of names to find in it, or no request at all.
_KINDS = Weighted({"requests": 74, "find": 21, "other": 5})
# Of 100 texts of requests, how many have the task's own cue.
TASK_PERCENT = 30
# Of 100 requests, how many have a word nobody has seen before the product's name: the model learns
# to copy, not to know names.
INVENTED_PERCENT = 15
# Of 100 names to find, how many stand in the middle of talk.
TALK_PERCENT = 40
MOST_REQUESTS = 8
MOST_NAMES = 14

Parts = tuple[str, ...]
"""A text: what is given and what answers it, in turn; an even number of parts."""


def corpus(
    seed: int,
    count: int,
    languages: Sequence[str] = DEFAULT_LANGUAGES,
    catalog_lines: tuple[int, int] = (2, 40),
) -> Iterator[Parts]:
    """Yields texts, each a tuple of given and answering parts; the same seed, the same text.

    A trainer feeds `[BOS]`, then each pair as `encode(given) + encode(answer) + [EOS]`.
    """
    rng = Random(f"corpus:{seed}")
    rates = Rates(misspelt_rate=0.1)
    shops = Shops("train", catalog_lines, rates.near_miss_rate)
    writers = [Writer(load(name), "train", rates) for name in languages]
    for _ in range(count):
        catalog, target, near_miss = shops.draw(rng)
        writer = pick(rng, writers)
        kind = _KINDS.draw(rng)
        if kind == "find":
            yield _find(rng, writer, catalog)
        elif kind == "other":
            row = writer.write(rng, catalog, target, near_miss)
            yield _OTHERS[int(rng.random() * len(_OTHERS))](rng, row)
        else:
            yield _requests(rng, writer, catalog, target)


def _requests(rng: Random, writer: Writer, catalog: Sequence[Product], target: Product) -> Parts:
    """One catalog and one or several messages about it, each with its answer."""
    cue, write = _TASK if rng.random() * 100 < TASK_PERCENT else pick(rng, _STYLES)
    count = 1 if rng.random() < 0.3 else 2 + int(rng.random() * (MOST_REQUESTS - 1))
    row = writer.write(rng, catalog, target, near_miss=False)
    if count == 1 and rng.random() * 100 < INVENTED_PERCENT:
        row = _rebranded(rng, row)
    parts = [row.prompt + cue, write(row)]
    for _ in range(count - 1):
        row = writer.write(rng, catalog, pick(rng, catalog), near_miss=False)
        parts += [f"\n\nUser:\n{row.message}{cue}", write(row)]
    return tuple(parts)


def _find(rng: Random, writer: Writer, catalog: Sequence[Product]) -> Parts:
    """Names as shoppers write them, and the catalog's line for each: many look-ups in a text."""
    parts: list[str] = []
    given = "Catalog:\n" + "\n".join(line.name for line in catalog) + "\n\nFind:\n"
    for _ in range(2 + int(rng.random() * (MOST_NAMES - 1))):
        target = pick(rng, catalog)
        mention, kind = writer.mention(rng, catalog, target, quantity=2)
        if kind == "full":  # the easy form, half of all: one more draw
            mention, kind = writer.mention(rng, catalog, target, quantity=1)
        if rng.random() * 100 < TALK_PERCENT:
            mention = writer.talk(rng, mention)
        parts += [f"{given}{mention}\n", target.name]
        given = "\n"
    return tuple(parts)


def _rebranded(rng: Random, row: Row) -> Row:
    """The row with a fresh invented word before its product, if that is mentioned in full."""
    product = row.answer.product
    if product not in row.message:
        return row
    name = f"{invented_name(rng)} {product}"
    if name in row.catalog:
        return row
    catalog = tuple(name if line == product else line for line in row.catalog)
    answer = type(row.answer)(row.answer.action, name, row.answer.quantity)
    return Row(catalog, row.message.replace(product, name), answer, row.language, row.extra)


def _note(row: Row) -> str:
    answer = row.answer
    return f"{answer.action} {answer.quantity} × {answer.product}"


def _order(row: Row) -> str:
    answer = row.answer
    return (
        f'{{"intent": "{answer.action}", "item": "{answer.product}", "count": {answer.quantity}}}'
    )


def _yaml(row: Row) -> str:
    answer = row.answer
    return f"product: {answer.product}\naction: {answer.action}\nquantity: {answer.quantity}"


def _cart(row: Row) -> str:
    sign = "+" if row.answer.action == "add" else "-"
    return f"{sign}{row.answer.quantity} {row.answer.product}"


def _sentence(row: Row) -> str:
    answer = row.answer
    if answer.action == "add":
        return f"The shopper adds {answer.quantity} of {answer.product}."
    return f"The shopper removes {answer.quantity} of {answer.product}."


def _call(row: Row) -> str:
    answer = row.answer
    return f'{answer.action}_item("{answer.product}", {answer.quantity})'


def _table(row: Row) -> str:
    return f"{row.answer.product} | {row.answer.quantity} | {row.answer.action}"


_TASK = (ANSWER_CUE, lambda row: row.completion)
_STYLES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("\n\nNote:\n", _note),
    ("\n\nOrder:\n", _order),
    ("\n\nYAML:\n", _yaml),
    ("\n\nCart:\n", _cart),
    ("\n\nSummary:\n", _sentence),
    ("\n\nCall:\n", _call),
    ("\n\nTable:\n", _table),
    ("\n\nProduct:\n", lambda row: row.answer.product),
    ("\n\nQuantity:\n", lambda row: str(row.answer.quantity)),
    ("\n\nAction:\n", lambda row: row.answer.action),
)


def _shelf(rng: Random, row: Row) -> tuple[str, str]:
    """A department and some of its goods."""
    shop = shop_range("train").products
    family = shop[int(rng.random() * len(shop))]
    names = [family[int(rng.random() * len(family))].name for _ in range(6)]
    return f"Department: {family[0].department}\n", "\n".join(dict.fromkeys(names))


def _spelled(rng: Random, row: Row) -> tuple[str, str]:
    """Numbers in words, and their digits."""
    numbers = load(row.language or "english").numbers
    chosen = [1 + int(rng.random() * len(numbers)) for _ in range(6)]
    words = [numbers[n][int(rng.random() * len(numbers[n]))] for n in chosen]
    return "Numbers:\n" + ", ".join(words) + "\n\nDigits:\n", ", ".join(map(str, chosen))


def _counted(rng: Random, row: Row) -> tuple[str, str]:
    return "Catalog:\n" + "\n".join(row.catalog) + "\n\nLines:\n", str(len(row.catalog))


def _listing(rng: Random, row: Row) -> tuple[str, str]:
    """A catalog said again line by line, numbered."""
    lines = "\n".join(f"{number}. {line}" for number, line in enumerate(row.catalog, 1))
    return "Catalog:\n" + "\n".join(row.catalog) + "\n\nNumbered:\n", lines


def _meant(rng: Random, row: Row) -> tuple[str, str]:
    """A line of the catalog in lower case, and the line."""
    line = row.catalog[int(rng.random() * len(row.catalog))]
    first = "Catalog:\n" + "\n".join(row.catalog) + f"\n\nWhich product: {line.lower()}\n"
    return first, line


def _new(rng: Random, row: Row) -> tuple[str, str]:
    """A new brand's range."""
    shop = shop_range("train").products
    brand = invented_name(rng)
    goods = [shop[int(rng.random() * len(shop))] for _ in range(5)]
    lines = [
        compose(brand, one.variant, one.family, one.size)
        for family in goods
        for one in (family[int(rng.random() * len(family))],)
    ]
    return f"New from {brand}:\n", "\n".join(lines)


_OTHERS: tuple[Callable[[Random, Row], tuple[str, str]], ...] = (
    _shelf,
    _spelled,
    _counted,
    _listing,
    _meant,
    _new,
)
