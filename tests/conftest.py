"""What tests of several rooms share."""

from __future__ import annotations

import signal

import pytest

from tests.commands import run_invoke


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Ctrl-C and SIGTERM reach the programs that a test starts.

    A shell's background jobs ignore SIGINT; a stage's `main` that a test calls in this process
    ignores both from then on, as the process of a stage should; children inherit that.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def cpu_images() -> None:
    """Every CPU image, built from this checkout (from the layer cache where it holds)."""
    done = run_invoke("build-all", "--cpu")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
