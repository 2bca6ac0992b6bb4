"""auto-gptq, archived in 2025, on a transformers of its time.

It offers what `stages.gptq.backend` does. What that old transformers asks for is all here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import InputError, StageFailed
from stages.gptq.backend import quiet, tokens
from stages.gptq.params import Params
from stages.intent.rows import Row

LOG = "auto_gptq.log"
_UNUSED = ("datasets", "gekko")
"""What auto-gptq imports for its evaluation and its CPU kernels, which nothing here calls."""
_PACKED = (".qweight", ".qzeros", ".scales", ".g_idx")
_LAYER_BEGINS = "Start quantizing layer "


def isolate(scratch: Path) -> None:
    """Keeps the libraries offline and their caches and logs in `scratch`.

    Call it before any other function here.
    """
    os.environ.update(
        HF_HOME=str(scratch / "hf"),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
    )
    # It warns of every kernel that is not compiled: none is.
    logging.getLogger("auto_gptq").setLevel(logging.ERROR)
    with quiet(scratch / LOG):
        # Before the stand-ins, which they would take for the packages.
        import peft  # noqa: F401
        import transformers  # noqa: F401

        for name in _UNUSED:
            module = types.ModuleType(name)
            vars(module)["__getattr__"] = lambda _name: None
            sys.modules[name] = module
        try:
            import auto_gptq  # noqa: F401
        finally:
            for name in _UNUSED:
                del sys.modules[name]
    # Its own handler writes to the stream that standard error was when it was imported.
    logging.getLogger("auto_gptq.modeling._base").handlers = [_Progress()]


def choose_device(wanted: str) -> str:
    """`cuda`, for there is no other.

    Raises:
        InputError: torch sees no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"device is {wanted} and torch {torch.__version__} sees no GPU: auto-gptq quantizes on "
            "an NVIDIA GPU alone; start the container with one, or set gptq.backend to gptqmodel, "
            "which also runs on a CPU"
        )
    return "cuda"


def quantize(
    params: Params, merged: Path, calibration: Sequence[Row], folder: Path, device: str
) -> None:
    """Writes the quantized model, without tokenizer files, to `folder`.

    Raises:
        InputError: auto-gptq does not know the kind of model.
        StageFailed: auto-gptq failed.
    """
    import torch
    from auto_gptq import BaseQuantizeConfig
    from auto_gptq.modeling.auto import GPTQ_CAUSAL_LM_MODEL_MAP

    from stages.runtime.hf import load_tokenizer

    config = _config(merged)
    kind = GPTQ_CAUSAL_LM_MODEL_MAP.get(config["model_type"])
    if kind is None:
        raise InputError(
            f"auto-gptq does not know models of type {config['model_type']}: set gptq.backend to "
            "gptqmodel"
        )
    torch.manual_seed(params.seed)
    tokenizer = load_tokenizer(merged)
    # Padding counts in its Hessians: rows of like length, side by side, need the least.
    rows = sorted((tokens(tokenizer, row) for row in calibration), key=_length)
    how: dict[str, Any] = {
        "bits": params.bits,
        "group_size": params.group_size,
        "damp_percent": params.damp_percent,
        "desc_act": params.desc_act,
        "sym": params.symmetric,
        "static_groups": False,
        "true_sequential": True,
    }
    with quiet(folder.parent / ".scratch" / LOG) as shown:
        _Progress.stream = shown
        try:
            # Not by its own loader, which lets a config name code to run.
            plain = _load(merged, config, "float16", device)
            names = set(plain.state_dict())
            model = kind(plain, False, BaseQuantizeConfig(**how))
            model.quantize(rows, batch_size=params.batch_rows)
        except OSError:  # a full disk, for one, has a sentence of its own
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__} {error}".split())
            raise StageFailed(f"auto-gptq could not quantize the model: {said}") from error
    _save(model.model, names, config, how, folder)


def _save(
    model: Any, names: set[str], config: dict[str, Any], how: dict[str, Any], folder: Path
) -> None:
    """Writes weights and configuration.

    Not by auto-gptq's own function, which adds a bias of zeros to every layer and a copy of the
    embedding for a tied head, and writes the folder's path into the configuration.

    Args:
        model: the quantized model.
        names: the tensors that it had before.
        config: as `_config` gives it.
        how: auto-gptq's settings.
        folder: a folder to create.
    """
    from safetensors.torch import save_file

    if config.get("tie_word_embeddings"):
        names = names - set(model._tied_weights_keys)
    tensors = {
        name: value.cpu().contiguous()
        for name, value in model.state_dict().items()
        if name in names or name.endswith(_PACKED)
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    how = {"quant_method": "gptq", "checkpoint_format": "gptq", **how}
    config = {**config, "torch_dtype": "float16", "quantization_config": how}
    for name, values in (("config.json", config), ("quantize_config.json", how)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def merged_engine(folder: Path, device: str) -> Any:
    """The merged model in full precision."""
    from stages.runtime.hf import HFEngine, load_tokenizer, use_all_cores

    use_all_cores()
    return HFEngine(_load(folder, _config(folder), "float32", device), load_tokenizer(folder))


def quantized_engine(folder: Path, device: str) -> Any:
    """The checkpoint, on auto-gptq's plain torch kernel.

    Not by its own loader, which loses an embedding that is tied to the head.
    """
    import torch
    from auto_gptq.modeling._utils import make_quant
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.runtime.gptq import check
    from stages.runtime.hf import HFEngine, load_tokenizer

    how = check(folder)
    tensors = load_file(folder / "model.safetensors")
    layers = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    with quiet(folder.parent / ".scratch" / LOG):
        config = AutoConfig.for_model(**_config(folder))
        model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float16)
        make_quant(
            model,
            layers,
            how["bits"],
            how["group_size"],
            desc_act=how["desc_act"],
            disable_exllama=True,
            disable_exllamav2=True,
        )
        unread = model.load_state_dict(tensors, strict=False).unexpected_keys
    assert not unread, unread
    return HFEngine(model.to(device), load_tokenizer(folder))


def _config(folder: Path) -> dict[str, Any]:
    """A model's config.json in the words of transformers 4, which 5 and others read too.

    transformers 5 has RoPE's settings in one mapping, which 4 would pass over in silence.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    if rope := config.pop("rope_parameters", None):
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    return config


def _load(folder: Path, config: dict[str, Any], dtype: str, device: str) -> Any:
    """The model of a folder; as in `HFEngine.load`, nothing is fetched and none of its code run."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.runtime.hf import DTYPES

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=AutoConfig.for_model(**config),
        torch_dtype=DTYPES[dtype],
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    return model.to(device)


def _length(row: dict[str, list[int]]) -> int:
    return len(row["input_ids"])


class _Progress(logging.Handler):
    """Shows which layer is being quantized."""

    stream: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_LAYER_BEGINS):
            print(f"layer {text.removeprefix(_LAYER_BEGINS)}", file=self.stream, flush=True)
