"""The wiring: which stages there are, what each reads and writes, and where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import dockerfile, yamlfile
from stages.core.errors import InputError

PIPELINE_FILE = "stages/pipeline.yaml"
DEVICES = ("cpu", "gpu", "auto")


@dataclass(frozen=True)
class Stage:
    """One stage as pipeline.yaml declares it.

    Attributes:
        name: Its one name: artifact folder and Compose service.
        module: Its package below `stages`; the name, with underscores, if not given.
        images: Image by device, `cpu` and `gpu`.
        backends: Images by device by the value of its parameter `backend` that needs them.
        device: Where it runs; `auto` takes a GPU where the Docker host has one.
        inputs: Producing stage by the name under which this stage reads it.
        optional: Of these, the names of those that it can do without.
        outputs: Files that it must write, glob patterns allowed.
        network: Whether it may use the network.
        files: Names of parameters that hold a path on the host, empty for none.
        fixed: Parameters whose value makes it this stage; a profile cannot give another.
        backend: Which of `backends` it is for, None for none; see `with_params`.
    """

    name: str
    module: str
    images: Mapping[str, str]
    device: str
    inputs: Mapping[str, str]
    optional: Sequence[str]
    outputs: Sequence[str]
    network: bool
    files: Sequence[str]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    backends: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    backend: str | None = None

    def with_params(self, params: Mapping[str, Any]) -> Stage:
        """The stage in the images that its parameters ask for."""
        backend = str(params.get("backend"))
        if backend not in self.backends:
            return self
        images = self.backends[backend]
        device = self.device if len(images) > 1 else next(iter(images))
        return dataclasses.replace(self, images=images, device=device, backend=backend)


@dataclass(frozen=True)
class Pipeline:
    """All stages, each after the ones that it reads from."""

    stages: Mapping[str, Stage]

    def upstream(self, name: str) -> list[str]:
        """A stage and all that it needs, in the order in which they run; all stages for ""."""
        if not name:
            return list(self.stages)
        needed = {name}
        for stage in reversed(list(self.stages.values())):
            if stage.name in needed:
                needed.update(stage.inputs.values())
        return [stage for stage in self.stages if stage in needed]

    def without_gpu(self) -> Pipeline:
        """What can run where there is no GPU.

        A stage that has an image for GPUs alone is left out, and so is one that needs a stage that
        is; one that can do without it loses that input.
        """
        kept: dict[str, Stage] = {}
        for stage in self.stages.values():
            gone = {name for name, producer in stage.inputs.items() if producer not in kept}
            if "cpu" in stage.images and gone <= set(stage.optional):
                inputs = {name: stage.inputs[name] for name in stage.inputs if name not in gone}
                kept[stage.name] = dataclasses.replace(stage, inputs=inputs)
        return Pipeline(kept)

    def require(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            InputError: There is none.
        """
        if name not in self.stages:
            raise InputError(f"no stage {name!r}; there are: {', '.join(self.stages)}")
        return self.stages[name]


def load(root: Path) -> Pipeline:
    """Read and check `stages/pipeline.yaml`.

    Args:
        root: The project's folder.

    Raises:
        InputError: An unknown key or image, a wrong type, an input that no stage gives, a
            cycle; the message names file, line and key.
    """
    document = yamlfile.read(root / PIPELINE_FILE, PIPELINE_FILE)
    targets = dockerfile.read(root).targets
    for key in document.values:
        if key != "stages":
            raise InputError(f"{document.locate(key)}: unknown key; the file has only: stages")
    declared = document.values.get("stages")
    if not isinstance(declared, dict) or not declared:
        raise InputError(f"{document.locate('stages')}: must map the name of each stage")
    stages = {
        name: _stage(document, name, body, sorted(targets)) for name, body in declared.items()
    }
    for stage in stages.values():
        for name, producer in stage.inputs.items():
            if producer not in stages:
                key = "optional" if name in stage.optional else "inputs"
                raise InputError(
                    f"{document.locate('stages', stage.name, key, name)}: "
                    f"no stage {producer!r}; there are: {', '.join(stages)}"
                )
    return Pipeline(_sort(document, stages))


