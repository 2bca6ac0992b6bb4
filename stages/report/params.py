"""The report stage's parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Params:
    """How the recommendation is made, and what the model card says.

    Attributes:
        title: heading of the report.
        max_accuracy_drop: share of exact matches that a variant may lose against the most accurate
            one and still be recommended (0.005 is half a point).
        profile: name of the profile, for the commands that run it again.
        model_name: name on the model card.
        base_model: hub id of the base model for the card; empty if it is on no hub.
        license: SPDX identifier of the model's license.
        languages: ISO 639 codes of the languages that the model was trained on.
    """

    title: str = "Which variant to use"
    max_accuracy_drop: float = 0.005
    profile: str = "demo"
    model_name: str = "Cartwright Intent"
    base_model: str = ""
    license: str = "apache-2.0"
    languages: tuple[str, ...] = ("en", "hr", "es")

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop < 1:
            raise InputError(
                f"max_accuracy_drop must be a share from 0 to 1, not {self.max_accuracy_drop}"
            )
        for name in ("title", "profile", "model_name", "license"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} must not be empty")
        if not self.languages or not all(re.fullmatch("[a-z]{2,3}", one) for one in self.languages):
            raise InputError(f"languages must be ISO 639 codes, not {list(self.languages)}")
