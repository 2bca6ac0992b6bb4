"""The image of auto-gptq, as far as a CPU allows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.data.generate import generate
from stages.gptq import auto_gptq_backend as backend
from stages.runtime.hf import encode, load_tokenizer
from tests.stages.in_image.small_model import TOKENIZER, write_inputs, write_model

NO_GPU = "the refusal is for hosts without a GPU"


@pytest.mark.skipif(torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_without_a_gpu_the_stage_says_so_and_keeps_nothing(tmp_path: Path, device: str) -> None:
    rows = {split: list(generate(4, split, 20)) for split in ("train", "validation", "test")}
    inputs = write_inputs(tmp_path, rows)
    params = tmp_path / "p.json"
    params.write_text(json.dumps({"backend": "auto-gptq", "device": device}))
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "stages.gptq", "--params", str(params)]
    for name, path in inputs.items():
        command += ["--input", f"{name}={path}"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: device is {device} and torch ")
    assert "auto-gptq quantizes on an NVIDIA GPU alone" in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_nothing_that_fetches_is_imported(tmp_path: Path) -> None:
    backend.isolate(tmp_path)
    import auto_gptq

    assert auto_gptq.__version__ == "0.7.1"
    assert not {"datasets", "gekko", "aiohttp", "pyarrow"} & set(sys.modules)


def test_the_shipped_tokenizer_reads_as_in_transformers_5() -> None:
    tokenizer = load_tokenizer(TOKENIZER)
    assert encode(tokenizer, "a  b\n\n c") == [3975, 3973, 268, 4, 4, 276]
    assert encode(tokenizer, "čž\tŠ") == [4053, 4052, 14, 4067]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_rope_of_transformers_5_is_not_lost(tmp_path: Path) -> None:
    write_model(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500_000.0}
    path.write_text(json.dumps(config))
    model = backend._load(tmp_path, backend._config(tmp_path), "float32", "cpu")
    expected = 500_000.0 ** -(torch.arange(0, 32, 2) / 32) / 4
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)