def _stage(document: yamlfile.Document, name: str, body: Any, targets: Sequence[str]) -> Stage:
    where = ("stages", name)
    if not isinstance(body, dict):
        raise InputError(f"{document.locate(*where)}: must be a mapping")
    computed = ("name", "backend")
    known = [field.name for field in dataclasses.fields(Stage) if field.name not in computed]
    known = ["image" if key == "images" else key for key in known]
    for key in body:
        if key not in known:
            raise InputError(
                f"{document.locate(*where, key)}: unknown key; a stage has: {', '.join(known)}"
            )
    for key in ("image", "outputs"):
        if not body.get(key):
            raise InputError(f"{document.locate(*where, key)}: missing or empty")
    images = _images(document, (*where, "image"), body["image"], targets)
    device = body.get("device", "cpu")
    if device not in DEVICES:
        raise InputError(
            f"{document.locate(*where, 'device')}: must be cpu, gpu or auto, not {device!r}"
        )
    for needed in ("cpu", "gpu") if device == "auto" else (device,):
        if needed not in images:
            raise InputError(
                f"{document.locate(*where, 'image')}: device {device} needs an image for {needed}"
            )
    backends = body.get("backends", {})
    if not isinstance(backends, dict):
        raise InputError(f"{document.locate(*where, 'backends')}: must map backends to images")
    fixed = body.get("fixed", {})
    if not isinstance(fixed, dict):
        raise InputError(f"{document.locate(*where, 'fixed')}: must map parameters to values")
    network = body.get("network", False)
    if type(network) is not bool:
        raise InputError(f"{document.locate(*where, 'network')}: must be true or false")
    inputs, optional = _inputs(document, where, body)
    return Stage(
        name=name,
        module=_module(document, where, body.get("module", name.replace("-", "_"))),
        images=images,
        device=device,
        inputs=inputs,
        optional=optional,
        outputs=_list(document, (*where, "outputs"), body["outputs"]),
        network=network,
        files=_list(document, (*where, "files"), body.get("files", [])),
        fixed=fixed,
        backends={
            backend: _images(document, (*where, "backends", backend), value, targets)
            for backend, value in backends.items()
        },
    )


def _module(document: yamlfile.Document, where: Sequence[str], value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{document.locate(*where, 'module')}: must be a name, not {value!r}")
    return value


def _inputs(
    document: yamlfile.Document, where: Sequence[str], body: Mapping[str, Any]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """All inputs, and the names of those that are optional."""
    inputs = _mapping(document, (*where, "inputs"), body.get("inputs", {}))
    optional = _mapping(document, (*where, "optional"), body.get("optional", {}))
    for name in optional:
        if name in inputs:
            raise InputError(
                f"{document.locate(*where, 'optional', name)}: is one of the inputs already"
            )
    return {**inputs, **optional}, tuple(optional)


def _images(
    document: yamlfile.Document, where: Sequence[str], value: Any, targets: Sequence[str]
) -> dict[str, str]:
    images = _mapping(document, where, value)
    if not images:
        raise InputError(f"{document.locate(*where)}: missing or empty")
    for device, image in images.items():
        if device not in ("cpu", "gpu"):
            raise InputError(f"{document.locate(*where, device)}: must be cpu or gpu")
        if image not in targets:
            raise InputError(
                f"{document.locate(*where, device)}: unknown image {image!r}; "
                f"{dockerfile.DOCKERFILE} has no such target"
            )
    return images


def _mapping(document: yamlfile.Document, where: Sequence[str], value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{document.locate(*where)}: must map names to names")
    for key, item in value.items():
        if not isinstance(item, str):
            raise InputError(f"{document.locate(*where, key)}: must be a name, not {item!r}")
    return value


def _list(document: yamlfile.Document, where: Sequence[str], value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{document.locate(*where)}: must be a list of names")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise InputError(f"{document.locate(*where, str(index))}: must be a name, not {item!r}")
    return tuple(value)


def _sort(document: yamlfile.Document, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Each stage after its inputs, otherwise in the file's order."""
    ordered: dict[str, Stage] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            loop = " -> ".join((*path[path.index(name) :], name))
            raise InputError(
                f"{document.locate('stages', path[-1], 'inputs')}: cycle, {loop} reads from itself"
            )
        if name in ordered:
            return
        for producer in stages[name].inputs.values():
            visit(producer, (*path, name))
        ordered[name] = stages[name]

    for name in stages:
        visit(name, ())
    return ordered
