"""The data stage's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from stages.core.errors import InputError

MAX_CATALOG_LINES = 200
_SHARES = (
    "typo_rate",
    "misspelt_rate",
    "no_diacritics_rate",
    "no_punctuation_rate",
    "lower_rate",
    "filler_rate",
    "shout_rate",
)


@dataclass(frozen=True, kw_only=True)
class Params:
    """How many rows to make, in which languages, and how messy; or which file to import.

    Attributes:
        train_rows: rows to learn from; with `import_path` the three counts are proportions.
        validation_rows: rows for the learning curve and the parity gate.
        test_rows: rows for the figures in the report.
        languages: language files of this stage.
        min_catalog_lines: fewest lines of a generated catalog.
        max_catalog_lines: most lines of a generated catalog.
        typo_rate: share of messages with a keyboard slip outside the product's name.
        misspelt_rate: share of messages with a slip inside the product's name.
        no_diacritics_rate: share of messages typed without the language's special letters.
        no_punctuation_rate: share of messages without sentence punctuation.
        lower_rate: share of messages without a capital at the start.
        filler_rate: share of messages with a word of hesitation.
        shout_rate: share of messages in capitals throughout.
        import_path: a JSONL file of your own rows, used in place of the generator; empty for none.
    """

    seed: int
    train_rows: int = 3000
    validation_rows: int = 300
    test_rows: int = 600
    languages: tuple[str, ...] = ("english", "croatian", "spanish")
    min_catalog_lines: int = 5
    max_catalog_lines: int = 20
    typo_rate: float = 0.14
    misspelt_rate: float = 0.08
    no_diacritics_rate: float = 0.3
    no_punctuation_rate: float = 0.25
    lower_rate: float = 0.4
    filler_rate: float = 0.06
    shout_rate: float = 0.01
    import_path: str = ""

    def __post_init__(self) -> None:
        for name in ("train_rows", "validation_rows", "test_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 2 <= self.min_catalog_lines <= self.max_catalog_lines <= MAX_CATALOG_LINES:
            raise InputError(
                f"min_catalog_lines and max_catalog_lines must be in order and from 2 to "
                f"{MAX_CATALOG_LINES}, not {self.min_catalog_lines} and {self.max_catalog_lines}"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if not self.languages:
            raise InputError("languages must name at least one language")
        if len(set(self.languages)) != len(self.languages):
            raise InputError("languages must not name a language twice")
