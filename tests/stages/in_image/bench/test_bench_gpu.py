"""The GPU bench's own command line where torch sees no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from stages.intent.rows import Answer, Row
from tests.stages.in_image.small_model import write_inputs

ROW = Row(("Honey (350g jar)",), "one honey", Answer("add", "Honey (350g jar)", 1))


def test_without_a_gpu_it_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    assert not torch.cuda.is_available()
    inputs = write_inputs(tmp_path, {"test": [ROW]})
    (tmp_path / "params.json").write_text(json.dumps({"variants": ["fp16"]}))
    command = [sys.executable, "-m", "stages.bench_gpu", "--params", str(tmp_path / "params.json")]
    for name, folder in inputs.items():
        command += ["--input", f"{name}={folder}"]
    command += ["--out", str(tmp_path / "out" / "made")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: bench-gpu measures on an NVIDIA GPU and torch {torch.__version__} sees none here: "
        "start the container with one, or measure GGUF files by bench-cpu\n"
    )
    assert list((tmp_path / "out").iterdir()) == []
