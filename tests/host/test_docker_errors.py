"""A Docker command that is there and a daemon that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.host import docker
from tests.core.toy import Project


@pytest.mark.docker
def test_the_daemon_is_down(project: Project, tmp_path: Path) -> None:
    socket = f"unix://{tmp_path}/none.sock"
    done = project.invoke("run", "--profile", "toy", DOCKER_HOST=socket)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the Docker daemon does not answer on {socket}; "
        "start it (`sudo systemctl start docker`, or Docker Desktop) and try again\n"
    )
    assert project.manifests() == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
            "the Docker daemon does not answer on",
        ),
        (
            "failed to connect to the docker API at unix:///var/run/docker.sock",
            "the Docker daemon does not answer on",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket",
            "this user may not talk to the Docker daemon",
        ),
    ],
)
def test_what_docker_says_is_put_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        docker.explain(text)


def test_other_messages_are_left_alone() -> None:
    docker.explain("Error response from daemon: No such image: cartwright/serve:local")
