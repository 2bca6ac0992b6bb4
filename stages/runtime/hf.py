"""The transformers engine: safetensors models on a CPU or a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache
from transformers.utils.logging import disable_progress_bar

from stages.core.errors import InputError
from stages.intent.decode import Engine

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def use_all_cores() -> int:
    """Makes torch use the cores that this process may run on, and returns their number."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores


def choose_device(wanted: str) -> str:
    """The device that `auto`, `cpu` or `cuda` means here, `cpu` or `cuda`.

    Raises:
        InputError: a GPU is wanted, by name or by a torch that is built for one, and none is there.
    """
    if wanted == "cpu" or (wanted == "auto" and torch.version.cuda is None):
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(
            f"device is {wanted} and torch {torch.__version__} sees no GPU: start the container "
            "with one, or set device: cpu"
        )
    return "cuda"


class HFEngine(Engine):
    """One sequence on a transformers causal language model, its key-value cache kept.

    Args:
        model: a causal language model in evaluation mode; adapters and quantized layers may be in.
        tokenizer: the tokenizer of its folder.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.model.eval()
        self._cache = DynamicCache()
        for name in ("bos_token_id", "eos_token_id"):
            if getattr(tokenizer, name) is None:
                raise InputError(f"the tokenizer has no {name}: an intent model needs BOS and EOS")

    @classmethod
    def load(cls, folder: Path, *, dtype: str = "float32", device: str = "cpu") -> HFEngine:
        """Loads a model folder; nothing is fetched and no code of the folder is run.

        Args:
            folder: config.json, safetensors weights and tokenizer files.
            dtype: `float32`, `bfloat16` or `float16`.
            device: `cpu`, `cuda` or `cuda:<index>`.

        Raises:
            InputError: a GPU is asked for and there is none, or the dtype is unknown.
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"device is {device} but no GPU is visible here: use device cpu")
        disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        return cls(model.to(device), load_tokenizer(folder))

    @property
    def bos_id(self) -> int:
        return int(self.tokenizer.bos_token_id)

    @property
    def eos_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text)

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text

    @torch.inference_mode()
    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> list[Sequence[float]]:
        """See `Engine`; the logits are float32, on the CPU.

        Raises:
            ValueError: no token is given, or `n_past` lies beyond what was fed before.
        """
        if not tokens:
            raise ValueError("eval needs at least one token")
        fed = int(self._cache.get_seq_length())
        if n_past > fed:
            raise ValueError(f"n_past is {n_past}: only {fed} tokens were fed")
        if n_past == 0:
            self._cache = DynamicCache()
        elif n_past < fed:
            self._cache.crop(n_past - fed)
        output = self.model(
            input_ids=torch.tensor([list(tokens)], device=self.model.device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor(list(wanted), device=self.model.device),
        )
        return list(output.logits[0].float().cpu())

    def argmax(self, logits: Sequence[float]) -> int:
        return int(torch.as_tensor(logits).argmax())

    @torch.inference_mode()
    def greedy_batch(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, batch: int = 64
    ) -> list[list[int]]:
        """Free greedy decoding of many prompts, those of like length together.

        Returns:
            The tokens after each prompt, in the prompts' order, EOS left out.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        for indices in _by_length(prompts, batch):
            width = max(len(prompts[i]) for i in indices)
            # Padding stands on the left, so that every row's next token is the last column's.
            ids = torch.full((len(indices), width), self.eos_id)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(indices):
                ids[row, width - len(prompts[i]) :] = torch.tensor(list(prompts[i]))
                mask[row, width - len(prompts[i]) :] = 1
            output = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=self.eos_id,
                pad_token_id=self.eos_id,
            )
            for i, generated in zip(indices, output[:, width:].tolist(), strict=True):
                end = generated.index(self.eos_id) if self.eos_id in generated else len(generated)
                answers[i] = generated[:end]
        return answers


def load_nf4(folder: Path, *, compute_dtype: str, dtype: str, device: str | int) -> Any:
    """A model folder's weights in NF4 with double quantization, by bitsandbytes.

    Args:
        folder: as for `HFEngine.load`.
        compute_dtype: dtype in which the quantized layers compute.
        dtype: dtype of all else.
        device: `cpu`, `cuda` or a GPU's index.
    """
    return AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[compute_dtype],
        ),
        dtype=DTYPES[dtype],
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, from its files alone."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text alone: nothing is added, and special tokens in it are plain text."""
    # The tokenizer's own library: what transformers does around it takes longer than all else.
    library = tokenizer.backend_tokenizer
    library.encode_special_tokens = True
    # A call of the tokenizer with a length leaves these behind.
    library.no_truncation()
    library.no_padding()
    ids: list[int] = library.encode(text, add_special_tokens=False).ids
    return ids


def _by_length(items: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Indices of items in batches, ordered by length so that little is padded."""
    order = sorted(range(len(items)), key=lambda i: len(items[i]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
