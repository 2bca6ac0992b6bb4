"""Freeing space: artifacts that no profile's plan leads to, images that were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.core import artifact, lock, plan, profile
from stages.core.errors import InputError
from stages.core.key import SHORT_KEY_LENGTH
from stages.host import docker, measure, runner, runs, settings


@dataclass(frozen=True)
class Freed:
    """What was, or would be, removed.

    Attributes:
        folders: Artifacts with their size in bytes.
        images: Docker images by id.
        skipped: Why something was left alone.
    """

    folders: Sequence[tuple[Path, int]]
    images: Sequence[str]
    skipped: Sequence[str]


def collect(*, keep: int, dry_run: bool, wait: bool, with_docker: bool) -> Freed:
    """Remove what nothing needs any more.

    An artifact is kept if a profile's plan names it, if it is among the newest of its stage, or
    if one of these was made from it.

    Args:
        keep: How many of the newest artifacts of each stage stay in any case.
        dry_run: Only say what would go.
        wait: Wait for a run on the same artifacts to end.
        with_docker: Also remove images of this project that lost their name to a newer build.

    Raises:
        InputError: `keep` is negative, or a run is going on and `wait` is false.
    """
    if keep < 0:
        raise InputError(f"--keep must be 0 or more, not {keep}")
    artifacts = settings.artifacts()
    skipped: list[str] = []
    with lock.hold(artifacts, wait=wait, tell=print):
        doomed = []
        for folder in sorted(artifacts.glob("[!.]*")):
            if folder.name == measure.FOLDER:
                continue
            needed = _needed(folder, keep)
            if needed is None:
                skipped.append(f"{folder}: no profile of that name, left alone")
                continue
            for stage_folder in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
                doomed += [path for path in plan.newest_first(stage_folder) if path not in needed]
        sized = [(path, _size_bytes(path)) for path in doomed]
        if not dry_run:
            for path in doomed:
                runner.discard(path)
            artifact.remove_leftovers(artifacts)
        images = _dangling() if with_docker else []
        if images and not dry_run:
            docker.attempt("image", "rm", *images)
    return Freed(sized, images, skipped)


def _needed(profile_folder: Path, keep: int) -> set[Path] | None:
    """Artifacts that a profile's plan names, the newest, and all that these were made from."""
    name = profile_folder.name
    if not (settings.ROOT / profile.PROFILES_FOLDER / f"{name}.yaml").is_file():
        return None
    planner, names = runs.make_planner(runs.Request(profile=name), tell=lambda _left_out: None)
    needed = {step.folder for step in planner.plan(names) if step.state == "fresh" and step.folder}
    for stage_folder in profile_folder.glob("[!.]*"):
        needed.update(plan.newest_first(stage_folder)[:keep])
    waiting = list(needed)
    while waiting:
        manifest = artifact.read_manifest(waiting.pop())
        for record in manifest["inputs"].values():
            if record["key"] is None:
                continue
            short_key = str(record["key"])[:SHORT_KEY_LENGTH]
            folder = profile_folder / str(record["stage"]) / short_key
            if folder not in needed and (folder / artifact.MANIFEST_NAME).is_file():
                needed.add(folder)
                waiting.append(folder)
    return needed


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _dangling() -> list[str]:
    listed = docker.command(
        "image", "ls", "--quiet", "--no-trunc", "--filter", "dangling=true",
        "--filter", "label=io.cartwright.fingerprint",
    )  # fmt: skip
    return sorted(set(listed.split()))
