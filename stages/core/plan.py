"""What has to run, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core import artifact, dockerfile, key
from stages.core.pipeline import Pipeline, Stage
from stages.core.profile import Profile

State = Literal["fresh", "missing", "stale", "waiting"]
Resolve = Callable[[Stage], str]
"""Where a stage runs: `cpu`, `gpu` or, on the bare host, `local`."""

CACHE_NAME = ".cache/hashes.json"


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: The stage.
        device: `cpu`, `gpu` or `local`.
        state: `fresh` has a complete artifact for this very recipe; `stale` has one for another;
            `missing` has none; `waiting` cannot have a key before a stage that it reads from ran.
        reasons: Why it is not fresh, in words.
        params: Its parameters as plain values.
        recipe: The parts of the key; with the inputs that are not known yet left out.
        key: The key in full, None if waiting.
        folder: Where its artifact is or will be, None if waiting.
        manifest: The artifact's manifest if fresh.
    """

    stage: Stage
    device: str
    state: State
    reasons: Sequence[str]
    params: Mapping[str, Any]
    recipe: Mapping[str, Any]
    key: str | None
    folder: Path | None
    manifest: Mapping[str, Any] | None


class Planner:
    """Compares what the project asks for with what is in the artifacts folder."""

    def __init__(
        self,
        *,
        root: Path,
        artifacts: Path,
        pipeline: Pipeline,
        profile: Profile,
        resolve: Resolve,
    ) -> None:
        self.root = root
        self.pipeline = pipeline
        self.profile = profile
        self.artifacts = artifacts
        self._resolve = resolve
        self._dockerfile = dockerfile.read(root)

    def plan(self, names: Sequence[str]) -> list[Step]:
        """A step for each of the named stages, which must be in the order in which they run."""
        cache = key.HashCache(self.artifacts / CACHE_NAME)
        steps: dict[str, Step] = {}
        for name in names:
            stage = self.pipeline.stages[name].with_params(self.profile.values[name])
            steps[name] = self._step(stage, steps, cache)
        cache.save()
        return list(steps.values())

    def folder_of(self, stage: Stage, full_key: str) -> Path:
        """Folder of an artifact."""
        return self.artifacts / self.profile.name / stage.name / full_key[: key.SHORT_KEY_LENGTH]

    def _step(self, stage: Stage, steps: Mapping[str, Step], cache: key.HashCache) -> Step:
        device = self._resolve(stage)
        params = self.profile.values[stage.name]
        manifests = {name: steps[producer].manifest for name, producer in stage.inputs.items()}
        inputs = {name: m["content_sha256"] for name, m in manifests.items() if m is not None}
        recipe = key.recipe(
            root=self.root,
            dockerfile=self._dockerfile,
            stage=stage,
            device=device,
            params=params,
            inputs=inputs,
            cache=cache,
        )
        waiting_for = [stage.inputs[name] for name, m in manifests.items() if m is None]
        full_key = None if waiting_for else key.key_of(recipe)
        folder = None if full_key is None else self.folder_of(stage, full_key)
        manifest: dict[str, Any] | None = None
        reasons: list[str] = []
        if folder is not None and (folder / artifact.MANIFEST_NAME).is_file():
            manifest = artifact.read_manifest(folder)
            reasons = artifact.damage(folder, manifest)
            if not reasons:
                return Step(
                    stage=stage,
                    device=device,
                    state="fresh",
                    reasons=(),
                    params=params,
                    recipe=recipe,
                    key=full_key,
                    folder=folder,
                    manifest=manifest,
                )
        latest = manifest or latest_manifest(self.artifacts / self.profile.name / stage.name)
        if latest is not None:
            before = latest.get("recipe") or {}
            reasons += differences(before, recipe)
            gone = [name for name in before.get("inputs", {}) if name not in stage.inputs]
            reasons += [f"input {name} left out" for name in gone]
        if waiting_for:
            reasons = [f"waiting for {', '.join(waiting_for)}", *reasons]
        state: State = "waiting" if waiting_for else "missing" if latest is None else "stale"
        if state == "missing":
            reasons = ["never built in this profile"]
        return Step(
            stage=stage,
            device=device,
            state=state,
            reasons=tuple(reasons),
            params=params,
            recipe=recipe,
            key=full_key,
            folder=folder,
            manifest=None,
        )


def newest_first(folder: Path) -> list[Path]:
    """All complete artifacts of a stage, the last written one first."""
    manifests = [
        (path.stat().st_mtime_ns, path) for path in folder.glob(f"[!.]*/{artifact.MANIFEST_NAME}")
    ]
    return [path.parent for _, path in sorted(manifests, reverse=True)]


def latest_manifest(folder: Path) -> dict[str, Any] | None:
    """The newest manifest among a stage's artifacts, None if it has no complete one."""
    complete = newest_first(folder)
    return artifact.read_manifest(complete[0]) if complete else None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two recipes, each as a short sentence."""
    return [
        *_changes("parameter", old, new, "params", show=True),
        *_changes("file of", old, new, "files"),
        *_changes("source", old, new, "source"),
        *_changes("environment", old, new, "environment"),
        *_changes("input", old, new, "inputs", added=False),
    ]


def _changes(
    word: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    part: str,
    *,
    show: bool = False,
    added: bool = True,
) -> Iterator[str]:
    before, after = old.get(part, {}), new[part]
    for name in sorted({*before, *after}):
        if name not in after:
            if added:
                yield f"{word} {name} removed"
        elif name not in before:
            yield f"{word} {name} new" + (f": {after[name]!r}" if show else "")
        elif before[name] != after[name]:
            yield f"{word} {name} changed" + (
                f": {before[name]!r} -> {after[name]!r}" if show else ""
            )
