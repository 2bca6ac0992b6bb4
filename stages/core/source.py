"""Which source files a stage's result depends on: its own package and what that imports.

Following the imports, instead of hashing everything, is what lets an edit of the planner, of the
host's code or of another stage leave finished artifacts alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stages.core import artifact

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(stages[\w.]*)[ \t]+import[ \t]+(?:\(([^)]*)\)|([^\n#]*))"
    r"|import[ \t]+(stages[\w.]*))",
    re.MULTILINE,
)
_IGNORED = {"__pycache__"}


def files_of(root: Path, module: str) -> list[Path]:
    """Files that decide what a stage does, sorted.

    Args:
        root: The project's folder.
        module: Package of the stage below `stages`.
    """
    own = [
        path
        for path in sorted((root / "stages" / module).rglob("*"))
        if path.is_file() and not _IGNORED & set(path.parts)
    ]
    found = set(own)
    waiting = [path for path in own if path.suffix == ".py"]
    while waiting:
        for path in _imported(root, waiting.pop().read_text(encoding="utf-8")):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return sorted(found)


def _imported(root: Path, text: str) -> Iterator[Path]:
    """Files of the project that a source file imports, the packages on the way included."""
    for base, several, names, plain in _IMPORT.findall(text):
        module = base or plain
        imported = [name.split(" as ")[0].strip() for name in (several or names).split(",")]
        for candidate in (module, *(f"{module}.{name}" for name in imported if name)):
            yield from _files_for(root, candidate)


def _files_for(root: Path, module: str) -> Iterator[Path]:
    folder = root
    for part in module.split("."):
        folder = folder / part
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
    source = folder.with_name(f"{folder.name}.py")
    if source.is_file():
        yield source


def hash_tree(root: Path, path: str) -> dict[str, str]:
    """SHA-256 of every file at or below a path of the project, by its relative path."""
    start = root / path
    found = [start] if start.is_file() else sorted(start.rglob("*"))
    return {
        item.relative_to(root).as_posix(): artifact.hash_file(item)
        for item in found
        if item.is_file() and not _IGNORED & set(item.parts)
    }
