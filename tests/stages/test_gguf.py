"""The gguf stage without llama.cpp: parameters, names, file headers, the parity gate."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import InputError, MissingDependency, StageFailed
from stages.gguf import naming
from stages.gguf.params import Params
from stages.gguf.tools import run_tool
from stages.intent import parity
from stages.intent.rows import Answer, Row
from stages.runtime.folders import gguf_models, transformers_folder
from stages.runtime.gguf_file import read_header

Q4_K, F32 = 12, 0


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: Any) -> bytes:
    """One metadata entry: text is type 8, a whole number type 4, a list of texts type 9."""
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        items = b"".join(map(text, value))
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + items
    return text(key) + struct.pack("<II", 4, value)


def gguf_bytes(
    metadata: dict[str, Any] | None = None,
    tensors: tuple[tuple[str, tuple[int, ...], int, int], ...] = (("w", (256, 2), Q4_K, 0),),
    data_bytes: int = 288,
    version: int = 3,
) -> bytes:
    """A file as the specification lays it out; `tensors` are name, shape, type and offset."""
    values = {"general.architecture": "llama", "general.file_type": 15, **(metadata or {})}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(pair(key, value) for key, value in values.items())
    for name, shape, type_id, offset in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", type_id, offset)
    return head + b"\0" * (-len(head) % 32) + b"\1" * data_bytes


def write(folder: Path, content: bytes, name: str = "m.gguf") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# ------------------------------------------------------------------ headers


def test_header_says_what_the_file_is(tmp_path: Path) -> None:
    content = gguf_bytes({"tokenizer.ggml.tokens": ["<s>", "č"]})
    header = read_header(write(tmp_path, content))
    assert header.encoding == "Q4_K_M"
    assert header.parameters == 512
    assert header.file_bytes == len(content)
    assert header.data_start_bytes == len(content) - 288
    assert header.bits_per_weight == len(content) * 8 / 512
    assert header.metadata["tokenizer.ggml.tokens"] == ["<s>", "č"]
    assert header.is_model


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = gguf_bytes({"general.name": "x" * 40})
    for size in range(0, len(content), 7):
        with pytest.raises(InputError, match=r"truncated|not a GGUF"):
            read_header(write(tmp_path, content[:size]))


def test_missing_last_byte_names_the_tensor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truncated.*'w'.*download it again"):
        read_header(write(tmp_path, gguf_bytes()[:-1]))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 a zip file", "not a GGUF file: it starts with"),
        (gguf_bytes(version=9), "version 9"),
        (gguf_bytes()[:8] + b"\xff" * 16 + gguf_bytes()[24:], "damaged"),
        (gguf_bytes({"general.alignment": 0}), "alignment"),
        (
            gguf_bytes({"a.b": ["x"]}).replace(
                struct.pack("<IIQ", 9, 8, 1), struct.pack("<IIQ", 9, 9, 1) * 2_000
            ),
            "list of lists",
        ),
        (gguf_bytes(tensors=(("w", (1, 1, 1, 1, 1), F32, 0),)), "5 dimensions"),
        (gguf_bytes().replace(b"general.architecture", b"general.architectur\xff"), "damaged"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_header(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_header(tmp_path / "none.gguf")


def test_models_of_a_folder_leave_the_imatrix_out(tmp_path: Path) -> None:
    small = write(tmp_path, gguf_bytes(), "a.gguf")
    tensors = (("w", (256, 4), Q4_K, 0),)
    large = write(tmp_path, gguf_bytes(tensors=tensors, data_bytes=576), "b.gguf")
    write(tmp_path, gguf_bytes({"general.type": "imatrix"}), "imatrix.gguf")
    assert gguf_models(tmp_path) == [large, small]
    assert gguf_models(small) == [small]
    with pytest.raises(InputError, match="holds no GGUF model"):
        gguf_models(tmp_path / "nothing")


def test_transformers_folder_is_the_merged_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        transformers_folder(tmp_path)
    (tmp_path / "config.json").touch()
    assert transformers_folder(tmp_path) == tmp_path
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").touch()
    assert transformers_folder(tmp_path) == tmp_path / "merged"


# ------------------------------------------------------------------ parameters and names


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"encodings": ("Q9_K",)}, "encodings: 'Q9_K'"),
        ({"encodings": ("Q8_0", "Q8_0")}, "twice"),
        ({"encodings": ("IQ2_XS",), "imatrix": False}, "needs an importance matrix"),
        ({"imatrix_rows": 3}, "imatrix_rows must be at least 16"),
        ({"parity_rows": 0}, "parity_rows"),
        ({"max_drop": 1.5}, "max_drop must be"),
        ({"max_drop_by_encoding": ("Q2_K=much",)}, "max_drop_by_encoding: 'Q2_K=much'"),
        ({"max_drop_by_encoding": ("Q2=0.1",)}, "max_drop_by_encoding"),
        ({"min_f16_agreement": 2.0}, "min_f16_agreement"),
        ({"model_name": "a/b"}, "model_name"),
        ({"version": "1.0"}, "version must be like v1.0"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Params(**values)


def test_accepted_drop_has_exceptions() -> None:
    params = Params(max_drop=0.01, max_drop_by_encoding=("Q2_K=0.2",))
    assert params.accepted_drop("Q2_K") == 0.2
    assert params.accepted_drop("Q4_K_M") == 0.01


# The convention's own parts: base name, size label, fine-tune, version, encoding.
CONVENTION = re.compile(
    r"(?P<base>[A-Za-z0-9]+(?:-[A-Za-z]+)*)-(?P<size>(?:\d+\.)?\d+[KMBT])"
    r"(?:-(?P<tune>[A-Za-z0-9-]+))?-(?P<version>v\d+(?:\.\d+)*)-(?P<encoding>[A-Z0-9_]+)\.gguf"
)


def test_names_follow_the_convention() -> None:
    name = naming.file_name(Params(), "7.3M", "Q4_K_M")
    assert name == "Cartwright-Intent-7.3M-v1.0-Q4_K_M.gguf"
    found = CONVENTION.fullmatch(naming.file_name(Params(finetune="Shop One"), "1.2B", "F16"))
    assert found is not None
    assert found.groupdict() == {
        "base": "Cartwright-Intent",
        "size": "1.2B",
        "tune": "Shop-One",
        "version": "v1.0",
        "encoding": "F16",
    }


def test_metadata_carries_what_the_name_says() -> None:
    values = naming.metadata(Params(version="v2.1", finetune="Shop One"))
    assert values["general.basename"] == "Cartwright-Intent"
    assert values["general.version"] == "v2.1"
    assert values["general.finetune"] == "Shop-One"
    assert values["general.languages"] == ["en", "hr", "es"]
    assert "general.finetune" not in naming.metadata(Params())


# ------------------------------------------------------------------ tools


def test_failing_tool_gives_its_last_lines(tmp_path: Path) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text("import sys\nprint('first')\nprint('tensor is bad', file=sys.stderr)\nexit(3)")
    with pytest.raises(StageFailed, match=r"Q4_0: tool.py ended with code 3: .*tensor is bad"):
        run_tool("Q4_0", [tool], tmp_path, "nothing")


def test_missing_tool_names_the_image(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="converter image"):
        run_tool("Q4_0", [tmp_path / "llama-quantize"], tmp_path, "nothing")


# ------------------------------------------------------------------ parity

CATALOG = ("Honey (350g jar)", "Black Tea (20 bags)")
ROWS = [Row(CATALOG, f"add {n} honey", Answer("add", CATALOG[0], n)) for n in range(1, 101)]
RIGHT = [row.completion for row in ROWS]


def with_wrong(*numbers: int) -> list[str]:
    """The right answers, but for these rows (counted from 1), where the product is wrong."""
    wrong = {number - 1 for number in numbers}
    return [
        Answer("add", CATALOG[1], row.answer.quantity).to_json() if i in wrong else row.completion
        for i, row in enumerate(ROWS)
    ]


def test_comparison_counts_drop_and_agreement() -> None:
    compared = parity.compare("Q4_0", ROWS, with_wrong(9), with_wrong(3, 7))
    assert compared.exact == 0.98
    assert compared.drop == pytest.approx(0.01)
    assert compared.lost == (3, 7)
    assert compared.gained == (9,)
    assert compared.agreement["action"]["value"] == 1.0
    assert compared.agreement["product"]["value"] == 0.97
    assert compared.agreement["exact"]["n"] == 100
    assert compared.to_record()["lost_rows"] == [3, 7]


def test_gate_lets_a_drop_up_to_the_bound_through() -> None:
    parity.gate(parity.compare("Q4_0", ROWS, RIGHT, with_wrong(3, 7)), 0.02, 0.0)


def test_gate_names_the_rows() -> None:
    compared = parity.compare("Q2_K", ROWS, RIGHT, with_wrong(*range(1, 31)))
    with pytest.raises(StageFailed, match=r"Q2_K has 70\.0%.*drop of 30\.0%.*2\.0%.* and 10 more"):
        parity.gate(compared, 0.02, 0.0)


def test_f16_must_give_the_same_answers_even_when_as_good() -> None:
    compared = parity.compare("F16", ROWS, with_wrong(1, 2, 3), with_wrong(4, 5, 6))
    assert compared.drop == 0
    with pytest.raises(StageFailed, match=r"94\.0%.*99\.0%.*changed: 1, 2, 3, 4, 5, 6"):
        parity.gate(compared, 0.02, 0.99)


def test_tokens_must_be_the_same() -> None:
    parity.check_tokens("m.gguf", ["a", "b"], [[1, 2], [3]], [[1, 2], [3]])
    with pytest.raises(StageFailed, match=r"m.gguf tokenizes text 2 differently.*from token 1"):
        parity.check_tokens("m.gguf", ["a", "b"], [[1, 2], [3, 4]], [[1, 2], [3, 5]])
    with pytest.raises(StageFailed, match="from token 1"):
        parity.check_tokens("m.gguf", ["b"], [[3]], [[3, 5]])
