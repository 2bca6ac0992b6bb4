"""Real images, real containers: what the end-to-end tests share."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from selenium import webdriver

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Remote]:
    """A Chromium in a container, on the host's network; its console is kept."""
    image, port = "cartwright/test-browser:local", free_port()
    build = ["docker", "build", "--quiet", "--tag", image, "--file", "tests/e2e/browser.Dockerfile"]
    if os.environ.get("BASE_IMAGE"):
        build += ["--build-arg", f"BASE_IMAGE={os.environ['BASE_IMAGE']}"]
    subprocess.run([*build, "tests/e2e"], cwd=ROOT, check=True, capture_output=True, text=True)
    run = ["docker", "run", "--rm", "--detach", "--init", "--network", "host", "--shm-size", "512m"]
    started = subprocess.run(
        [*run, image, f"--port={port}"], check=True, capture_output=True, text=True
    )
    options = webdriver.ChromeOptions()
    # The container is the sandbox.
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1000,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        _wait_for_driver(f"http://127.0.0.1:{port}")
        with webdriver.Remote(f"http://127.0.0.1:{port}", options=options) as driver:
            yield driver
    finally:
        subprocess.run(["docker", "stop", started.stdout.strip()], check=False, capture_output=True)


def _wait_for_driver(url: str) -> None:
    deadline_sec = time.monotonic() + 30
    while time.monotonic() < deadline_sec:
        with suppress(httpx.TransportError):  # it does not listen yet
            if httpx.get(f"{url}/status").json()["value"]["ready"]:
                return
        time.sleep(0.1)
    raise AssertionError("the browser's driver did not start")
