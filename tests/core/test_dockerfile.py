from __future__ import annotations

import pytest

from stages.core import dockerfile
from stages.core.errors import InputError
from tests.core.toy import Project


def test_a_target_knows_what_it_is_made_of(project: Project) -> None:
    parsed = dockerfile.read(project.root)
    assert parsed.targets == ["python", "toy", "toy-gpu"]
    assert parsed.closure("toy") == ["python", "toy"]
    assert parsed.closure("toy-gpu") == ["python", "toy", "toy-gpu"]
    assert parsed.sources("toy-gpu") == [
        "images/toy-gpu/requirements.lock",
        "images/toy/requirements.lock",
        "stages/words",
    ]
    assert set(parsed.recipe("toy")) == {
        "images/Dockerfile toy",
        "build argument BASE_IMAGE",
        "images/toy/requirements.lock",
    }


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        ("images/toy/requirements.lock", "6.0.3", "6.0.4", {"toy", "toy-gpu"}),
        ("images/toy-gpu/requirements.lock", "2.13", "2.14", {"toy-gpu"}),
        ("images/Dockerfile", "bookworm", "trixie", {"toy", "toy-gpu"}),
        ("images/Dockerfile", "UNUSED=1", "UNUSED=2", set()),
        ("images/Dockerfile", "pip install -r", "pip install  -r", {"toy-gpu"}),
        ("images/Dockerfile", "FROM python AS toy\n", "# why\nFROM python AS toy\n", set()),
        ("stages/words/stage.py", "extra", "more", set()),
    ],
)
def test_a_recipe_changes_with_what_the_image_holds(
    project: Project, path: str, old: str, new: str, changed: set[str]
) -> None:
    def recipes() -> dict[str, dict[str, str]]:
        parsed = dockerfile.read(project.root)
        return {name: parsed.recipe(name) for name in ("toy", "toy-gpu")}

    before = recipes()
    project.replace(path, old, new)
    after = recipes()
    assert {name for name in before if before[name] != after[name]} == changed


def test_an_unknown_target(project: Project) -> None:
    with pytest.raises(InputError, match="images/Dockerfile: no target 'tyo'"):
        dockerfile.read(project.root).closure("tyo")
