"""A folder that a hub upload takes as it is: `python -m stages.report.export --report DIR ...`.

It holds README.md (the model card), the GGUF files, a Modelfile, LICENSE, report.json, SHA256SUMS,
and with `--merged` the transformers model: config, safetensors and tokenizer at the top, where
`from_pretrained` looks for them. The folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stages.core import artifact, params
from stages.core.errors import CartwrightError, InputError, StageFailed
from stages.report import card
from stages.report.check import read_report
from stages.report.modelfile import modelfile
from stages.report.params import Params
from stages.report.recommend import listed
from stages.report.schema import Report, Variant

SUMS = "SHA256SUMS"
ALL = "all"
_MERGED_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
)
_BLOCK_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports; returns the exit code (2 for wrong input, 1 if what was made does not hold)."""
    given = _parse(arguments)
    try:
        names = export(
            given.report, given.gguf, given.variants, given.merged, given.license, given.out
        )
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print("\n".join(names))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.report.export", description="A folder for a hub upload."
    )
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="its artifact")
    parser.add_argument("--gguf", type=Path, required=True, metavar="DIR", help="the GGUF files")
    parser.add_argument("--variants", default="", help="names with commas, or all; recommended one")
    parser.add_argument("--merged", type=Path, metavar="DIR", help="the transformers model")
    parser.add_argument("--license", type=Path, required=True, metavar="FILE", help="its text")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    return parser.parse_args(arguments)


def export(
    folder: Path, gguf: Path, variants: str, merged: Path | None, license_file: Path, out: Path
) -> list[str]:
    """Makes the folder.

    Args:
        folder: A report's artifact.
        gguf: Where the report's GGUF files are.
        variants: Which of them: names with commas between, `all`, or empty for the recommended one.
        merged: A transformers model's folder; None to leave it out.
        license_file: The license's text.
        out: The folder to create.

    Returns:
        The names of its files.

    Raises:
        InputError: Something is missing, not what the report is of, or `out` is there.
        StageFailed: The card does not hold on the hub.
    """
    if out.exists():
        raise InputError(f"--out {out}: exists already; name a new folder or delete it")
    report = read_report(folder)
    given = params.build(
        Params, artifact.read_manifest(folder)["params"], lambda name: f"{folder}: report.{name}"
    )
    chosen = _chosen(report, variants)
    text = card.render(report, given, exported=[str(one["file"]) for one in chosen],
                       has_merged=merged is not None)  # fmt: skip
    _check_card(text)
    try:
        made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from error
    try:
        sums = [(str(one["file"]), _copy_gguf(one, gguf, made)) for one in chosen]
        if merged is not None:
            sums += _copy_merged(merged, made)
        first = next((one for one in chosen if one["recommended"]), chosen[0])
        for name, content in (
            ("README.md", text),
            ("Modelfile", modelfile(made / str(first["file"]))),
            ("LICENSE", license_file.read_text(encoding="utf-8")),
            ("report.json", (folder / "report.json").read_text(encoding="utf-8")),
        ):
            (made / name).write_text(content, encoding="utf-8")
            sums.append((name, hashlib.sha256(content.encode()).hexdigest()))
        lines = [f"{digest}  {name}\n" for name, digest in sorted(sums)]
        (made / SUMS).write_text("".join(lines), encoding="utf-8")
        made.chmod(0o755)
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return sorted(path.name for path in out.iterdir())


def _chosen(report: Report, variants: str) -> list[Variant]:
    files = {one["name"]: one for one in report["variants"] if one["file"]}
    if not variants:
        return [one for one in files.values() if one["recommended"]]
    names = list(files) if variants == ALL else [name.strip() for name in variants.split(",")]
    for name in names:
        if name not in files:
            raise InputError(
                f"--variants {name}: the report has no such file; there are {listed(list(files))}"
            )
    return [files[name] for name in dict.fromkeys(names)]


def _copy_gguf(variant: Variant, folder: Path, out: Path) -> str:
    """Copies a file and holds it to the hash that the report has of it."""
    name = str(variant["file"])
    if Path(name).name != name or not (folder / name).is_file():
        raise InputError(f"{folder / name}: no such file, though the report is of it")
    digest = _copy(folder / name, out / name)
    if variant["sha256"] not in (None, digest):
        raise InputError(
            f"{folder / name}: not the file that was measured (its SHA-256 is {digest[:12]}…, the "
            f"report's {str(variant['sha256'])[:12]}…); make the report again"
        )
    return digest


def _copy_merged(folder: Path, out: Path) -> list[tuple[str, str]]:
    files = sorted({file for pattern in _MERGED_FILES for file in folder.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise InputError(f"{folder} holds no *.safetensors weights to export")
    return [(file.name, _copy(file, out / file.name)) for file in files]


def _copy(source: Path, target: Path) -> str:
    """Copies a file; its SHA-256."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _check_card(text: str) -> None:
    """Reads the card as the hub's own library does; nothing is asked of the hub."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(text, ignore_metadata_errors=False).data
    except ValueError as error:
        raise StageFailed(f"the model card does not hold on the hub: {error}") from error
    if not data.eval_results:
        raise StageFailed("the model card has no results that the hub would show")


if __name__ == "__main__":
    raise SystemExit(main())
