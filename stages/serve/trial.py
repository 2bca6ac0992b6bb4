"""A model file is tried in a process of its own, which it may end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages.core.errors import InputError
from stages.serve.model import GOLDEN_CATALOG, GOLDEN_MESSAGE


def try_model(path: Path) -> None:
    """Loads a model and asks it the golden request: llama.cpp ends a process at some damages.

    Raises:
        InputError: The model cannot be used; the sentence says why.
    """
    command = [sys.executable, "-m", "stages.serve.predict", "--model", str(path)]
    command += ["--catalog", "-", "--message", GOLDEN_MESSAGE, "--threads", "1"]
    done = subprocess.run(
        command, input="\n".join(GOLDEN_CATALOG), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    if done.returncode == InputError.exit_code and done.stderr.startswith("error: "):
        raise InputError(done.stderr.removeprefix("error: ").strip())
    said = next(
        (line.strip() for line in done.stderr.splitlines() if line.strip()), "no word of it"
    )
    raise InputError(f"{path} is damaged: llama.cpp gives up on it ({said[:200]}); copy it again")
