"""What tests of several rooms share."""

from __future__ import annotations

import signal

import pytest

from tests.commands import run_invoke


def pytest_configure() -> None:
    """Ctrl-C reaches the programs under test, also where the tests run in the background.

    A shell starts background jobs with SIGINT ignored, and what is ignored stays so in children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cpu_images() -> None:
    """Every CPU image, built from this checkout (from the layer cache where it holds)."""
    done = run_invoke("build-all", "--cpu")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
