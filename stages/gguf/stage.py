"""Converts the merged model to F16, quantizes it, and lets no file through that falls behind.

Outputs: `<Name>-<Encoding>.gguf` for F16 and each encoding, `imatrix.gguf` if one is made,
`variants.json` (a list of `file`, `encoding`, `size_bytes`, `bits_per_weight`) and `parity.json`
(the rows used and, for each model, what `parity.Parity.to_record` gives).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.core.hostinfo import usable_cores
from stages.gguf import naming
from stages.gguf.params import MIN_IMATRIX_ROWS, Params
from stages.gguf.tools import CONVERTER, IMATRIX, QUANTIZE, run_tool
from stages.intent import parity
from stages.intent.prompt import render
from stages.intent.rows import Row, read_rows
from stages.runtime.folders import transformers_folder
from stages.runtime.gguf_file import Header, read_header
from stages.runtime.share import share_cores

IMATRIX_FILE = "imatrix.gguf"
_IMATRIX_CONTEXT_TOKENS = 512


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Makes the files in `out` and holds each against the merged model.

    Raises:
        InputError: an input folder lacks what is needed.
        StageFailed: a tool of llama.cpp failed, or the parity gate.
    """
    merged = transformers_folder(inputs["model"])
    train = read_rows(inputs["data"] / "train.jsonl")
    held_out = parity.sample(
        read_rows(inputs["data"] / "validation.jsonl"), params.parity_rows, params.seed
    )
    threads = params.threads or usable_cores()

    f16 = _convert(params, merged, out)
    header = read_header(f16)
    size_label = str(header.metadata["general.size_label"])
    calibration = parity.sample(train, params.imatrix_rows, params.seed) if params.imatrix else []
    if calibration:
        _make_imatrix(calibration, f16, header, threads)
    files = {"F16": f16}
    for encoding in params.encodings:
        files[encoding] = out / naming.file_name(params, size_label, encoding)
        _quantize(f16, files[encoding], encoding, threads, with_imatrix=bool(calibration))

    records = _check_parity(params, merged, files, held_out, calibration, threads)
    _write_json(out / "parity.json", {"schema": 1, "rows": len(held_out), "models": records})
    variants = [_variant(encoding, path) for encoding, path in files.items()]
    _write_json(out / "variants.json", variants)
    return {
        "variants": variants,
        "parity": {record["name"]: record["exact"] for record in records},
        "imatrix_rows": len(calibration),
    }


def _convert(params: Params, merged: Path, out: Path) -> Path:
    """Writes the F16 file; the converter counts the weights, so the name follows from its header.

    The converter reads the license from a model card only, so it sees the model through links
    beside a card of ours.
    """
    seen = out / "model"
    seen.mkdir()
    for file in merged.iterdir():
        if file.is_file() and file.name != "README.md":
            (seen / file.name).symlink_to(file.resolve())
    (seen / "README.md").write_text(naming.model_card(params), encoding="utf-8")
    overrides = seen / "metadata.json"
    _write_json(overrides, naming.metadata(params))
    draft = out / "f16.gguf"
    print("converting to F16", flush=True)
    command = [CONVERTER, seen, "--outfile", draft, "--outtype", "f16", "--metadata", overrides]
    run_tool("F16", command, out, r"Writing: +\d+%|blk\.\d+\.attn_q")
    shutil.rmtree(seen)
    label = str(read_header(draft).metadata["general.size_label"])
    return draft.rename(out / naming.file_name(params, label, "F16"))


def _make_imatrix(rows: Sequence[Row], f16: Path, header: Header, threads: int) -> None:
    """Measures activations on training rows, in the form that the model was trained on."""
    if len(rows) < MIN_IMATRIX_ROWS:
        raise InputError(
            f"train.jsonl has {len(rows)} rows: an importance matrix needs at least "
            f"{MIN_IMATRIX_ROWS}; give more rows or set gguf.imatrix to false"
        )
    tokens = header.metadata["tokenizer.ggml.tokens"]
    bos, eos = (tokens[header.metadata[f"tokenizer.ggml.{end}_token_id"]] for end in ("bos", "eos"))
    text = f16.with_name("imatrix.txt")
    with text.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{bos}{render(row.prompt)}{row.completion}{eos}" for row in rows)
    architecture = header.metadata["general.architecture"]
    context = min(_IMATRIX_CONTEXT_TOKENS, header.metadata[f"{architecture}.context_length"])
    print(f"importance matrix from {len(rows)} training rows", flush=True)
    command = [
        IMATRIX, "-m", f16.name, "-f", text.name, "-o", IMATRIX_FILE, "-c", str(context),
        "-t", str(threads), "-ngl", "0", "--no-ppl", "--parse-special",
    ]  # fmt: skip
    run_tool("importance matrix", command, f16.parent, r"computing over.*|ETA.*")
    text.unlink()


def _quantize(f16: Path, target: Path, encoding: str, threads: int, *, with_imatrix: bool) -> None:
    # The file records the matrix's path: a bare name keeps its bytes the same everywhere.
    weights = ["--imatrix", IMATRIX_FILE] if with_imatrix else []
    command = [QUANTIZE, *weights, f16.name, target.name, encoding, str(threads)]
    run_tool(encoding, command, f16.parent, r"\[ *\d+/ *\d+\] *\S+")
    header = read_header(target)
    print(
        f"{encoding}: {header.file_bytes / 2**20:.1f} MiB, "
        f"{header.bits_per_weight:.2f} bits a weight",
        flush=True,
    )


def _check_parity(
    params: Params,
    merged: Path,
    files: Mapping[str, Path],
    held_out: Sequence[Row],
    calibration: Sequence[Row],
    threads: int,
) -> list[dict[str, Any]]:
    """Asks the merged model and every file for the same rows; raises where one fell behind.

    Files are asked side by side: llama.cpp leaves the interpreter to the others while it computes.
    """
    from stages.gguf import backend

    tokenized = [*held_out, *calibration]
    texts = [render(row.prompt) for row in tokenized] + [row.completion for row in tokenized]
    engine: Any = backend.merged_engine(merged, threads)
    expected_ids = [engine.encode(text) for text in texts]
    reference = parity.answers("merged", engine, held_out)
    del engine
    baseline = parity.compare("merged", held_out, reference, reference)
    running, own_threads = share_cores(threads, len(files), files["F16"].stat().st_size)

    def check(encoding: str) -> parity.Parity:
        engine = backend.gguf_engine(files[encoding], own_threads)
        parity.check_tokens(files[encoding].name, texts, expected_ids, map(engine.encode, texts))
        answers = parity.answers(encoding, engine, held_out)
        engine.close()
        compared = parity.compare(encoding, held_out, reference, answers)
        agreed = compared.agreement["exact"]["value"]
        print(
            f"parity {encoding}: {compared.exact:.1%} exact, merged {baseline.exact:.1%}, "
            f"same answer on {agreed:.1%} of {len(held_out)} rows",
            flush=True,
        )
        least = params.min_f16_agreement if encoding == "F16" else 0.0
        parity.gate(compared, params.accepted_drop(encoding), least)
        return compared

    with ThreadPoolExecutor(running) as pool:
        compared = list(pool.map(check, files))
    return [one.to_record() for one in (baseline, *compared)]


def _variant(encoding: str, path: Path) -> dict[str, Any]:
    header = read_header(path)
    return {
        "file": path.name,
        "encoding": encoding,
        "size_bytes": header.file_bytes,
        "bits_per_weight": round(header.bits_per_weight, 4),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
