"""Parameters of the stage `base`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.core.errors import InputError

HUB = "hub:"


@dataclass(frozen=True, kw_only=True)
class Params:
    """Where the base model comes from.

    Attributes:
        source: `shipped` (the model of this project), `dir` (a folder, see `path`) or
            `hub:<owner>/<name>` on the Hugging Face hub.
        path: The folder for `dir`.
        revision: The commit for `hub:`, 40 hex digits: a branch or tag can be moved.
        seed: Unused; every stage has one.
    """

    source: str = "shipped"
    path: str = ""
    revision: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source.startswith(HUB):
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.source.removeprefix(HUB)):
                raise InputError(f"source must name a model as hub:owner/name, not {self.source!r}")
            if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
                raise InputError(
                    f"revision must be the model's commit, 40 hex digits, not {self.revision!r}; "
                    "the model page lists it under 'Files and versions', 'History'"
                )
        elif self.source == "dir":
            if not self.path:
                raise InputError("path is required with source dir: give the model folder")
        elif self.source != "shipped":
            raise InputError(f"source must be shipped, dir or hub:owner/name, not {self.source!r}")
        if self.path and self.source != "dir":
            raise InputError(f"path is read with source dir only, not with {self.source}")
        if self.revision and not self.source.startswith(HUB):
            raise InputError(f"revision is read with source hub: only, not with {self.source}")
