"""What is there: status, one artifact with its lineage, logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import artifact, plan
from stages.core.errors import CartwrightError, InputError
from stages.core.key import SHORT_KEY_LENGTH
from stages.core.plan import Step
from stages.host import runs, settings
from stages.host.view import columns, duration

_KEY = re.compile(r"[0-9a-f]{6,64}")


def status(request: runs.Request, tell: Callable[[str], None]) -> list[Step]:
    """Every stage of a profile, fresh or not; nothing is run.

    Args:
        request: As for a run.
        tell: Is given a sentence about stages that are left out.

    Raises:
        InputError: Pipeline or profile are wrong.
    """
    planner, names = runs.make_planner(request, tell)
    return planner.plan(names)


def status_text(steps: Sequence[Step], *, why: bool) -> str:
    """The status for people; with every reason, or only the first of each stage."""
    rows = [("stage", "state", "took", "key", "")]
    for step in steps:
        took = duration(float(step.manifest["wall_sec"])) if step.manifest else ""
        short_key = step.key[:SHORT_KEY_LENGTH] if step.key else "-"
        reasons = list(step.reasons)
        first = reasons[0] if reasons else ""
        more = f" (and {len(reasons) - 1} more: --why)" if len(reasons) > 1 and not why else ""
        rows.append((step.stage.name, step.state, took, short_key, first + more))
        rows += [("", "", "", "", reason) for reason in (reasons[1:] if why else [])]
    return columns(rows)


def status_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The status for programs."""
    return [
        {
            "stage": step.stage.name,
            "state": step.state,
            "device": step.device,
            "key": step.key,
            "folder": str(step.folder) if step.folder else None,
            "reasons": list(step.reasons),
            "wall_sec": step.manifest["wall_sec"] if step.manifest else None,
            "peak_rss_bytes": step.manifest["peak_rss_bytes"] if step.manifest else None,
        }
        for step in steps
    ]


@dataclass(frozen=True)
class Ancestor:
    """One artifact in a lineage.

    Attributes:
        depth: Steps away from the artifact that was asked for.
        name: What the stage behind it calls it.
        manifest: Its manifest, None if it is no longer there.
        stage: Its stage.
        key: Its key in full.
    """

    depth: int
    name: str
    manifest: Mapping[str, Any] | None
    stage: str
    key: str


def find(name_or_folder: str, profile: str) -> Path:
    """The folder of an artifact: a stage's newest in a profile, or one given by its path.

    Raises:
        InputError: There is none.
    """
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder).resolve()
    complete = plan.newest_first(settings.artifacts() / profile / name_or_folder)
    if not complete:
        raise InputError(
            f"no artifact of {name_or_folder!r} in the profile {profile}: "
            f"`invoke run --profile {profile}` makes it, `invoke status` lists the stages"
        )
    return complete[0]


def by_key(stage: str, key: str) -> list[Path]:
    """Folders of a stage's artifacts, of any profile, whose key begins so; none if it is no key."""
    if not _KEY.fullmatch(key):
        return []
    pattern = f"[!.]*/{stage}/{key[:SHORT_KEY_LENGTH]}*/{artifact.MANIFEST_NAME}"
    return sorted(manifest.parent for manifest in settings.artifacts().glob(pattern))


def lineage(folder: Path) -> list[Ancestor]:
    """All that an artifact was made from, nearest first, each once."""
    profile_folder = folder.parent.parent
    found: list[Ancestor] = []
    seen: set[str] = set()

    def walk(manifest: Mapping[str, Any], depth: int) -> None:
        for name, record in manifest["inputs"].items():
            if record["key"] is None or record["key"] in seen:
                continue
            seen.add(record["key"])
            place = profile_folder / record["stage"] / record["key"][:SHORT_KEY_LENGTH]
            there = (place / artifact.MANIFEST_NAME).is_file()
            above = artifact.read_manifest(place) if there else None
            found.append(Ancestor(depth, name, above, record["stage"], record["key"]))
            if above is not None:
                walk(above, depth + 1)

    walk(artifact.read_manifest(folder), 1)
    return found


def verify(folder: Path) -> None:
    """Hash every file of an artifact again.

    Raises:
        CartwrightError: A file is gone or was changed.
    """
    problems = artifact.damage(folder, artifact.read_manifest(folder), rehash=True)
    if problems:
        raise CartwrightError(
            f"{folder}: {'; '.join(problems)}; delete the folder and run to make it again"
        )


def show_text(folder: Path) -> str:
    """An artifact for people: where it is from, what is in it, what it was made from."""
    manifest = artifact.read_manifest(folder)
    host, git, image = manifest["host"], manifest["git"] or {}, manifest["image"] or {}
    commit = str(git.get("commit", "unknown"))[:12] + (" (dirty)" if git.get("dirty") else "")
    facts = [
        ("stage", manifest["stage"]),
        ("folder", str(folder)),
        ("key", manifest["key"] or "-"),
        ("content", manifest["content_sha256"]),
        ("started", manifest["started_at"]),
        ("took", duration(manifest["wall_sec"])),
        ("peak memory", f"{manifest['peak_rss_bytes'] / 2**20:,.0f} MiB"),
        ("commit", commit),
        ("image", f"{image.get('reference', 'bare host')} {image.get('id') or ''}"),
        ("machine", f"{host['cpu_model']}, {host['usable_cores']} cores"),
        ("", f"{host['memory_limit_bytes'] / 2**30:.1f} GiB, GPUs: {len(host['gpus'])}"),
    ]
    parts = [columns(facts)]
    parts.append("parameters\n" + _indented((k, repr(v)) for k, v in manifest["params"].items()))
    files = manifest["files"].items()
    parts.append(
        "files\n" + _indented((n, f"{r['size_bytes']:,} bytes", r["sha256"][:16]) for n, r in files)
    )
    if manifest["metrics"]:
        parts.append("metrics\n" + _indented((k, str(v)) for k, v in manifest["metrics"].items()))
    parts.append("made from\n" + _lineage_text(lineage(folder)))
    return "\n\n".join(parts)


def _indented(rows: Any) -> str:
    table = [("", *row) for row in rows]
    return columns(table) if table else "  nothing"


def _lineage_text(ancestors: Sequence[Ancestor]) -> str:
    lines = []
    for one in ancestors:
        when = one.manifest["started_at"] if one.manifest else "no longer there"
        lines.append(f"{'  ' * one.depth}{one.stage} {one.key[:SHORT_KEY_LENGTH]}  {when}")
    return "\n".join(lines) or "  nothing: it is a source"


def show_json(folder: Path) -> dict[str, Any]:
    """An artifact for programs: its manifest and its lineage."""
    return {
        "folder": str(folder),
        "manifest": artifact.read_manifest(folder),
        "lineage": [
            {"stage": one.stage, "key": one.key, "present": one.manifest is not None}
            for one in lineage(folder)
        ],
    }


def log_files(profile: str, stage: str) -> list[Path]:
    """Logs of a profile, or of one of its stages, the newest first.

    Raises:
        InputError: There is none.
    """
    folder = settings.artifacts() / ".logs" / profile
    pattern = f"{stage}-{'[0-9a-f]' * SHORT_KEY_LENGTH}.log" if stage else "*.log"
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    if not found:
        raise InputError(f"no log of {stage or 'any stage'} in the profile {profile} ({folder})")
    return found
