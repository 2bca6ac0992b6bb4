"""Files that are no sound model: each is refused in a sentence, and none ends a service otherwise.

CARTWRIGHT_MUTATIONS is how many damaged copies are tried; docs/FIGURES.md has 500.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.core.artifact import hash_file
from stages.core.errors import InputError
from stages.runtime.gguf_file import read_header
from stages.serve.trial import try_model
from tests.stages.in_image.service import MODEL, refused, start

MUTATIONS = int(os.environ.get("CARTWRIGHT_MUTATIONS", "24"))
WHOLE = MODEL.read_bytes()
HEADER = read_header(MODEL)
_TENSOR = WHOLE.index(b"token_embd.weight") + len(b"token_embd.weight")
_TOKENS = WHOLE.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens")
_FIRST_KEY_BYTES = struct.unpack_from("<Q", WHOLE, 24)[0]
_FIRST_VALUE = 32 + _FIRST_KEY_BYTES
U32, U64 = "<I", "<Q"


def put(place: int, code: str, value: int) -> bytes:
    return WHOLE[:place] + struct.pack(code, value) + WHOLE[place + struct.calcsize(code) :]


def renamed(old: bytes, new: bytes) -> bytes:
    assert old in WHOLE and len(old) == len(new)
    return WHOLE.replace(old, new)


CLASSES = {
    "empty": b"",
    "a part of the magic": b"GG",
    "another magic": b"\x89PNG" + WHOLE[4:],
    "zeros": bytes(len(WHOLE)),
    "version 0": put(4, U32, 0),
    "version 1": put(4, U32, 1),
    "a version to come": put(4, U32, 9),
    "big-endian": put(4, ">I", 3),
    "more tensors than there are": put(8, U64, len(HEADER.tensors) + 1),
    "tensors without end": put(8, U64, 1 << 60),
    "no tensors": put(8, U64, 0),
    "more pairs than there are": put(16, U64, len(HEADER.metadata) + 1),
    "pairs without end": put(16, U64, 1 << 60),
    "no pairs": put(16, U64, 0),
    "a key without end": put(24, U64, 1 << 40),
    "a key that is no text": WHOLE[:32] + b"\xff\xfe" + WHOLE[34:],
    "a type that is none": put(_FIRST_VALUE, U32, 99),
    "a list of a type that is none": put(_TOKENS + 4, U32, 99),
    "a list of lists": put(_TOKENS + 4, U32, 9),
    "a list without end": put(_TOKENS + 8, U64, 1 << 50),
    "cut in the header": WHOLE[:1_000],
    "cut in the data": WHOLE[: len(WHOLE) // 2],
    "a byte too short": WHOLE[:-1],
    "data beyond the file": put(_TENSOR + 24, U64, 1 << 40),
    "no dimensions": put(_TENSOR, U32, 0),
    "nine dimensions": put(_TENSOR, U32, 9),
    "a width of zero": put(_TENSOR + 4, U64, 0),
    "a tensor type that is none": put(_TENSOR + 20, U32, 999),
    "an architecture that is none": renamed(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma"),
    "no vocabulary": renamed(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tekons"),
    "a tensor of another name": renamed(b"output_norm.weight", b"output_nurm.weight"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_kind_of_damage_is_refused(name: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(CLASSES[name])
    done = start("--model", str(bad), "--port", "18081")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "bad.gguf" in done.stderr or "the model" in done.stderr


def _damaged(number: int) -> bytes:
    """A copy with a few bytes changed, half of the times in its header."""
    dice = random.Random(number)
    content = bytearray(WHOLE)
    end = HEADER.data_start_bytes if number % 2 else len(content)
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        content[dice.randrange(4, end)] = dice.randrange(256)
    return bytes(content)


def test_damaged_copies(tmp_path: Path) -> None:
    """With the hash of the sound file none loads; without, none ends but in a sentence."""
    sound = hash_file(MODEL)

    def attempt(number: int) -> str:
        bad = tmp_path / f"bad-{number}.gguf"
        bad.write_bytes(_damaged(number))
        if bad.read_bytes() == WHOLE:
            return "unchanged"
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from stages.serve.__main__ import main; "
             "sys.exit(main(sys.argv[1:]))", "--model", str(bad), "--sha256", sound],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        refused(done, "")
        try:
            try_model(bad)
        except InputError as error:
            assert "\n" not in str(error)
            return "refused"
        finally:
            bad.unlink()
        return "loads without its hash"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, range(MUTATIONS)))
    found = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    print(f"{MUTATIONS} damaged copies: {found}")
    assert found.get("refused", 0) >= MUTATIONS // 8
