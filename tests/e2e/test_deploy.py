"""The ways to deploy that docs/DEPLOY.md names, really taken; without a network to go out on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.commands import ROOT, one_artifact
from tests.contracts.test_deploy import README
from tests.e2e.conftest import free_port

ASKED = {"catalog": ["Milk (1l)", "Bread (500g)"], "message": "two breads please"}
# The service's own port, as /proc/net/tcp has it.
PORT = f"{8080:04X}"


def docker(*words: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *words], text=True, capture_output=True, check=False,
        env={**os.environ, **variables}, cwd=ROOT,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    folder.chmod(0o755)  # the service's user is another
    copied = folder / "model.gguf"
    shutil.copyfile(next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf")), copied)
    copied.chmod(0o444)
    return copied


@contextmanager
def running(model: Path, *more: str) -> Iterator[str]:
    """The documented line, with another name and port and what is given more."""
    name = f"cartwright-test-{secrets.token_hex(4)}"
    words = [word.replace("$PWD/model.gguf", str(model)) for word in README]
    words[words.index("--name") + 1] = name
    words[words.index("--publish") + 1] = f"127.0.0.1:{free_port()}:8080"
    docker("run", *words[:-1], *more, words[-1])
    try:
        yield name
    finally:
        docker("rm", "--force", name, check=False)


def ask_inside(name: str, path: str, body: object = None) -> dict[str, object]:
    """Asks from within the container, over its own loopback."""
    code = (
        "import sys, urllib.request as r; b = sys.argv[2].encode() or None; "
        "h = {'Content-Type': 'application/json'}; "
        "print(r.urlopen(r.Request('http://127.0.0.1:8080' + sys.argv[1], b, h)).read().decode())"
    )
    text = json.dumps(body) if body else ""
    return dict(json.loads(docker("exec", name, "python3", "-c", code, path, text).stdout))


def wait_inside(name: str) -> None:
    for _ in range(300):
        code = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ready')"
        if docker("exec", name, "python3", "-c", code, check=False).returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError(docker("logs", name, check=False).stdout)


def test_the_documented_line_serves_and_ends_well(model: Path) -> None:
    with running(model) as name:
        wait_inside(name)
        port = docker("port", name, "8080").stdout.strip().rpartition(":")[2]
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/intent", json=ASKED, timeout=30)
        assert answer.status_code == 200 and answer.json()["product"] in ASKED["catalog"]
        docker("stop", "-t", "60", name)
        state = json.loads(docker("inspect", name).stdout)[0]["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_it_needs_no_network_and_opens_no_connection(model: Path) -> None:
    network = f"cartwright-test-{secrets.token_hex(4)}"
    docker("network", "create", "--internal", network)
    try:
        with running(model, "--network", network) as name:
            wait_inside(name)
            for path in ("/docs", "/metrics", "/"):
                code = f"import urllib.request as r; r.urlopen('http://127.0.0.1:8080{path}')"
                docker("exec", name, "python3", "-c", code)
            answer = ask_inside(name, "/v1/intent", ASKED)
            assert answer["product"] in ASKED["catalog"]
            tables = docker("exec", name, "sh", "-c", "cat /proc/net/tcp* /proc/net/udp*").stdout
            rows = [line.split()[1:3] for line in tables.splitlines() if "local" not in line]
            # Docker's own name server listens here, and nobody asks it.
            rows = [row for row in rows if not row[0].startswith("0B00007F")]
            assert rows
            for row in rows:
                # Its side of a client's connection, or the client's, who was inside as well.
                assert PORT in [end.rpartition(":")[2] for end in row], tables
    finally:
        docker("network", "rm", network, check=False)


def test_the_compose_project_is_ready_when_compose_says_so(model: Path) -> None:
    port = free_port()
    project = ("compose", "-p", f"cartwright-test-{secrets.token_hex(4)}", "-f")
    words = (*project, str(ROOT / "deploy" / "compose.yaml"))
    variables = {"CARTWRIGHT_MODEL": str(model), "CARTWRIGHT_PORT": str(port)}
    try:
        docker(*words, "up", "--detach", "--wait", **variables)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/intent", json=ASKED, timeout=30)
        assert answer.status_code == 200
    finally:
        docker(*words, "down", check=False, **variables)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    image = "cartwright/test-systemd:local"
    build = ["build", "--quiet", "--tag", image, "--file", "tests/e2e/systemd.Dockerfile"]
    if os.environ.get("BASE_IMAGE"):
        build += ["--build-arg", f"BASE_IMAGE={os.environ['BASE_IMAGE']}"]
    docker(*build, "tests/e2e")
    unit = ROOT / "deploy" / "cartwright.service"
    place = "/etc/systemd/system/cartwright.service"
    run = ["run", "--rm", "--network", "none", "--volume"]
    good = docker(*run, f"{unit}:{place}:ro", image, place)
    assert good.stderr == ""
    broken = tmp_path / "cartwright.service"
    broken.write_text(unit.read_text().replace("/usr/bin/docker run", "/usr/bin/dokcer run"))
    bad = docker(*run, f"{broken}:{place}:ro", image, place, check=False)
    assert bad.returncode != 0 and "dokcer" in bad.stderr
