"""Running one stage, in its container or, with `--local`, on the bare host."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core import artifact
from stages.core.errors import CartwrightError, InputError, StageFailed
from stages.core.key import LOCAL, SHORT_KEY_LENGTH
from stages.core.plan import Step
from stages.host import docker, settings
from stages.host.images import Image, git_revision
from stages.host.process import stream

_EXIT_KILLED = 137
# What a program gets for its own fault.
_CRASHES = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
_INSIDE = Path("/artifacts")
_CALLS = ".calls"
_LOGS = ".logs"


@dataclass
class Call:
    """One attempt at a stage: its command line, and the container it runs in if any.

    Attributes:
        arguments: The whole command line.
        environment: All environment variables.
        log: Where its output goes.
        container: Name of the container; None on the bare host.
        error: The last `error: ` line that it printed.
    """

    arguments: list[str]
    environment: dict[str, str]
    log: Path
    container: str | None
    error: str = field(default="", init=False)


def run_step(
    step: Step,
    inputs: Mapping[str, Path],
    *,
    profile: str,
    image: Image | None,
    on_line: Callable[[str], None],
) -> None:
    """Run a stage until its artifact is there.

    Args:
        step: What to run; its key is known.
        inputs: Folder of each input artifact by the stage's own name for it.
        profile: Name of the profile, for the log's place.
        image: The image, None on the bare host.
        on_line: Is given each line that the stage prints.

    Raises:
        InputError: The stage found its input wrong.
        CartwrightError: It failed, was killed, or ran out of memory.
    """
    assert step.folder is not None and step.key is not None
    short_key = step.key[:SHORT_KEY_LENGTH]
    log = settings.artifacts() / _LOGS / profile / f"{step.stage.name}-{short_key}.log"
    if step.folder.exists():  # Complete once, and damaged since.
        discard(step.folder)
    step.folder.parent.mkdir(parents=True, exist_ok=True)
    with _call_files(step, image) as files, _token_file(step) as token:
        make = _local_call if step.device == LOCAL else _container_call
        call = make(step, inputs, files, log, token)

        def take(line: str) -> None:
            if line.startswith("error: "):
                call.error = line.removeprefix("error: ")
            on_line(line)

        try:
            code = stream(
                call.arguments,
                environment=call.environment,
                log=log,
                on_line=take,
                on_interrupt=lambda: _stop(call),
                folder=settings.ROOT,
            )
            if code != 0:
                raise _failure(step, call, code)
        finally:
            if call.container is not None:
                docker.attempt("rm", "--force", call.container)
    if not (step.folder / artifact.MANIFEST_NAME).is_file():
        raise CartwrightError(
            f"{step.stage.name} ended without an artifact at {step.folder}; log: {log}"
        )


def discard(folder: Path) -> None:
    """Remove an artifact so that no moment shows half of it as complete."""
    doomed = folder.with_name(f"{artifact.TEMPORARY_PREFIX}{folder.name}-{secrets.token_hex(4)}")
    folder.rename(doomed)
    artifact.remove_leftovers(folder.parent)


def clean_up(artifacts: Path, *, with_docker: bool) -> list[str]:
    """End and remove what an interrupted run left; only for the holder of the lock.

    Returns:
        What was removed, in words.
    """
    removed = []
    if with_docker:
        containers = docker.remove_containers(f"{docker.OWNER_LABEL}={settings.owner_label()}")
        removed += [f"container {name}" for name in containers]
    removed += [f"folder {path}" for path in artifact.remove_leftovers(artifacts)]
    for path in (artifacts / _CALLS).glob("*.json"):
        path.unlink()
    return removed


@contextmanager
def _call_files(step: Step, image: Image | None) -> Iterator[tuple[Path, Path]]:
    """Parameters and provenance as files that the stage can read, gone afterwards."""
    assert step.key is not None
    folder = settings.artifacts() / _CALLS
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{step.stage.name}-{step.key[:8]}-{secrets.token_hex(4)}"
    params, provenance = folder / f"{name}.params.json", folder / f"{name}.provenance.json"
    commit = git_revision()
    known = {
        "stage": step.stage.name,
        "key": step.key,
        "recipe": step.recipe,
        "outputs": list(step.stage.outputs),
        "device": step.device,
        "git": None
        if commit is None
        else {"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty")},
        "image": None if image is None else {"reference": image.reference, "id": image.image_id},
    }
    params.write_text(json.dumps(_placed_params(step)), encoding="utf-8")
    provenance.write_text(json.dumps(known), encoding="utf-8")
    try:
        yield params, provenance
    finally:
        params.unlink(missing_ok=True)
        provenance.unlink(missing_ok=True)


def _placed_params(step: Step) -> dict[str, Any]:
    """Parameters with each host path as the stage will see it."""
    params = dict(step.params)
    if step.device != LOCAL:
        for name in step.stage.files:
            if params[name]:
                params[name] = str(_mount_point(name, params[name]))
    return params


def _mount_point(name: str, path: str) -> Path:
    return Path("/inputs") / name / Path(path).name


@contextmanager
def _token_file(step: Step) -> Iterator[Path | None]:
    """The caller's HF_TOKEN as a file that only the caller can read, for a stage with network."""
    token = os.environ.get("HF_TOKEN", "")
    if not (token and step.stage.network and step.device != LOCAL):
        yield None
        return
    with tempfile.NamedTemporaryFile("w", prefix="cartwright-", encoding="utf-8") as stream_:
        stream_.write(token)
        stream_.flush()
        yield Path(stream_.name)


