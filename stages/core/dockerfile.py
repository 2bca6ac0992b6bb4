"""What an image is made of: its target in images/Dockerfile with everything below it.

Only what the file itself uses is understood: `ARG`, `FROM ... AS`, `COPY`, `RUN --mount`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stages.core.errors import InputError

DOCKERFILE = "images/Dockerfile"
_FROM = re.compile(r"^FROM\s+(\S+)\s+AS\s+(\S+)", re.IGNORECASE)
_OTHER_STAGE = re.compile(r"(?:--from=|\bfrom=)([\w${}.-]+)")
_VARIABLE = re.compile(r"\$\{?(\w+)")


@dataclass(frozen=True)
class Dockerfile:
    """The parsed file.

    Attributes:
        root: The build context.
        arguments: Default of each global build argument, None for one without.
        bases: What each target is made from.
        bodies: Instructions of each target without comments.
    """

    root: Path
    arguments: Mapping[str, str]
    bases: Mapping[str, str]
    bodies: Mapping[str, tuple[str, ...]]

    @property
    def targets(self) -> list[str]:
        """Name of every target."""
        return list(self.bases)

    def closure(self, target: str) -> list[str]:
        """A target and all targets that it is made from or copies from, in the file's order.

        Raises:
            InputError: There is no such target.
        """
        if target not in self.bases:
            raise InputError(f"{DOCKERFILE}: no target {target!r}; {', '.join(self.bases)}")
        needed: set[str] = set()
        waiting = [target]
        while waiting:
            name = self._expand(waiting.pop())
            if name in needed or name not in self.bases:
                continue
            needed.add(name)
            waiting.append(self.bases[name])
            for line in self.bodies[name]:
                waiting.extend(_OTHER_STAGE.findall(line))
        return [name for name in self.bases if name in needed]

    def _expand(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self.arguments.get(match[1], ""), text).strip("{}")

    def recipe(self, target: str) -> dict[str, str]:
        """What decides the packages and programs in an image, by the name a user knows it by.

        The project's own `stages/` folder is left out: the key of a stage names its sources.

        Returns:
            SHA-256 of the instructions and of each copied file, value of each build argument.
        """
        names = self.closure(target)
        lines = [
            line for name in names for line in (f"FROM {self.bases[name]}", *self.bodies[name])
        ]
        text = "\n".join(lines)
        used = {name for name in _VARIABLE.findall(text) if name in self.arguments}
        used -= {"CARTWRIGHT_FINGERPRINT", "GIT_REVISION"}
        recipe = {f"{DOCKERFILE} {target}": hashlib.sha256(text.encode()).hexdigest()}
        recipe.update({f"build argument {name}": self.arguments[name] for name in sorted(used)})
        for source in self.sources(target):
            if not _is_stage_source(source):
                for path in _files_below(self.root / source):
                    name = path.relative_to(self.root).as_posix()
                    recipe[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return recipe

    def sources(self, target: str) -> list[str]:
        """Paths that a target and those below it copy or mount from the build context."""
        found: set[str] = set()
        for name in self.closure(target):
            for line in self.bodies[name]:
                found.update(_context_paths(line))
        return sorted(found)

    @cached_property
    def text_sha256(self) -> str:
        """SHA-256 of the whole file."""
        return hashlib.sha256((self.root / DOCKERFILE).read_bytes()).hexdigest()


def _is_stage_source(source: str) -> bool:
    return source.rstrip("/") == "stages" or source.startswith("stages/")


def _context_paths(line: str) -> list[str]:
    """Sources of a COPY, and of bind mounts in a RUN, that come from the build context."""
    words = line.split()
    if not words:
        return []
    if words[0].upper() == "COPY" and "--from=" not in line:
        sources = [word for word in words[1:-1] if not word.startswith("--")]
        return [source.removeprefix("./") for source in sources if not source.startswith("<<")]
    if words[0].upper() == "RUN":
        mounts = [word for word in words if word.startswith("--mount=type=bind")]
        pairs = [dict(_pairs(mount)) for mount in mounts if "from=" not in mount]
        return [pair["source"].removeprefix("./") for pair in pairs if "source" in pair]
    return []


def _pairs(mount: str) -> list[tuple[str, str]]:
    options = mount.removeprefix("--mount=").split(",")
    split = (option.partition("=") for option in options)
    return [("source" if key == "src" else key, value) for key, _, value in split]


def _files_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
    return sorted(item for item in found if item.is_file() and "__pycache__" not in item.parts)


def read(root: Path) -> Dockerfile:
    """Read `images/Dockerfile` below the project's folder.

    Raises:
        InputError: The file is not there.
    """
    try:
        text = (root / DOCKERFILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{DOCKERFILE}: no such file; run in a checkout of the project") from None
    text = re.sub(r"\\\n\s*", " ", "\n".join(_without_comments(text)))
    arguments: dict[str, str] = {}
    bases: dict[str, str] = {}
    bodies: dict[str, list[str]] = {}
    current: str | None = None
    for line in text.splitlines():
        if match := _FROM.match(line):
            base, current = match.groups()
            bases[current], bodies[current] = base, []
        elif current is not None:
            bodies[current].append(line)
        elif line.startswith("ARG "):
            name, _, value = line.removeprefix("ARG ").partition("=")
            arguments[name.strip()] = value.strip().strip('"')
    return Dockerfile(
        root, arguments, bases, {name: tuple(lines) for name, lines in bodies.items()}
    )


def _without_comments(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
