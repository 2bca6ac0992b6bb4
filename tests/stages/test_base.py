from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.base.checks import check, read_header
from stages.base.params import Params
from stages.base.stage import SHIPPED, run
from stages.core.entry import main
from stages.core.errors import InputError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
LAYER = {
    "input_layernorm": (4,),
    "post_attention_layernorm": (4,),
    "self_attn.q_proj": (4, 4),
    "self_attn.k_proj": (2, 4),
    "self_attn.v_proj": (2, 4),
    "self_attn.o_proj": (4, 4),
    "mlp.gate_proj": (6, 4),
    "mlp.up_proj": (6, 4),
    "mlp.down_proj": (4, 6),
}


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F16") -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def tiny_llama(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (8, 4),
        "model.norm.weight": (4,),
    }
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in LAYER.items()}
    write_safetensors(folder / "model.safetensors", shapes)
    vocabulary = {chr(97 + index): index for index in range(8)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return folder


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "llama")


def change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(LLAMA | values))

    return change


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle weights": (write("pytorch_model.bin", "x"), "pickle weights can run code"),
    "pickle checkpoint": (write("consolidated.00.pth", "x"), "pickle weights can run code"),
    "code": (write("modeling_llama.py", "x"), "no code of its own"),
    "remote code": (change_config(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "remote tokenizer": (write("tokenizer_config.json", '{"auto_map": {}}'), "auto_map"),
    "no config": (remove("config.json"), "has no config.json"),
    "config not JSON": (write("config.json", "{"), "not valid JSON"),
    "other architecture": (change_config(architectures=["GPT2LMHeadModel"]), "only Llama"),
    "quantized": (change_config(quantization_config={}), "quantized"),
    "no width": (change_config(hidden_size=0), "hidden_size must be a positive"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer"),
    "no tokenizer config": (remove("tokenizer_config.json"), "has no tokenizer_config.json"),
    "foreign tokenizer": (
        write("tokenizer.json", '{"model": {"vocab": {"a": 8}}}'),
        "another model's",
    ),
    "no weights": (remove("model.safetensors"), "only safetensors"),
    "truncated weights": (truncate, "truncated or damaged"),
    "not safetensors": (write("model.safetensors", "hello"), "not a safetensors file"),
    "other shape": (change_config(intermediate_size=7), "has shape [6, 4]"),
    "missing layer": (change_config(num_hidden_layers=2), "lack model.layers.1."),
    "missing head": (change_config(tie_word_embeddings=False), "lack lm_head.weight"),
    "missing shard": (
        write("model.safetensors.index.json", '{"weight_map": {"a": "model-2.safetensors"}}'),
        "model-2.safetensors is missing",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refuses(kind: str, llama: Path) -> None:
    spoil, sentence = REFUSALS[kind]
    spoil(llama)
    with pytest.raises(InputError) as refusal:
        check(llama)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_refusal_exits_2_in_one_sentence_and_leaves_nothing(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (llama / "pytorch_model.bin").write_bytes(b"x")
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"source": "dir", "path": str(llama)}))
    out = tmp_path / "out" / "base"
    out.parent.mkdir()
    assert main("base", Params, run, ["--params", str(params), "--out", str(out)]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        check(tmp_path / "none")


def test_weights_of_unknown_type(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": (2,)}, dtype="I16")
    with pytest.raises(InputError, match="of type I16"):
        read_header(path)


def test_weights_whose_bytes_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": (2,)}, dtype="F32")
    with pytest.raises(InputError, match="do not fit its shape"):
        read_header(path)


def test_copies_byte_for_byte_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    (llama / "README.md").write_text("not a model file")
    out = tmp_path / "out"
    out.mkdir()
    metrics = run(Params(source="dir", path=str(llama)), {}, out)
    assert metrics["parameters"] == 8 * 4 + 4 + sum(
        shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in LAYER.values()
    )
    copied = {path.name for path in out.iterdir()}
    assert copied == {path.name for path in llama.iterdir()} - {"README.md"}
    for name in copied:
        assert (out / name).read_bytes() == (llama / name).read_bytes()


def test_the_shipped_model_passes_its_checks(tmp_path: Path) -> None:
    metrics = run(Params(), {}, tmp_path)
    assert metrics["parameters"] <= 8_000_000
    assert metrics["weights_bytes"] <= 16_000_000
    weights = (tmp_path / "model.safetensors").read_bytes()
    shipped = (SHIPPED / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).digest() == hashlib.sha256(shipped).digest()
    assert json.loads((tmp_path / "pretraining.json").read_text())["loss_curve"]


def test_a_spoilt_copy_of_the_shipped_model_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "copy"))
    truncate(folder)
    with pytest.raises(InputError, match="truncated or damaged"):
        check(folder)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "web"}, "source must be shipped, dir or hub:owner/name"),
        ({"source": "hub:llama"}, "source must name a model as hub:owner/name"),
        ({"source": "hub:a/b"}, "revision must be the model's commit"),
        ({"source": "hub:a/b", "revision": "main"}, "revision must be the model's commit"),
        ({"source": "dir"}, "path is required"),
        ({"source": "shipped", "path": "/x"}, "path is read with source dir only"),
        ({"source": "shipped", "revision": "0" * 40}, "revision is read with source hub: only"),
    ],
)
def test_params_refuse(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Params(**values)
