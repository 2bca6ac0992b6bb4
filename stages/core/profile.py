"""The numbers: a profile gives each stage its parameters, nothing else."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import params, yamlfile
from stages.core.errors import InputError
from stages.core.pipeline import Pipeline, Stage

PROFILES_FOLDER = "stages/profiles"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Profile:
    """A checked profile.

    Attributes:
        name: The file's stem; the artifacts' folder is named after it.
        values: Parameters of each stage as plain values, defaults included.
    """

    name: str
    values: Mapping[str, Mapping[str, Any]]


def path_of(root: Path, name_or_path: str) -> Path:
    """The file of a profile that was given by name or by path.

    Raises:
        InputError: There is no such profile, or its name cannot name a folder.
    """
    by_name = root / PROFILES_FOLDER / f"{name_or_path}.yaml"
    path = by_name if by_name.is_file() else Path(name_or_path)
    if not path.is_file():
        known = sorted(item.stem for item in (root / PROFILES_FOLDER).glob("*.yaml"))
        raise InputError(
            f"no profile {name_or_path!r}: neither a file nor one of {', '.join(known) or 'none'}"
        )
    if not _NAME.fullmatch(path.stem):
        raise InputError(f"{path}: a profile's name may hold letters, digits, '.', '_' and '-'")
    return path


def load(
    root: Path, pipeline: Pipeline, name_or_path: str, settings: Sequence[str] = ()
) -> Profile:
    """Read a profile and check every value against the parameters of its stage.

    Args:
        root: The project's folder.
        pipeline: The stages that the profile may speak of.
        name_or_path: A file below stages/profiles without its ending, or a path.
        settings: Values that override the file's, as `stage.parameter=value`.

    Raises:
        InputError: An unknown stage or parameter, a wrong type or a value out of range; the
            message names file, line and key.
    """
    path = path_of(root, name_or_path)
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    document = yamlfile.read(path, shown)
    for name in document.values:
        if name not in pipeline.stages:
            known = ", ".join(pipeline.stages)
            raise InputError(f"{document.locate(name)}: no such stage; there are: {known}")
    overrides = _parse_settings(pipeline, settings)
    values = {
        stage.name: _stage_values(root, document, stage, overrides.get(stage.name, {}))
        for stage in pipeline.stages.values()
    }
    return Profile(path.stem, values)


def _parse_settings(pipeline: Pipeline, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    overrides: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, separator, text = setting.partition("=")
        stage, dot, name = target.partition(".")
        if not (separator and dot and name):
            raise InputError(f"--set {setting}: must be stage.parameter=value")
        if stage not in pipeline.stages:
            known = ", ".join(pipeline.stages)
            raise InputError(f"--set {setting}: no stage {stage!r}; there are: {known}")
        overrides.setdefault(stage, {})[name] = yamlfile.scalar(text, f"--set {setting}")
    return overrides


def _stage_values(
    root: Path, document: yamlfile.Document, stage: Stage, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    given = document.values.get(stage.name)
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise InputError(f"{document.locate(stage.name)}: must map parameters to values")

    def locate(name: str | None) -> str:
        if name in overrides:
            return f"--set {stage.name}.{name}"
        if name in stage.fixed and name not in given:
            return f"stages/pipeline.yaml: {stage.name}.fixed.{name}"
        return document.locate(stage.name, *([name] if name else []))

    chosen = {**stage.fixed, **given, **overrides}
    for name, value in stage.fixed.items():
        if chosen[name] != value:
            raise InputError(
                f"{locate(name)}: is always {value!r} in this stage, not {chosen[name]!r}: "
                "leave it out"
            )
    params_type = params_type_of(stage)
    values = params.as_plain(params.build(params_type, chosen, locate))
    if stage.backends and "backend" not in values:
        raise InputError(
            f"stages/pipeline.yaml: {stage.name}.backends: {stage.name} has no parameter 'backend'"
        )
    for name in stage.files:
        if name not in values or not isinstance(values[name], str):
            raise InputError(
                f"stages/pipeline.yaml: {stage.name}.files: "
                f"{stage.name} has no text parameter {name!r}"
            )
        if values[name]:
            base = Path.cwd() if name in overrides else root
            path = (base / Path(values[name]).expanduser()).resolve()
            if not path.exists():
                raise InputError(f"{locate(name)}: no file or folder {path}")
            values[name] = str(path)
    return values


def params_type_of(stage: Stage) -> type[Any]:
    """The parameter dataclass of a stage, from `stages.<module>.params`.

    That module is plain Python, so that the host can check a profile without what a stage
    itself imports.

    Raises:
        InputError: The stage has no such module or class.
    """
    module = f"stages.{stage.module}.params"
    try:
        params_type = importlib.import_module(module).Params
    except ModuleNotFoundError as error:
        raise InputError(
            f"stages/pipeline.yaml: {stage.name}: cannot import {error.name}"
        ) from None
    except AttributeError:
        raise InputError(f"stages/pipeline.yaml: {stage.name}: {module} has no Params") from None
    if not isinstance(params_type, type):
        raise InputError(f"stages/pipeline.yaml: {stage.name}: {module}.Params is no class")
    return params_type
