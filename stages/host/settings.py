"""Where the project is, and what the environment and `.env` say."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def _dotenv(root: Path) -> dict[str, str]:
    """Values of `.env` as Compose reads its plain lines."""
    path = root / ".env"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs if name.strip()}


def setting(name: str, default: str) -> str:
    """A setting from the environment or else `.env`; an empty one counts as not given."""
    return os.environ.get(name) or _dotenv(ROOT).get(name) or default


def artifacts() -> Path:
    """The folder that all stages share."""
    return (ROOT / Path(setting("CARTWRIGHT_ARTIFACTS", "artifacts")).expanduser()).resolve()


def image_ref(image: str) -> str:
    """The full reference of an image."""
    registry = setting("CARTWRIGHT_REGISTRY", "cartwright")
    return f"{registry}/{image}:{setting('CARTWRIGHT_TAG', 'local')}"


def owner_label() -> str:
    """What marks the containers that work on this artifacts folder."""
    return hashlib.sha256(str(artifacts()).encode()).hexdigest()[:16]
