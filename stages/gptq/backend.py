"""GPTQModel: quantization, and the two engines of the parity gate."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import StageFailed
from stages.core.hostinfo import usable_cores
from stages.gptq.params import Params
from stages.intent.prompt import render
from stages.intent.rows import Row

LOG = "gptqmodel.log"
_errors: list[BaseException] = []
"""What went wrong in the library's threads."""


def isolate(scratch: Path) -> None:
    """Keeps the libraries offline and their caches and logs in `scratch`.

    Call it before any other function here.
    """
    logging.getLogger("accelerate.utils.modeling").setLevel(logging.ERROR)
    os.environ.update(
        HF_HOME=str(scratch / "hf"),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
        GPTQMODEL_DISABLE_GIL_WARNING="1",
        # With one worker, as on two cores, it ends with "parent 'cpu' only has 1".
        GPTQMODEL_CPU_WORKERS=str(max(2, usable_cores())),
    )
    with quiet(scratch / LOG):
        from gptqmodel.looper import loop_processor
        from gptqmodel.utils import threadx
    # Else it makes a folder `logs` where the process runs, and that may be read-only.
    loop_processor._PROJECT_LOG_DIR = scratch / "logs"
    # Else an error in one of its threads ends the process at once, with nothing said or cleaned.
    threadx._DeviceWorker._abort_process = lambda _worker, error: _errors.append(error)


def choose_device(wanted: str) -> str:
    """The device to quantize on; see `stages.runtime.hf.choose_device`."""
    from stages.runtime.hf import choose_device as choose

    return choose(wanted)


def quantize(
    params: Params, merged: Path, calibration: Sequence[Row], folder: Path, device: str
) -> None:
    """Writes the quantized model, without tokenizer files, to `folder`.

    Raises:
        StageFailed: GPTQModel failed.
    """
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.config import AWQConfig, GPTQConfig

    from stages.runtime.hf import load_tokenizer

    torch.manual_seed(params.seed)
    tokenizer = load_tokenizer(merged)
    usual: dict[str, Any] = {
        "bits": params.bits,
        "group_size": params.group_size,
        "device": device,
        "offload_to_disk": False,
    }
    if params.method == "gptq":
        kind, packing = GPTQConfig, BACKEND.GPTQ_TORCH
        usual |= {
            "desc_act": params.desc_act,
            "act_group_aware": not params.desc_act,
            "damp_percent": params.damp_percent,
            "sym": params.symmetric,
        }
    else:
        kind, packing = AWQConfig, BACKEND.AWQ_TORCH
        usual |= {"sym": False}
    rows = [tokens(tokenizer, row) for row in calibration]
    _errors.clear()
    with quiet(folder.parent / ".scratch" / LOG) as shown:

        def finished(layer_idx: int, submodule_finalized: bool) -> None:
            if submodule_finalized:
                print(f"layer {layer_idx + 1}/{layers}", file=shown, flush=True)

        try:
            model = GPTQModel.load(str(merged), kind(**usual), trust_remote_code=False)
            layers = model.model.config.num_hidden_layers
            model.layer_callback = finished
            model.quantize(rows, batch_size=params.batch_rows, backend=packing)
            model.save(str(folder))
            if _errors:
                raise _errors[0]
        except OSError:  # a full disk, for one, has a sentence of its own
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__} {error}".split())
            raise StageFailed(f"GPTQModel could not quantize the model: {said}") from error
    # It has wall times: the same inputs would not give the same bytes.
    (folder / "quant_log.csv").unlink(missing_ok=True)


def tokens(tokenizer: Any, row: Row) -> dict[str, list[int]]:
    """A row as training has it: `[BOS] prompt answer [EOS]`."""
    from stages.runtime.hf import encode

    ids = [
        tokenizer.bos_token_id,
        *encode(tokenizer, render(row.prompt)),
        *encode(tokenizer, row.completion),
        tokenizer.eos_token_id,
    ]
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def merged_engine(folder: Path, device: str) -> Any:
    """The merged model in full precision."""
    from stages.runtime.hf import HFEngine, use_all_cores

    use_all_cores()
    return HFEngine.load(folder, dtype="float32", device=device)


def quantized_engine(folder: Path, device: str) -> Any:
    """The checkpoint, on the kernel that every device has."""
    from stages.runtime.gptq import load

    with quiet(folder.parent / ".scratch" / LOG):
        return load(folder, kernel="torch", device=device)


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[Any]:
    """Sends what the library prints to a file; gives the stream that it would have gone to."""
    shown = sys.stdout
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield shown
