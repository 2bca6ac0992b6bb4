"""How often generated messages do what people do."""

from __future__ import annotations

from dataclasses import dataclass, fields

from stages.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of all messages or catalogs, each from 0 to 1.

    Attributes:
        near_miss_rate: catalogs with lines that differ from the product meant in one thing only.
        spoken_rate: products named in the shopper's own words: a synonym, another language, a size
            spelled out, "the white one"; less often comes out, where a name would not be clear.
        aside_rate: messages with a time, a place or a number of people attached to the request.
        swap_rate: words of a story put for others of their kind: "my aunt" where a frame has "my
            sister", "on Friday" for "tomorrow"; of every such word.
        reason_rate: messages with a sentence before or after the request.
        greeting_rate: messages that begin with a greeting.
        thanks_rate: messages that end in thanks or a farewell.
        transcript_rate: messages as a speech recognizer writes them: no capitals, no marks, several
            words of hesitation, more talk around the request.
        typo_rate: one or two keyboard slips in the text around the product.
        misspelt_rate: a slip inside the product's name, where it stays recognizable.
        no_diacritics_rate: letters like "č" or "ñ" written plain throughout.
        no_punctuation_rate: no sentence punctuation.
        lower_rate: no capital at the start, and in half of these messages none but in the product.
        filler_rate: a word of hesitation somewhere.
        shout_rate: capitals throughout.
    """

    near_miss_rate: float = 0.5
    spoken_rate: float = 0.22
    aside_rate: float = 0.15
    swap_rate: float = 0.3
    reason_rate: float = 0.28
    greeting_rate: float = 0.25
    thanks_rate: float = 0.25
    transcript_rate: float = 0.08
    typo_rate: float = 0.14
    misspelt_rate: float = 0.08
    no_diacritics_rate: float = 0.3
    no_punctuation_rate: float = 0.25
    lower_rate: float = 0.4
    filler_rate: float = 0.06
    shout_rate: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(Rates):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise InputError(f"{field.name} must be from 0 to 1, not {value}")


USUAL = Rates()