def _stage_arguments(
    step: Step, inputs: Mapping[str, Path], files: tuple[Path, Path], place: Callable[[Path], Path]
) -> list[str]:
    assert step.folder is not None
    params, provenance = files
    arguments = ["--params", str(place(params)), "--provenance", str(place(provenance))]
    for name, folder in inputs.items():
        arguments += ["--input", f"{name}={place(folder)}"]
    return [*arguments, "--out", str(place(step.folder))]


def _container_call(
    step: Step,
    inputs: Mapping[str, Path],
    files: tuple[Path, Path],
    log: Path,
    token: Path | None,
) -> Call:
    assert step.key is not None
    artifacts = settings.artifacts()
    name = f"cartwright-{step.stage.name}-{step.key[:8]}-{secrets.token_hex(3)}"
    labels = {docker.OWNER_LABEL: settings.owner_label(), docker.STAGE_LABEL: step.stage.name}
    options = [word for pair in labels.items() for word in ("--label", "=".join(pair))]
    for parameter in step.stage.files:
        if step.params[parameter]:
            source = step.params[parameter]
            options += ["--volume", f"{source}:{_mount_point(parameter, source)}:ro"]
    arguments = _stage_arguments(
        step, inputs, files, lambda path: _INSIDE / path.relative_to(artifacts)
    )
    more = {} if token is None else {"HF_TOKEN_FILE": str(token)}
    return Call(
        arguments=docker.die_with_parent(
            docker.compose(
                "--progress",
                "quiet",
                "run",
                "-T",
                "--no-deps",
                "--name",
                name,
                *options,
                service_of(step),
                *arguments,
            ),
            "KILL",
        ),
        environment=docker.environment(**more),
        log=log,
        container=name,
    )


def _local_call(
    step: Step,
    inputs: Mapping[str, Path],
    files: tuple[Path, Path],
    log: Path,
    token: Path | None,
) -> Call:
    del token  # The stage has the caller's own environment.
    module = f"stages.{step.stage.module}"
    arguments = _stage_arguments(step, inputs, files, lambda path: path)
    python_path = os.pathsep.join(filter(None, [str(settings.ROOT), os.environ.get("PYTHONPATH")]))
    return Call(
        arguments=docker.die_with_parent([sys.executable, "-m", module, *arguments], "TERM"),
        environment={**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"},
        log=log,
        container=None,
    )


def service_of(step: Step) -> str:
    """The Compose service of a stage: its name, with `-gpu` where it also runs on a CPU.

    A backend with images of its own follows the name.
    """
    name = "-".join(filter(None, (step.stage.name, step.stage.backend)))
    if step.device == "gpu" and "cpu" in step.stage.images:
        return f"{name}-gpu"
    return name


def _stop(call: Call) -> None:
    if call.container is not None:
        docker.attempt("stop", "--time", "10", call.container)


def _failure(step: Step, call: Call, code: int) -> CartwrightError:
    """Why a stage ended, as the error to raise."""
    name = step.stage.name
    if call.error:
        kind = InputError if code == InputError.exit_code else StageFailed
        return kind(f"{name}: {call.error} (log: {call.log})")
    text = call.log.read_text(encoding="utf-8")
    docker.explain(text)
    if code == _EXIT_KILLED and call.container is not None:
        template = "{{.State.OOMKilled}} {{.HostConfig.Memory}}"
        state = docker.attempt("inspect", "--format", template, call.container).stdout.split()
        if state and state[0] == "true":
            return CartwrightError(
                f"{name} needed more memory than the {int(state[1]) / 2**30:.1f} GiB that its "
                f"container may use: set {_memory_variable(step)} higher, for example "
                f"{_memory_variable(step)}=12g (log: {call.log})"
            )
    if code - 128 in _CRASHES:
        return CartwrightError(
            f"{name} crashed with {signal.Signals(code - 128).name}, most likely in a library for "
            "which another run ends the same; nothing was kept of it, report it with this log: "
            f"{call.log}"
        )
    if code >= _EXIT_KILLED - 9:
        return CartwrightError(
            f"{name} was ended from outside by signal {code - 128}; nothing was kept of it, "
            f"run again (log: {call.log})"
        )
    return CartwrightError(
        f"{name} failed with exit code {code}: {docker.last_line(text)} (log: {call.log})"
    )


def _memory_variable(step: Step) -> str:
    return "CARTWRIGHT_GPU_MEMORY" if step.device == "gpu" else "CARTWRIGHT_MEMORY"
