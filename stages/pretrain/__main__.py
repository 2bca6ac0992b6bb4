"""Makes the shipped base model: `python -m stages.pretrain tokenizer | train | evaluate | widen`.

Run by hand, on a machine with a GPU; no stage of the pipeline. From nothing:

```
python -m stages.pretrain tokenizer --data-seed 1 --out stages/base/shipped
python -m stages.pretrain train --data-seed 1 --tokenizer stages/base/shipped --out DIR
python -m stages.pretrain evaluate --data-seed 1 --model DIR
```

`widen` gives a model the shape of Llama 3.2 1B, for measurements: it answers the same.

`train` leaves `pretrained.txt` beside the weights, the frames that the model has read. When the
weights are taken into `stages/base/shipped`, it goes into `stages/data/languages`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stages.data.corpus import corpus
from stages.data.generate import DEFAULT_LANGUAGES, generate
from stages.data.grammar import PRETRAINED_FRAMES, all_frames, load, pretrained_frames
from stages.pretrain.packing import Shard, make, shard_seed, stream

MANIFEST = "manifest.json"
# Shards are numbered from 0; what is never trained on comes from far above.
TOKENIZER_SHARD = 1_000_000
HELD_OUT_SHARD = 2_000_000
FRESH_SHARD = 3_000_000


def main() -> int:
    """Runs the chosen step."""
    given = _parse()
    {"tokenizer": make_tokenizer, "train": train, "evaluate": evaluate, "widen": widen}[given.step](
        given
    )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.pretrain", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    tokenizer = steps.add_parser("tokenizer", help="train the tokenizer on generated rows")
    tokenizer.add_argument("--texts", type=int, default=30_000)
    tokenizer.add_argument("--vocabulary", type=int, default=4096, help="pieces")
    tokenizer.add_argument("--out", type=Path, required=True)

    trainer = steps.add_parser("train", help="train the model from scratch")
    trainer.add_argument("--tokenizer", type=Path, required=True, help="a model folder")
    trainer.add_argument("--out", type=Path, required=True)
    trainer.add_argument("--init", type=Path, help="go on from the weights of this model folder")
    trainer.add_argument(
        "--llama-1b", action="store_true", help="widen --init to the shape of Llama 3.2 1B"
    )
    trainer.add_argument("--first-shard", type=int, default=0, help="go on where it stopped")
    trainer.add_argument("--steps", type=int, default=9_000)
    trainer.add_argument("--limit-sec", type=float, help="stop after so long")
    trainer.add_argument("--lines", type=int, default=64, help="packed lines of a batch")
    trainer.add_argument("--width", type=int, default=1024, help="tokens of a line")
    trainer.add_argument("--hidden", type=int, default=256)
    trainer.add_argument("--layers", type=int, default=8)
    trainer.add_argument("--learning-rate", type=float, default=2e-3)
    trainer.add_argument("--warmup-steps", type=int, default=200)
    trainer.add_argument("--prompt-weight", type=float, default=0.1)
    trainer.add_argument("--disguised", type=float, default=0.4, help="share of renamed texts")
    trainer.add_argument("--shard-texts", type=int, default=8_000)
    trainer.add_argument("--processes", type=int, default=max(1, _cores() - 2))
    trainer.add_argument("--report-every", type=int, default=100, help="steps")
    trainer.add_argument("--fresh-rows", type=int, default=1_500, help="rows for exact match")
    trainer.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    trainer.add_argument("--commit", help="git commit, where the code stands in no repository")

    evaluator = steps.add_parser("evaluate", help="exact match on fresh rows, into the manifest")
    evaluator.add_argument("--model", type=Path, required=True)
    evaluator.add_argument("--rows", type=int, default=1_500)
    evaluator.add_argument("--device", choices=("cpu", "cuda"), default="cpu")

    widener = steps.add_parser("widen", help="a model of 1.24 billion weights that answers alike")
    widener.add_argument("--model", type=Path, required=True, help="a folder of ours")
    widener.add_argument("--layers", type=int, default=16)
    widener.add_argument("--out", type=Path, required=True)
    for step in (tokenizer, trainer, evaluator):
        step.add_argument("--data-seed", type=int, required=True)
    return parser.parse_args()


def make_tokenizer(given: argparse.Namespace) -> None:
    """Trains the tokenizer and writes its files."""
    from stages.pretrain import tokenizer

    texts = corpus(shard_seed(given.data_seed, TOKENIZER_SHARD), given.texts)
    tokenizer.train(tokenizer.training_text(texts, given.data_seed), given.out, given.vocabulary)
    print(f"tokenizer of {given.vocabulary} pieces written to {given.out}", flush=True)


def train(given: argparse.Namespace) -> None:
    """Trains the model, saves it with its tokenizer and a manifest, and measures it."""
    import shutil

    import torch

    from stages.pretrain import loop, model, tokenizer

    started_sec = time.monotonic()
    torch.manual_seed(given.data_seed)
    torch.set_float32_matmul_precision("high")
    first = Shard(
        given.data_seed,
        given.first_shard,
        given.shard_texts,
        given.width,
        given.tokenizer,
        given.disguised,
    )
    if given.init:
        network = model.load(given.init)
        if given.llama_1b:
            network = model.widen(network, model.llama_1b())
        network = model.grow(network, given.layers)
    else:
        vocabulary = tokenizer.load(given.tokenizer).vocab_size()
        network = model.build(vocabulary, given.hidden, given.layers)
    on_gpu = given.device == "cuda"
    network.set_attn_implementation("flex_attention" if on_gpu else "sdpa")
    network.to(given.device)
    schedule = loop.Schedule(
        given.steps, given.learning_rate, given.warmup_steps, given.prompt_weight, given.limit_sec
    )
    curve: list[dict[str, Any]] = []

    def progress(point: dict[str, Any]) -> None:
        curve.append(point)
        print(json.dumps(point), flush=True)

    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        held = make(replace(first, number=HELD_OUT_SHARD, texts=2_000))
        held_out = [
            (
                held.tokens[at : at + given.lines],
                held.documents[at : at + given.lines],
                held.targets[at : at + given.lines],
            )
            for at in range(0, len(held.tokens) // given.lines * given.lines, given.lines)
        ]
        batches = stream(pool, first, 2 * given.processes, given.lines)
        loop.train(network, batches, held_out, schedule, given.report_every, progress)
        pool.shutdown(wait=False, cancel_futures=True)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(given.tokenizer / name, given.out / name)
    model.save(network, given.out)
    manifest = {
        "name": "cartwright-1b" if given.llama_1b else "cartwright-7m",
        "command": shlex.join(["python", "-m", "stages.pretrain", *sys.argv[1:]]),
        "data_seed": given.data_seed,
        "git_commit": given.commit or _git_commit(),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "tokens": curve[-1]["tokens"],
        "schedule": asdict(schedule) | {"batch_tokens": given.lines * given.width},
        "train_sec": curve[-1]["elapsed_sec"],
        "wall_sec": round(time.monotonic() - started_sec, 1),
        "host": _host(),
        "loss_curve": curve,
    }
    frames = sorted(pretrained_frames().union(*map(_train_frames, DEFAULT_LANGUAGES)))
    text = "".join(f"{name}\n" for name in frames)
    (given.out / PRETRAINED_FRAMES.name).write_text(text, encoding="utf-8")
    manifest["frames_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    if given.init:
        manifest["continues"] = json.loads((given.init / MANIFEST).read_text(encoding="utf-8"))
    _write_manifest(given.out, manifest)
    if given.fresh_rows:
        _measure(given.out, given.data_seed, given.fresh_rows, given.device, constrained=False)


def _train_frames(language: str) -> set[str]:
    return {frame.id for frame in all_frames(load(language), "train")}


TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def evaluate(given: argparse.Namespace) -> None:
    """Adds the exact match on fresh rows to a trained model's manifest."""
    _measure(given.model, given.data_seed, given.rows, given.device, constrained=True)


