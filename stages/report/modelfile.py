"""An Ollama Modelfile that asks as the model was trained to be asked, and decodes greedily.

Source: Ollama's Modelfile reference, docs/modelfile.md of its repository: TEMPLATE, PARAMETER.
"""

from __future__ import annotations

from pathlib import Path

from stages.intent.prompt import render
from stages.runtime.gguf_file import read_header

PARAMETERS: dict[str, int | str] = {
    "temperature": 0,
    "top_k": 1,
    # Ollama's own defaults are 1.1 and 64 tokens back: an answer repeats its catalog.
    "repeat_penalty": 1,
    "repeat_last_n": 0,
    "num_predict": 96,
    "num_ctx": 2048,
    "stop": "\\n",
}
# A chat has the catalog as its system message and the shopper's words as the user's.
_TEMPLATE = render("{{ if .System }}{{ .System }}\n\nUser:\n{{ end }}{{ .Prompt }}")


def modelfile(file: Path) -> str:
    """The Modelfile beside a GGUF file.

    The prompt is a row's own, `Catalog:`, the lines, a blank line, `User:`, the message; or the
    system message is the first part of it, up to the last line of the catalog.

    Raises:
        InputError: The file is no sound GGUF.
    """
    parameters = "\n".join(
        f'PARAMETER {name} "{value}"' if isinstance(value, str) else f"PARAMETER {name} {value}"
        for name, value in PARAMETERS.items()
    )
    template = first_token(file) + _TEMPLATE
    return f'FROM ./{file.name}\nTEMPLATE """{template}"""\n{parameters}\n'


def first_token(file: Path) -> str:
    """What a prompt must begin with: the text of BOS where the file says that none is added.

    The model was trained with it; a program that goes by the file would leave it out.
    """
    metadata = read_header(file).metadata
    if metadata.get("tokenizer.ggml.add_bos_token", True):
        return ""
    return str(metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.bos_token_id"]])
