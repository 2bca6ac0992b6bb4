"""Building images: only what differs, one after the other, each with its time and size."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.core import dockerfile, source
from stages.core.errors import CartwrightError, InputError
from stages.host import docker, settings
from stages.host.process import stream
from stages.host.view import View, duration

CPU_IMAGES = ("trainer-cpu", "quantizer-cpu", "converter", "bench", "serve")
GPU_IMAGES = ("trainer", "quantizer", "auto-gptq", "bench-gpu")
# The load image is built when it is first asked for: who only wants a model needs none.
IMAGES = (*CPU_IMAGES, "load", *GPU_IMAGES)
# `#12 [bench torch-cpu 1/1] RUN ...`; lines without a count are BuildKit's own.
_STEP = re.compile(r"#\d+ (\[\S+ \S+ \d+/\d+\] .*)")
_MOUNT = re.compile(r"--mount=\S+ ")
_STEP_CHARS = 100
# What BuildKit puts before a line: the step's number, seconds since it began.
_CLOCK = re.compile(r"^(#\d+ )?\d+\.\d+ +")
_UNTRUSTED = ("certificate verify failed", "invalid peer certificate", "UnknownIssuer")


@dataclass(frozen=True)
class Image:
    """An image of the project as it is here.

    Attributes:
        name: Target in the Dockerfile and service in compose.yaml.
        reference: Its full name.
        expected: Fingerprint of what it is made of now.
        present: Fingerprint of the image that is here, None if there is none.
        image_id: Docker's id of it.
        size_bytes: All its layers, shared ones included.
    """

    name: str
    reference: str
    expected: str
    present: str | None
    image_id: str | None
    size_bytes: int

    @property
    def is_current(self) -> bool:
        """Whether the image that is here is what a build would give."""
        return self.present == self.expected


def fingerprint(definition: dockerfile.Dockerfile, name: str) -> str:
    """Hash of all that goes into an image: instructions, locks and the sources that it carries."""
    parts = definition.recipe(name)
    for path in definition.sources(name):
        if path == "stages" or path.startswith("stages/"):
            parts.update(source.hash_tree(settings.ROOT, path))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def survey(names: Sequence[str]) -> list[Image]:
    """What is here of some images.

    Raises:
        InputError: Docker does not answer, or an image is unknown.
    """
    definition = dockerfile.read(settings.ROOT)
    for name in names:
        if name not in IMAGES:
            raise InputError(f"no image {name!r}; there are: {', '.join(IMAGES)}")
    here = docker.inspect_images([settings.image_ref(name) for name in names])
    images = []
    for name in names:
        found = here.get(settings.image_ref(name), {})
        images.append(
            Image(
                name=name,
                reference=settings.image_ref(name),
                expected=fingerprint(definition, name),
                present=found.get("fingerprint"),
                image_id=found.get("id"),
                size_bytes=int(found.get("size_bytes", "0")),
            )
        )
    return images


def ensure(names: Sequence[str], view: View) -> list[Image]:
    """Build those of some images that are not what a build would give.

    Returns:
        All of them, current.

    Raises:
        CartwrightError: A build failed; the log is named.
    """
    outdated = [image.name for image in survey(names) if not image.is_current]
    if outdated:
        view.begin([f"image {name}" for name in outdated], {})
        for name in outdated:
            _build(name, view)
    return survey(names)


def ensure_one(name: str, view: View) -> tuple[Image, bool]:
    """One image, built if it is not current, and whether that was needed."""
    [image] = survey([name])
    if image.is_current:
        return image, False
    return ensure([name], view)[0], True


def _build(name: str, view: View) -> None:
    row = f"image {name}"
    expected = fingerprint(dockerfile.read(settings.ROOT), name)
    log = settings.artifacts() / ".logs" / "images" / f"{name}.log"
    view.state(row, "building")
    started_sec = time.monotonic()
    code = stream(
        docker.compose("--progress", "plain", "build", name),
        environment=docker.environment(
            CARTWRIGHT_FINGERPRINT=expected,
            GIT_REVISION=git_revision() or "unknown",
            BUILDX_NO_DEFAULT_ATTESTATIONS="1",
        ),
        log=log,
        on_line=lambda text: _show_step(row, text, view),
    )
    if code != 0:
        view.state(row, "failed", f"log: {log}")
        docker.explain(log.read_text(encoding="utf-8"))
        raise CartwrightError(f"building the image {name} failed: {_reason(log)} (log: {log})")
    [built] = survey([name])
    took = time.monotonic() - started_sec
    _record(name, took, built.size_bytes)
    view.state(row, "done", f"{built.size_bytes / 1e6:,.0f} MB")
    view.say(f"{built.reference}: built in {duration(took)}, {built.size_bytes / 1e6:,.0f} MB")


def _show_step(row: str, line: str, view: View) -> None:
    """Show the instruction that a build has come to; the rest of its output is in the log."""
    if step := _STEP.match(line):
        view.line(row, textwrap.shorten(_MOUNT.sub("", step[1]), _STEP_CHARS, placeholder=" ..."))


def _reason(log: Path) -> str:
    """The line of a build's log that names the error, with what helps against it if we know."""
    lines = [_CLOCK.sub("", line) for line in log.read_text(encoding="utf-8").splitlines()]
    if any(sign in line for line in lines for sign in _UNTRUSTED):
        return (
            "a server's certificate is not trusted here; behind a proxy with its own authority "
            "set CA_BUNDLE=/path/to/ca.pem in .env"
        )
    errors = [line for line in lines if line.lower().startswith(("error:", "cause:"))]
    if errors:
        return "; ".join(dict.fromkeys((errors[0], errors[-1])))
    return docker.last_line("\n".join(lines))


def _record(name: str, wall_sec: float, size_bytes: int) -> None:
    """Keep the last build's time and size of each image beside the logs."""
    path = settings.artifacts() / ".logs" / "images" / "builds.json"
    builds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    builds[name] = {"wall_sec": round(wall_sec, 1), "size_bytes": size_bytes}
    path.write_text(json.dumps(builds, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def git_revision() -> str | None:
    """The checkout's commit, with `-dirty` if files differ from it; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(settings.ROOT), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
