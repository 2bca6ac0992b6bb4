"""What verb lists, number words and fuzzy matching get, without a model.

It is the honest baseline that a model is compared with, and the guess that its walk begins with.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache, partial

from stages.intent.rows import MAX_QUANTITY, Answer

# Two words count as the same from this likeness on: one slip in five letters.
MIN_LIKENESS = 0.8
# What a word of the line that the message lacks costs, against what one that it has brings.
MISSING_COST = 0.25

# What follows is in English, Croatian and Spanish, as `_plain` leaves a message: no diacritics.
_REMOVE = re.compile(
    r"""
    ^(?:without|bez|sin)\b | (?:^|\s)-\d | \b(?:
    remov\w+|delet\w+|drop(?:ped)?|cancel\w*|get\srid|scrap|scratch|skip|lose|leave\sout|minus|void
    |(?:take|took|knock|pull|cut|cross\w*|come|chuck)\b.{0,60}?\b(?:out|off|back)|reduce|strike
    |no\slonger|any\s?more|can\sgo|changed?\smy\smind|second\sthoughts|no\smore|without\sthe
    |(?:do|does|did|wo|ca|need|sha)n'?t\s(?:need|want|like|get|buy|order|add|afford|be)
    |dont|not\s(?:buying|needed|required|want)|no\sneed|too\s(?:many|much)|by\smistake|return
    |already\s(?:have|got)|put\sback|pass\son|never\smind|forget\s(?:about\s)?the|less|fewer
    |makni\w*|maknem\w*|izba[cs]\w*|ukloni\w*|bris\w*|obris\w*|otka\w*|ponist\w*|izvad\w*|skin\w*
    |odusta\w*|vrat\w*|oduzm\w*|smanj\w*|storn\w*|natrag|otpada\w*|nista\sod|prekriz\w*|nemoj\w*
    |ne\s(?:treba\w*|zelim\w*|bi|ide|mogu|pase|stavlja\w*|uzima\w*|kupuj\w*)|vise\sne|necu|necemo
    |previse|predomisli\w*|visak|viska|greskom|zaboravi\w*\sna|manje|(?<!za\s)van|preskoc\w*
    |quit\w*|elimin\w*|borr\w*|sac[aoue]\w*|saqu\w*|retir\w*|descart\w*|devuelv\w*|devolver|baja
    |no\s(?:quier\w*|necesit\w*|hace\sfalta|lo\squier\w*|voy\sa|pongas|anadas|me\s\w+)|ya\sno
    |mejor\sno|al\sfinal\sno|sobr\w+|cambi\w+\sde\s(?:idea|opinion)|demasiad\w*|por\serror
    |olvid\w+|menos|fuera|anula\w*
    )\b""",
    re.VERBOSE,
)
# Negations that ask for more; taken out before the others are looked for.
_ADD = re.compile(
    r"\b(?:do\s?n'?t (?:forget|leave out|skip)|can'?t (?:do|live) without|never enough|not enough|"
    r"no more \w+ left|(?:ran|run|running|we'?re) out(?: of)?|ne zaboravi\w*|nemoj\w* zaboraviti|"
    r"ne mogu bez|no (?:te |se )?olvid\w+|no puede faltar|quedad?[oa]?(?:mos)? sin|"
    r"ya no (?:me |nos )?(?:qued\w+|teng\w+|tenemos|hay))\b"
)
# Another line of the catalog that is to be left alone.
_ASIDE = re.compile(
    r"[,.]?\s(?:and |but |a |ali |y |pero )?(?:not|keep|leave|instead of|rather than|ne|ostavi\w*|"
    r"zadrzi\w*|umjesto|no|dej\w+|en vez de|en lugar de) (?!\d)[^,.!?]*"
)
_CORRECTION = re.compile(
    r"\b(?:no|nope|ne|wait|sorry|actually|rather|mean|make (?:it|that)|scratch that|ma|zapravo|"
    r"mislim|hocu reci|perdona?|digo|mejor|bueno|esperate|o sea)\b"
)
# What a number stands before or after when it counts no pieces.
_UNITS = (
    r"(?:cm|mm|m|km|ml|l|dl|g|kg|oz|lb|inch(?:es)?|in|gb|tb|w|v|mah|%|eur\w*|dol+ar\w*|pounds?|"
    r"pm|am|h|min\w*|o'?clock|sati|horas?|years?|godin\w*|anos|people|guests?|ljudi|gostiju|"
    r"personas|invitados|of us|degrees|per ?cent|posto|por ciento|(?:de )?(?:january|february|"
    r"march|april|may|june|july|august|september|enero|junio|julio|agosto))"
)
_NO_COUNT_BEFORE = re.compile(
    r"(?:table|room|order|(?:number )?is|number|bus|size|floor|booth|seat|at|stol|soba|broj|"
    r"velicina|u|do|mesa|sala|numero|talla|piso|a las|el|od|july|june|may|august|march|january|"
    r"#|[$€£])\s*$"
)
_SPELLED_UNITS = (
    (re.compile(r"(?<=\d)\s?(?:met\w+)\b"), "m"),
    (re.compile(r"(?<=\d)\s?(?:lit\w+)\b"), "l"),
    (re.compile(r"(?<=\d)\s?(?:gram\w*)\b"), "g"),
    (re.compile(r"(?<=\d)\s?(?:kil[oa]\w*)\b"), "kg"),
)

_WORDS = {
    1: "one|a|an|another|jedan|jednu|jedno|jedna|jos jedan|un|una|uno|otro|otra",
    2: "two|couple|pair|both|dva|dvije|dvi|par|oba|obje|dos|ambos|ambas",
    3: "three|tri|tres",
    4: "four|cetiri|cetri|cuatro",
    5: "five|pet|cinco",
    6: "six|sest|seis|half a dozen|half dozen|pola tuceta|media docena",
    7: "seven|sedam|siete",
    8: "eight|osam|ocho",
    9: "nine|devet|nueve",
    10: "ten|deset|diez|una decena",
    11: "eleven|jedanaest|once",
    12: "twelve|dozen|a dozen|dvanaest|tucet|doce|docena|una docena",
    13: "thirteen|trinaest|trece",
    14: "fourteen|cetrnaest|catorce",
    15: "fifteen|petnaest|quince",
    16: "sixteen|sesnaest|dieciseis",
    17: "seventeen|sedamnaest|diecisiete",
    18: "eighteen|osamnaest|dieciocho",
    19: "nineteen|devetnaest|diecinueve",
    20: "twenty|dvadeset|veinte",
    24: "two dozen|dva tuceta|dos docenas",
    30: "thirty|trideset|treinta",
    40: "forty|cetrdeset|cuarenta",
    36: "three dozen|tri tuceta|tres docenas",
    50: "fifty|pedeset|cincuenta",
    60: "sixty|sezdeset|sesenta",
    70: "seventy|sedamdeset|setenta",
    80: "eighty|osamdeset|ochenta",
    90: "ninety|devedeset|noventa",
    100: "hundred|a hundred|sto|cien",
}
_SPELLED = {word: n for n, words in _WORDS.items() for word in words.split("|")}
# Longer spellings first: "half a dozen" before "a dozen" before "a".
_NUMBER = re.compile(
    r"(?<![\w.,:/])(?<!\w-)(?:x\s?)?(?P<digits>\d+)(?:\s?[x×])?(?![\w/]|[.,:]\d|\s?-\w)(?!\s?"
    + _UNITS
    + r"\b)|\b(?P<word>"
    + "|".join(sorted(_SPELLED, key=len, reverse=True))
    + r")\b(?:(?<=ty)[-\s]|(?<=[est])\si\s|(?<=a)\sy\s)?(?P<unit>(?<=[-\s])(?:"
    + "|".join(word for n in range(1, 10) for word in _WORDS[n].split("|") if " " not in word)
    + r")\b)?(?!\s"
    + _UNITS
    + r"\b)"
)


def answer(catalog: Sequence[str], message: str) -> Answer:
    """The rules' answer: always of the catalog, `add` and 1 where nothing says otherwise."""
    plain = _plain(message)
    product = match(catalog, plain)
    action = "remove" if _REMOVE.search(_ADD.sub(" ", plain)) else "add"
    return Answer(action, product, _quantity(plain, product))