def widen(given: argparse.Namespace) -> None:
    """Saves a model widened and grown to the shape of Llama 3.2 1B, in float16 (5 GB of memory)."""
    import shutil

    import torch

    from stages.pretrain import model

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    network = model.widen(model.load(given.model).half(), model.llama_1b())
    network = model.grow(network, given.layers)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(given.model / name, given.out / name)
    model.save(network, given.out)
    weights = sum(one.numel() for one in network.parameters())
    print(f"{weights:,} weights written to {given.out}", flush=True)


def _measure(folder: Path, data_seed: int, count: int, device: str, *, constrained: bool) -> None:
    """Scores a model on rows of an unused seed, written freely and, if asked, over the trie.

    `train` rows have the frames and goods that the model was trained on, in new combinations;
    those of `validation` it never saw.
    """
    from stages.intent import decode, rules
    from stages.intent.metrics import score, summarize
    from stages.intent.trie import AnswerTrie
    from stages.runtime.hf import HFEngine, use_all_cores

    use_all_cores()
    engine = HFEngine.load(folder, dtype="float32", device=device)
    found: dict[str, Any] = {}
    for split in ("train", "validation"):
        rows = list(generate(shard_seed(data_seed, FRESH_SHARD), split, count))
        prompts = [decode.prompt_tokens(engine, row.catalog, row.message) for row in rows]
        texts = [engine.decode(ids) for ids in engine.greedy_batch(prompts, 96, 256)]
        answers = {"greedy": texts}
        if constrained:
            answers["constrained"] = [
                decode.constrained(
                    engine,
                    AnswerTrie(engine.encode, row.catalog),
                    prompt,
                    rules.guess(row.message),
                ).answer.to_json()
                for row, prompt in zip(rows, prompts, strict=True)
            ]
        for way, written in answers.items():
            summary = summarize(rows, [score(r, t) for r, t in zip(rows, written, strict=True)])
            found.setdefault(split, {})[way] = summary
            by_language = {k: round(v["value"], 4) for k, v in summary["by_language"].items()}
            fields = {k: round(summary[k]["value"], 4) for k in ("action", "product", "quantity")}
            print(f"{split} {way}: exact {summary['exact']['value']:.4f} of {count}", flush=True)
            print(f"  {fields} {by_language}", flush=True)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    _write_manifest(folder, manifest | {"fresh_rows": found})


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _git_commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _host() -> dict[str, Any]:
    import torch

    packages = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "numpy")
    return {
        "machine": platform.machine(),
        "cores": _cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


if __name__ == "__main__":
    raise SystemExit(main())
