"""A whole run: plan, images, stages in order, all under the lock."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stages.core import hostinfo, lock, pipeline, plan, profile
from stages.core.errors import CartwrightError, InputError
from stages.core.key import LOCAL
from stages.core.pipeline import Stage
from stages.core.plan import Planner, Step
from stages.host import docker, images, runner, settings
from stages.host.view import View, duration

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Attributes:
        profile: Name or path of the profile.
        until: Last stage to run, empty for all.
        local: Run stages on the bare host.
        device: `cpu` or `gpu` for every stage that can, empty to do as pipeline.yaml says.
        wait: Wait for another run on the same artifacts.
        settings: Overrides, `stage.parameter=value`.
    """

    profile: str
    until: str = ""
    local: bool = False
    device: str = ""
    wait: bool = True
    settings: Sequence[str] = ()


class Interrupted(CartwrightError):
    """The user, or the system, ended the run."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted; finished stages are kept, run again to go on")
        self.exit_code = exit_code


def make_planner(request: Request, tell: Callable[[str], None]) -> tuple[Planner, list[str]]:
    """The planner of a request and the names of its stages, in order.

    Args:
        request: What the user asked for.
        tell: Is given a sentence if stages are left out because there is no GPU for them.

    Raises:
        InputError: Pipeline, profile or request are wrong, or the last stage is left out.
    """
    wiring = pipeline.load(settings.ROOT)
    if request.device not in ("", "cpu", "gpu"):
        raise InputError(f"--device must be cpu or gpu, not {request.device!r}")
    if request.local and request.device:
        raise InputError("--device chooses a container; leave it out with --local")
    if request.until:
        wiring.require(request.until)
    numbers = profile.load(settings.ROOT, wiring, request.profile, request.settings)
    possible = wiring
    names = wiring.upstream(request.until)
    if reason := _no_gpu(request):
        possible = wiring.without_gpu()
        missing = [name for name in names if name not in possible.stages]
        if request.until in missing:
            raise InputError(f"{request.until} needs a GPU, and {reason}")
        if missing:
            tell(f"left out, for want of a GPU: {', '.join(missing)} ({reason})")
        names = possible.upstream(request.until)
    planner = Planner(
        root=settings.ROOT,
        artifacts=settings.artifacts(),
        pipeline=possible,
        profile=numbers,
        resolve=lambda stage: resolve_device(stage, request),
    )
    return planner, names


def _no_gpu(request: Request) -> str:
    """Why a request goes without a GPU; empty if it has one, or insists on one."""
    if request.device == "cpu":
        return "this run is for the CPU alone"
    if request.device == "gpu":
        return ""
    if request.local:
        return "" if hostinfo.gpus() else "this machine shows none to `nvidia-smi`"
    return "" if docker.has_gpu() else "Docker has no NVIDIA runtime here; see `invoke doctor`"


def resolve_device(stage: Stage, request: Request) -> str:
    """Where a stage runs.

    Raises:
        InputError: A GPU is asked for and Docker has none to give: never a quiet CPU run.
    """
    if request.local:
        return LOCAL
    wanted = request.device if request.device in stage.images else stage.device
    if wanted == "auto":
        return "gpu" if docker.has_gpu() else "cpu"
    if wanted == "gpu" and not docker.has_gpu():
        if stage.backend:
            raise InputError(
                f"{stage.name}.backend {stage.backend} needs an NVIDIA GPU and Docker has no "
                "NVIDIA runtime here; install the NVIDIA Container Toolkit (`invoke doctor` says "
                f"more) or leave {stage.name}.backend out: the usual one also runs on a CPU"
            )
        raise InputError(
            f"{stage.name} asks for a GPU and Docker has no NVIDIA runtime here; install the "
            "NVIDIA Container Toolkit (`invoke doctor` says more) or choose --device cpu"
        )
    return wanted


def run(request: Request, view: View) -> list[Step]:
    """Bring every stage of a request up to date.

    Returns:
        The steps, all fresh.

    Raises:
        InputError: Something in the request or in an input is wrong.
        CartwrightError: A stage failed.
    """
    planner, names = make_planner(request, view.say)
    try:
        with _terminable(), lock.hold(planner.artifacts, wait=request.wait, tell=view.say):
            steps = planner.plan(names)
            if _first_to_run(steps) is None:
                return steps
            return _bring_up_to_date(planner, names, steps, request, view)
    except KeyboardInterrupt:
        raise Interrupted(EXIT_INTERRUPTED) from None
    finally:
        view.end()


def _bring_up_to_date(
    planner: Planner, names: Sequence[str], steps: list[Step], request: Request, view: View
) -> list[Step]:
    for removed in runner.clean_up(planner.artifacts, with_docker=not request.local):
        view.say(f"removed what an interrupted run had left: {removed}")
    if not request.local:
        needed = [step.stage.images[step.device] for step in steps if step.state != "fresh"]
        images.ensure(list(dict.fromkeys(needed)), view)
    estimates_sec = _estimates_sec(planner, names)
    _show_all(names, steps, estimates_sec, view)
    tried: set[str] = set()
    while (step := _first_to_run(steps)) is not None:
        if step.key in tried:
            raise CartwrightError(
                f"{step.stage.name} ran and is not fresh: {', '.join(step.reasons)}"
            )
        image = None
        if not request.local:
            # Sources may have been edited since the plan: what runs must be what the key says.
            image, is_new = images.ensure_one(step.stage.images[step.device], view)
            if is_new:
                steps = planner.plan(names)
                _show_all(names, steps, estimates_sec, view)
                continue
        tried.add(str(step.key))
        _run_one(step, steps, planner.profile.name, image, view)
        steps = planner.plan(names)
    return steps


def _run_one(
    step: Step, steps: Sequence[Step], profile_name: str, image: images.Image | None, view: View
) -> None:
    name = step.stage.name
    view.state(name, "running", ", ".join(step.reasons))
    try:
        runner.run_step(
            step,
            _input_folders(step, steps),
            profile=profile_name,
            image=image,
            on_line=lambda text: view.line(name, text),
        )
    except (CartwrightError, KeyboardInterrupt):
        view.state(name, "failed")
        raise
    view.state(name, "done")


def _show_all(
    names: Sequence[str], steps: Sequence[Step], estimates_sec: dict[str, float], view: View
) -> None:
    view.begin(names, estimates_sec)
    for step in steps:
        if step.state == "fresh":
            view.state(step.stage.name, "fresh")


def _first_to_run(steps: Sequence[Step]) -> Step | None:
    return next((step for step in steps if step.state != "fresh"), None)


def _input_folders(step: Step, steps: Sequence[Step]) -> dict[str, Path]:
    folders = {other.stage.name: other.folder for other in steps}
    found = {name: folders[producer] for name, producer in step.stage.inputs.items()}
    return {name: folder for name, folder in found.items() if folder is not None}


def _estimates_sec(planner: Planner, names: Sequence[str]) -> dict[str, float]:
    """How long each stage took when it last ran in this profile."""
    estimates = {}
    for name in names:
        manifest = plan.latest_manifest(planner.artifacts / planner.profile.name / name)
        if manifest is not None:
            estimates[name] = float(manifest["wall_sec"])
    return estimates


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: containers are stopped, nothing half-written stays."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(steps: Sequence[Step]) -> list[tuple[str, str, str, str]]:
    """Rows for the user: stage, state, duration of the stage's own run, folder or reasons."""
    rows: list[tuple[str, str, str, str]] = []
    for step in steps:
        took = duration(float(step.manifest["wall_sec"])) if step.manifest else ""
        place = str(step.folder) if step.state == "fresh" else "; ".join(step.reasons)
        rows.append((step.stage.name, step.state, took, place))
    return rows