def guess(message: str) -> Callable[[Sequence[str]], Answer]:
    """The rules' answer to a message for any catalog, as `stages.intent.decode` asks for it."""
    return partial(answer, message=message)


def match(catalog: Sequence[str], plain: str) -> str:
    """The line whose words, the rare ones above all, are most in the message; the first of equals.

    Args:
        catalog: product lines.
        plain: the message, lower-cased and without diacritics.
    """
    lines = [_words(line) for line in catalog]
    found_in = Counter(word for line in lines for word in line)

    def best(text: str) -> tuple[float, int]:
        said = set(_tokens(text))
        stems = {word.rstrip("s") for word in said}
        share = {}
        for word, count in found_in.items():
            weight = math.log(1 + len(lines) / count)
            if word.rstrip("s") in stems:
                likeness = 1.0
            elif len(word) < 4 or word[0].isdigit():
                likeness = 0.0
            else:
                likeness = max((_likeness(word, one) for one in said), default=0.0)
            share[word] = weight * (likeness if likeness >= MIN_LIKENESS else -MISSING_COST)
        scores = [sum(share[word] for word in line) for line in lines]
        top = max(scores)
        return top, scores.index(top)

    whole = best(plain)
    short = _ASIDE.sub(" ", plain)
    # Without what is said of other lines, unless that was all there was.
    trimmed = whole if short == plain else best(short)
    return catalog[trimmed[1] if trimmed[0] > whole[0] / 2 else whole[1]]


