"""The data stage's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from stages.core.errors import InputError
from stages.data.rates import Rates

MAX_CATALOG_LINES = 200


@dataclass(frozen=True, kw_only=True)
class Params(Rates):
    """How many rows to make, in which languages, and how messy; or which file to import.

    How messy, in which share of the messages: `Rates`.

    Attributes:
        train_rows: rows to learn from; with `import_path` the three counts are proportions.
        validation_rows: rows for the learning curve and the parity gate.
        test_rows: rows for the figures in the report.
        languages: language files of this stage.
        min_catalog_lines: fewest lines of a generated catalog.
        max_catalog_lines: most lines of a generated catalog.
        import_path: a JSONL or CSV file of your own rows, used in place of the generator; empty
            for none.
        skip_invalid: leave out the bad rows of the imported file, and name them in rejects.jsonl,
            instead of stopping at the first.
    """

    seed: int
    train_rows: int = 3000
    validation_rows: int = 300
    test_rows: int = 600
    languages: tuple[str, ...] = ("english", "croatian", "spanish")
    min_catalog_lines: int = 2
    max_catalog_lines: int = 40
    import_path: str = ""
    skip_invalid: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_rows", "validation_rows", "test_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 2 <= self.min_catalog_lines <= self.max_catalog_lines <= MAX_CATALOG_LINES:
            raise InputError(
                f"min_catalog_lines and max_catalog_lines must be in order and from 2 to "
                f"{MAX_CATALOG_LINES}, not {self.min_catalog_lines} and {self.max_catalog_lines}"
            )
        if not self.languages:
            raise InputError("languages must name at least one language")
        if len(set(self.languages)) != len(self.languages):
            raise InputError("languages must not name a language twice")
