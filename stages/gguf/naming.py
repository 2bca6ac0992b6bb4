"""Names and metadata of the files.

Source: the GGUF naming convention,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention
"""

from __future__ import annotations

from typing import Any

from stages.gguf.params import Params


def file_name(params: Params, size_label: str, encoding: str) -> str:
    """`<BaseName>-<SizeLabel>-<FineTune>-<Version>-<Encoding>.gguf`, without an empty FineTune."""
    parts = (params.model_name, size_label, params.finetune, params.version, encoding)
    return "-".join(part.replace(" ", "-") for part in parts if part) + ".gguf"


def metadata(params: Params) -> dict[str, Any]:
    """The converter's metadata file; the size label is left to it, since it counts the weights."""
    values: dict[str, Any] = {
        "general.name": f"{params.model_name} {params.version}",
        "general.basename": params.model_name.replace(" ", "-"),
        "general.version": params.version,
        "general.description": params.description,
        "general.languages": list(params.languages),
        "general.tags": ["intent", "e-commerce", "cartwright"],
    }
    if params.finetune:
        values["general.finetune"] = params.finetune.replace(" ", "-")
    return values


def model_card(params: Params) -> str:
    """A front matter with the license, which the converter takes from nowhere else."""
    return f"---\nlicense: {params.license}\n---\n"