def _quantity(plain: str, product: str) -> int:
    """The number that counts pieces: none of the product's own name, the last of a correction."""
    own = Counter(_tokens(_plain(product)))
    found: list[tuple[int, bool]] = []
    end = 0
    for number in _NUMBER.finditer(plain):
        text = number["digits"] or number["word"]
        if number["digits"] and own[text] > 0:
            own[text] -= 1
            continue
        if number["digits"] and _NO_COUNT_BEFORE.search(plain[: number.start()]):
            continue
        value = int(text) if number["digits"] else _SPELLED[text]
        if number["unit"]:
            value += _SPELLED[number["unit"]]
        if 1 <= value <= MAX_QUANTITY:
            between = plain[end : number.start()]
            corrects = bool(found) and len(between) < 24 and bool(_CORRECTION.search(between))
            found.append((value, corrects))
            end = number.end()
    for value, corrects in reversed(found):
        if corrects:
            return value
    # "a" and "one" say little where another number stands.
    return next((value for value, _ in found if value > 1), 1)


def _plain(text: str) -> str:
    """Lower case, no diacritics, units as catalogs write them."""
    folded = unicodedata.normalize("NFKD", text.lower().replace("đ", "d").replace("’", "'"))
    plain = "".join(one for one in folded if not unicodedata.combining(one))
    for spelled, unit in _SPELLED_UNITS:
        plain = spelled.sub(unit, plain)
    return plain


def _tokens(plain: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)?[a-z]*|[^\W\d_]+", plain)


@lru_cache(maxsize=1 << 12)
def _words(line: str) -> list[str]:
    """The different words of a catalog's line."""
    return list(dict.fromkeys(_tokens(_plain(line))))


@lru_cache(maxsize=1 << 16)
def _likeness(one: str, other: str) -> float:
    """The share of letters that two words have in common.

    0 where it is below `MIN_LIKENESS`, and where their lengths differ by more than 3.
    """
    least = MIN_LIKENESS * (len(one) + len(other)) / 2
    if abs(len(one) - len(other)) > 3 or min(len(one), len(other)) < least:
        return 0.0
    # What is in common are no letters that one of them lacks, and no more than both have.
    mine, others = _letters(one), _letters(other)
    if (
        len(one) - (mine & ~others).bit_count() < least
        or len(other) - (others & ~mine).bit_count() < least
        or sum(min(one.count(letter), other.count(letter)) for letter in set(one)) < least
    ):
        return 0.0
    return SequenceMatcher(None, one, other).ratio()


@lru_cache(maxsize=1 << 14)
def _letters(word: str) -> int:
    """A bit for each letter of a word; letters may share one."""
    return sum(1 << bit for bit in {ord(letter) % 64 for letter in word})
