"""A project of three tiny stages around the real core, host and tasks.

`words` writes a file, `count` reads it slowly, `sum` reads both. They do what their parameters
say: wait, fail, fill the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PIPELINE = """\
stages:
  words:
    image: {cpu: toy}
    outputs: [words.txt]
    files: [extra]
  count:
    image: {cpu: toy, gpu: toy-gpu}
    inputs: {words: words}
    outputs: [count.json, "parts/*.bin"]
  sum:
    image: {cpu: toy}
    inputs: {count: count, words: words}
    outputs: [sum.json]
"""
PROFILE = """\
words:
  text: one two three
count:
  seconds: 0.0
sum: {}
"""
DOCKERFILE = """\
ARG BASE_IMAGE=debian:bookworm-slim
ARG UNUSED=1
FROM ${BASE_IMAGE} AS python
RUN apt-get install python3
FROM python AS toy
COPY images/toy/requirements.lock /lock
COPY stages/words stages/words
FROM python AS toy-gpu
RUN --mount=type=bind,source=images/toy-gpu/requirements.lock,target=/lock \\
    pip install -r /lock
COPY --from=toy /lock /other
"""
MAIN = """\
from stages.core.entry import main
from stages.{name}.params import Params
from stages.{name}.stage import run

if __name__ == "__main__":
    raise SystemExit(main("{name}", Params, run))
"""
HEAD = """\
from dataclasses import dataclass

from stages.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Params:
"""
PARAMS = {
    "words": HEAD
    + """\
    text: str
    extra: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.text:
            raise InputError("text must not be empty")
""",
    "count": HEAD
    + """\
    seconds: float = 0.0
    fail: str = ""
    scales: tuple[float, ...] = (1.0,)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise InputError(f"seconds must be 0 or more, not {self.seconds}")
""",
    "sum": HEAD + "    verbose: bool = False\n    seed: int = 0\n",
}
STAGES = {
    "words": """\
from pathlib import Path


def run(params, inputs, out):
    extra = Path(params.extra).read_text() if params.extra else ""
    (out / "words.txt").write_text(params.text + extra)
    return {"characters": len(params.text)}
""",
    "count": """\
import json
import time

from stages.core.errors import InputError, StageFailed


def run(params, inputs, out):
    print("counting", flush=True)
    (out / "parts").mkdir()
    for part in range(20):
        (out / "parts" / f"{part}.bin").write_bytes(bytes([part]) * 1000)
        time.sleep(params.seconds / 20)
    if params.fail == "input":
        raise InputError("rows.jsonl:3: quantity must be a whole number from 1, not 1.5")
    if params.fail == "gate":
        raise StageFailed("parity: row 7 differs")
    if params.fail == "bug":
        raise ValueError("a bug of ours")
    if params.fail == "import":
        import package_that_nobody_has
    if params.fail == "disk":
        (out / "big").symlink_to("/dev/full")
        (out / "big").write_bytes(b"x" * 100_000)
    if params.fail == "wrapped disk":
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    if params.fail == "output":
        return {}
    words = (inputs["words"] / "words.txt").read_text().split()
    (out / "count.json").write_text(json.dumps(len(words)))
    return {"words": len(words)}
""",
    "sum": """\
import json


def run(params, inputs, out):
    count = json.loads((inputs["count"] / "count.json").read_text())
    text = (inputs["words"] / "words.txt").read_text()
    (out / "sum.json").write_text(json.dumps(count + len(text)))
    return {"sum": count + len(text)}
""",
}


class Project:
    """A checkout of the toy project.

    Attributes:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("core", "host"):
            shutil.copytree(ROOT / "stages" / name, root / "stages" / name, ignore=ignore)
        shutil.copy(ROOT / "stages" / "__init__.py", root / "stages")
        shutil.copy(ROOT / "tasks.py", root)
        for name, text in STAGES.items():
            self.write(f"stages/{name}/__init__.py", "")
            self.write(f"stages/{name}/__main__.py", MAIN.format(name=name))
            self.write(f"stages/{name}/params.py", PARAMS[name])
            self.write(f"stages/{name}/stage.py", text)
        self.write("stages/pipeline.yaml", PIPELINE)
        self.write("stages/profiles/toy.yaml", PROFILE)
        self.write("images/Dockerfile", DOCKERFILE)
        self.write("images/toy/requirements.lock", "pyyaml==6.0.3\n")
        self.write("images/toy-gpu/requirements.lock", "torch==2.13.0\n")

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def replace(self, path: str, old: str, new: str) -> None:
        """Edit a file of the project."""
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        self.write(path, text.replace(old, new))

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start an `invoke` command in the project."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.root,
            env={**clean_environment(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def invoke(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run an `invoke` command in the project."""
        process = self.start(*words, **environment)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`invoke run` of the toy profile on the bare host."""
        return self.invoke("run", "--profile", "toy", "--local", *words)

    def states(self, *words: str) -> dict[str, tuple[str, list[str]]]:
        """State and reasons of each stage."""
        done = self.invoke("status", "--profile", "toy", "--local", "--json", *words)
        assert done.returncode == 0, done.stderr
        return {one["stage"]: (one["state"], one["reasons"]) for one in json.loads(done.stdout)}

    def manifests(self) -> dict[Path, dict[str, Any]]:
        """Every folder that a reader would take for complete, with its manifest."""
        found = sorted((self.root / "artifacts" / "toy").glob("*/[!.]*/manifest.json"))
        return {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in found}

    def leftovers(self) -> list[Path]:
        """Half-written folders."""
        # os.walk forgives a folder that vanishes while it looks.
        walked = os.walk(self.root / "artifacts")
        return sorted(
            Path(folder, name)
            for folder, folders, files in walked
            for name in (*folders, *files)
            if name.startswith(".tmp-")
        )

    def stage(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m stages.X` in the project."""
        return subprocess.run(
            [sys.executable, "-m", f"stages.{name}", *words],
            cwd=self.root,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would lead a command away from the toy project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARTWRIGHT_")}
    kept.pop("PYTHONPATH", None)
    return kept
