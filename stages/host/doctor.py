"""What this machine has of what Cartwright needs, and how to get the rest."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.core import hostinfo
from stages.core.errors import CartwrightError, InputError
from stages.host import docker, settings

State = Literal["ok", "missing", "optional"]
MIN_COMPOSE = (2, 26)
MIN_BUILDX = (0, 13)
# All CPU images with their build cache, and the demo's artifacts: measured, with room to spare.
MIN_DISK_BYTES = 20 * 10**9
MIN_MEMORY_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: `ok`; `missing`, without which nothing runs; `optional`, for some uses only.
        detail: What was found.
        advice: How to get it, empty if it is there.
    """

    name: str
    state: State
    detail: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing is changed."""
    findings = [_python(), _docker()]
    if findings[-1].state == "ok":
        findings += [_daemon()]
    if findings[-1].state == "ok":
        findings += [
            _plugin("Compose", ("compose", "version", "--short"), MIN_COMPOSE, "compose"),
            _plugin("buildx", ("buildx", "version"), MIN_BUILDX, "buildx"),
            _gpu(),
        ]
    return [*findings, _disk(), _memory(), _ca_bundle(), _wheels()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", f"{version}, {sys.executable}")


def _docker() -> Finding:
    try:
        return Finding("Docker", "ok", docker.program())
    except InputError as error:
        return Finding("Docker", "missing", "not installed", str(error))


def _daemon() -> Finding:
    try:
        text = docker.command("version", "--format", "{{json .Server}}")
    except InputError as error:
        return Finding("daemon", "missing", "does not answer", str(error))
    server = json.loads(text)
    return Finding("daemon", "ok", f"{server['Version']}, {server['Os']}/{server['Arch']}")


def _plugin(name: str, words: tuple[str, ...], least: tuple[int, int], plugin: str) -> Finding:
    wanted = ".".join(map(str, least))
    advice = (
        f"install the Docker plugin {plugin} {wanted} or newer "
        f"(the package docker-{plugin}-plugin of Docker's own repository)"
    )
    try:
        text = docker.command(*words)
    except CartwrightError:
        return Finding(name, "missing", "not installed", advice)
    match = re.search(r"(\d+)\.(\d+)\.\d+", text)
    if match is None:
        return Finding(name, "missing", f"of unknown version {text!r}", advice)
    if (int(match[1]), int(match[2])) < least:
        return Finding(name, "missing", f"{match[0]} is too old", advice)
    return Finding(name, "ok", match[0])


def _gpu() -> Finding:
    if docker.has_gpu():
        names = [gpu["name"] for gpu in hostinfo.gpus()]
        return Finding("GPU runtime", "ok", ", ".join(names) or "NVIDIA runtime")
    return Finding(
        "GPU runtime",
        "optional",
        "none: stages run on the CPU, those for a GPU are left out",
        "for a GPU: NVIDIA's driver, the NVIDIA Container Toolkit, then "
        "`sudo nvidia-ctk runtime configure --runtime=docker` and a restart of Docker",
    )


def _disk() -> Finding:
    folder = settings.artifacts()
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{free_bytes / 1e9:.0f} GB free at {folder}"
    if free_bytes >= MIN_DISK_BYTES:
        return Finding("disk", "ok", detail)
    advice = f"images and artifacts of the demo need {MIN_DISK_BYTES / 1e9:.0f} GB; `invoke gc`"
    return Finding("disk", "missing", detail, advice)


def _memory() -> Finding:
    limit_bytes = hostinfo.memory_limit_bytes()
    detail = f"{limit_bytes / 2**30:.1f} GiB, {hostinfo.usable_cores()} cores"
    if limit_bytes >= MIN_MEMORY_BYTES:
        return Finding("memory", "ok", detail)
    advice = f"the demo needs {MIN_MEMORY_BYTES / 2**30:.0f} GiB; the serve image alone, 1 GiB"
    return Finding("memory", "missing", detail, advice)


def _ca_bundle() -> Finding:
    return _path_setting(
        "CA bundle",
        "CA_BUNDLE",
        Path.is_file,
        "behind a proxy with its own certificate authority: CA_BUNDLE=/path/to/ca.pem in .env",
    )


def _wheels() -> Finding:
    return _path_setting(
        "wheelhouse",
        "WHEELS",
        lambda path: any(path.glob("*.whl")),
        "to build without PyTorch's index: WHEELS=/folder/with/wheels in .env",
    )


def _path_setting(name: str, variable: str, good: Callable[[Path], bool], advice: str) -> Finding:
    value = settings.setting(variable, "")
    if not value:
        return Finding(name, "optional", f"{variable} is not set", advice)
    path = settings.ROOT / Path(value).expanduser()
    if good(path):
        return Finding(name, "ok", f"{variable}={value}")
    return Finding(name, "missing", f"{variable}={value} is not there or empty", advice)
