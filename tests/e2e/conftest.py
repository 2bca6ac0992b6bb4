"""Real images, real containers: what the end-to-end tests share."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.commands import ROOT, run_invoke

# What pytest needs to run: all pure Python, so that one copy serves the Python of any image.
_PYTEST_AND_ITS_NEEDS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs Docker."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "e2e"):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def tiny(cpu_images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts folder after one run of the tiny profile, through every CPU image."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    done = run_invoke("run", "--profile", "tiny", artifacts=artifacts)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return artifacts


@pytest.fixture(scope="session")
def copied_pytest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pytest alone, to be mounted into images that do not carry it."""
    folder = tmp_path_factory.mktemp("pytest")
    folder.chmod(0o755)  # the images' users are others
    for name in _PYTEST_AND_ITS_NEEDS:
        for file in importlib.metadata.distribution(name).files or ():
            source = Path(str(file.locate()))
            if file.suffix in (".py", ".txt") or "dist-info" in file.parts[0]:
                if ".." in file.parts or not source.is_file():
                    continue
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    return folder
