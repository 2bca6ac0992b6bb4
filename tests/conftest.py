"""What tests of several rooms share."""

from __future__ import annotations

import pytest

from tests.commands import run_invoke


@pytest.fixture(scope="session")
def cpu_images() -> None:
    """Every CPU image, built from this checkout (from the layer cache where it holds)."""
    done = run_invoke("build-all", "--cpu")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
