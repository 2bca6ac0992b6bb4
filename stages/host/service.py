"""The HTTP service: started through Compose, one container or several, and stopped."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stages.core import artifact
from stages.core.errors import CartwrightError, InputError
from stages.host import docker, images, settings
from stages.host.view import View

_READY_WITHIN_SEC = 120
_POLL_SEC = 0.2
_SERVICE = "serve"
# Where compose.yaml shows the service its model.
_MODEL_IN_IMAGE = "/model.gguf"
_HASH = re.compile(r"[0-9a-f]{64}")
_HASH_VARIABLE = "CARTWRIGHT_MODEL_SHA256"
# As compose.yaml has it.
_MEMORY_VARIABLE, _MEMORY = "CARTWRIGHT_MEMORY", "6g"
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# Libraries, working memory and the key-value state of the shipped model, with room.
_BESIDE_MODEL_BYTES = 256 << 20


def serve(
    model: Path, port: int, api_keys: Path | None, view: View, replicas: int = 1
) -> list[str]:
    """Start the service and wait until every replica answers.

    Args:
        model: The GGUF file.
        port: On 127.0.0.1; further replicas have the ports after it.
        api_keys: A file of keys, one a line; None for what the settings say.
        view: Where progress is shown.
        replicas: Containers, which share cores and the memory limit evenly.

    Returns:
        The address of each.

    Raises:
        InputError: A port is not one, or in use; the cores or the memory do not suffice.
        CartwrightError: The service did not become ready.
    """
    if replicas < 1:
        raise InputError(f"--replicas must be at least 1, not {replicas}")
    ports = range(port, port + replicas)
    if port < 1 or ports[-1] > 65_535:
        raise InputError(f"--port must be from 1 to {65_536 - replicas}, not {port}")
    if _running():
        raise InputError("the service is running already; end it with `invoke stop` first")
    for one in ports:
        _require_free(one)
    images.ensure([_SERVICE], view)
    view.end()
    variables = _shares(model, replicas)
    if found := recorded_hash(model):
        variables[_HASH_VARIABLE] = found
    if api_keys:
        variables["CARTWRIGHT_API_KEYS_FILE"] = str(api_keys)
    docker.compose_output(
        "up", "--detach", "--no-build", "--scale", f"{_SERVICE}={replicas}", _SERVICE,
        CARTWRIGHT_MODEL=str(model),
        CARTWRIGHT_PORT=f"{port}-{ports[-1]}" if replicas > 1 else str(port),
        **variables,
    )  # fmt: skip
    addresses = [f"http://127.0.0.1:{one}" for one in ports]
    _wait_until_ready(addresses, model)
    return addresses


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} is not free ({error.strerror}); choose another with --port"
            ) from None


def _shares(model: Path, replicas: int) -> dict[str, str]:
    """What compose.yaml reads of a replica's threads and memory; nothing if there is only one.

    Raises:
        InputError: There are more replicas than cores, or too little memory for each.
    """
    if replicas == 1:
        return {}
    cores = int(docker.command("info", "--format", "{{.NCPU}}"))
    if replicas > cores:
        raise InputError(
            f"--replicas {replicas}: Docker has {cores} cores, and each replica needs one"
        )
    given = settings.setting(_MEMORY_VARIABLE, _MEMORY)
    share_bytes = memory_bytes(given) // replicas
    need_bytes = model.stat().st_size + _BESIDE_MODEL_BYTES
    if share_bytes < need_bytes:
        raise InputError(
            f"--replicas {replicas}: of {_MEMORY_VARIABLE}={given} each gets "
            f"{share_bytes / 1e6:,.0f} MB, and needs {need_bytes / 1e6:,.0f}; set it higher or "
            "start fewer"
        )
    return {"CARTWRIGHT_THREADS": str(cores // replicas), _MEMORY_VARIABLE: f"{share_bytes}b"}


def memory_bytes(text: str) -> int:
    """A size as Docker takes it, `6g` for example, in bytes.

    Raises:
        InputError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([bkmg]?)b?", text.strip().lower())
    if match is None:
        raise InputError(f"{_MEMORY_VARIABLE}={text}: must be a size such as 512m or 6g")
    return int(float(match[1]) * _UNITS[match[2]])


def recorded_hash(model: Path) -> str:
    """What the manifest beside a model says of it; empty if there is none, or none of ours."""
    try:
        text = (model.parent / artifact.MANIFEST_NAME).read_text(encoding="utf-8")
        found = json.loads(text)["files"][model.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) and _HASH.fullmatch(found) else ""


def _wait_until_ready(addresses: Sequence[str], model: Path) -> None:
    """Poll `/ready`; a service that cannot load its model is stopped and its reason given."""
    waiting = list(addresses)
    deadline_sec = time.monotonic() + _READY_WITHIN_SEC
    while time.monotonic() < deadline_sec:
        # Until it listens the connection is refused; until it is ready the answer is 503.
        with suppress(OSError), urllib.request.urlopen(f"{waiting[0]}/ready", timeout=2):
            waiting.pop(0)
            if not waiting:
                return
            continue
        states = [state for _, state in _containers()]
        if not states or any(state in ("exited", "dead", "restarting") for state in states):
            break
        time.sleep(_POLL_SEC)
    logs = "".join(
        done.stdout + done.stderr
        for done in (docker.attempt("logs", "--tail", "50", name) for name, _ in _containers())
    )
    stop()
    errors = [line for line in logs.splitlines() if line.startswith("error: ")]
    if errors:
        reason = errors[-1].removeprefix("error: ").replace(_MODEL_IN_IMAGE, str(model))
        raise InputError(f"the service did not start: {reason}")
    raise CartwrightError(
        f"the service was not ready after {_READY_WITHIN_SEC} s: {docker.last_line(logs)}"
    )


def _containers() -> list[tuple[str, str]]:
    """Name and state of the service's containers."""
    listed = docker.compose_output("ps", "--all", "--format", "{{.Name}} {{.State}}", _SERVICE)
    pairs = (line.partition(" ") for line in listed.splitlines())
    return [(name, state) for name, _, state in pairs if name]


def _running() -> bool:
    return any(state == "running" for _, state in _containers())


def stop() -> list[str]:
    """Stop and remove the service's containers; returns their names."""
    names = [name for name, _ in _containers()]
    if names:
        docker.attempt("stop", *names)
        docker.attempt("rm", "--force", *names)
    return names
