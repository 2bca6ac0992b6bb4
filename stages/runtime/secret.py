"""A key or token, handed to a container so that it is left in no file, argument or setting."""

from __future__ import annotations

import os
import sys
from pathlib import Path

STDIN_VARIABLE = "CARTWRIGHT_SECRET_ON_STDIN"


def read_secret(path: Path) -> str:
    """The secret that the caller sends as the first line of standard input, or else a file's.

    Args:
        path: a mounted secret; may be missing.

    Returns:
        Empty if there is none.
    """
    if os.environ.get(STDIN_VARIABLE):
        return sys.stdin.readline().strip()
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
