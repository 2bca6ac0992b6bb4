"""The Docker command line: the one way in which Cartwright talks to Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache

from stages.core.errors import CartwrightError, InputError
from stages.host import settings

OWNER_LABEL = "io.cartwright.owner"
STAGE_LABEL = "io.cartwright.stage"
_DAEMON_DOWN = ("Cannot connect to the Docker daemon", "failed to connect to the docker API")
_NOT_ALLOWED = "permission denied while trying to connect"


def command(*arguments: str) -> str:
    """Output of a short docker command, without its last line break.

    Raises:
        InputError: Docker is not installed or does not answer.
        CartwrightError: The command failed for another reason.
    """
    done = attempt(*arguments)
    if done.returncode != 0:
        raise CartwrightError(f"docker {arguments[0]} failed: {last_line(done.stderr)}")
    return done.stdout.rstrip("\n")


def attempt(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A short docker command that may fail for reasons of its own.

    Raises:
        InputError: Docker is not installed or does not answer.
    """
    done = subprocess.run(
        [program(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        explain(done.stderr)
    return done


def explain(text: str) -> None:
    """Say it in one sentence when a message means that Docker itself is not there.

    Raises:
        InputError: It does.
    """
    if _NOT_ALLOWED in text:
        raise InputError(
            "this user may not talk to the Docker daemon; "
            "add it to the group docker (`sudo usermod -aG docker $USER`) and log in again"
        )
    if any(sign in text for sign in _DAEMON_DOWN):
        host = os.environ.get("DOCKER_HOST", "its default socket")
        raise InputError(
            f"the Docker daemon does not answer on {host}; "
            "start it (`sudo systemctl start docker`, or Docker Desktop) and try again"
        )


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason")


@cache
def program() -> str:
    """Path of the docker program.

    Raises:
        InputError: It is not installed.
    """
    found = shutil.which("docker")
    if found is None:
        raise InputError(
            "Docker is not installed (no `docker` on the PATH); "
            "get it from https://docs.docker.com/get-docker/ or your distribution"
        )
    return found


def compose(*arguments: str) -> list[str]:
    """Command line of Docker Compose on the project's compose.yaml."""
    root = settings.ROOT
    return [
        program(),
        "compose",
        "--project-directory",
        str(root),
        "--file",
        str(root / "compose.yaml"),
        *arguments,
    ]


def compose_output(*arguments: str, **variables: str) -> str:
    """Output of a short Compose command on the project's compose.yaml.

    Args:
        arguments: The command and its options.
        variables: What compose.yaml reads beside the usual.

    Raises:
        InputError: Docker is not installed or does not answer.
        CartwrightError: The command failed for another reason.
    """
    done = subprocess.run(
        compose("--progress", "quiet", *arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        explain(done.stderr)
        raise CartwrightError(f"docker compose {arguments[0]} failed: {last_line(done.stderr)}")
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    """Environment for Compose: the caller's, with what compose.yaml asks for."""
    return {
        **os.environ,
        "CARTWRIGHT_ARTIFACTS": str(settings.artifacts()),
        "CARTWRIGHT_UID": str(os.getuid()),
        "CARTWRIGHT_GID": str(os.getgid()),
        **more,
    }


def remove_containers(label: str) -> list[str]:
    """Stop and remove every container with a label; returns their names."""
    listed = command("ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}")
    names = listed.split()
    if names:
        attempt("rm", "--force", *names)
    return names


@cache
def has_gpu() -> bool:
    """Whether containers can get an NVIDIA GPU on this Docker host.

    A local host without NVIDIA's tools cannot, and is not asked: that keeps planning quick.
    """
    if not os.environ.get("DOCKER_HOST") and shutil.which("nvidia-smi") is None:
        return False
    return "nvidia" in command("info", "--format", "{{json .Runtimes}}")


def die_with_parent(arguments: Sequence[str], signal_name: str) -> list[str]:
    """A command line that ends when this process dies, even by `kill -9`, where Linux can."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(arguments)
    return [setpriv, "--pdeathsig", signal_name, *arguments]


def inspect_images(references: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Id, fingerprint and size in bytes of those of some images that are here.

    Returns:
        `{reference: {id, fingerprint, size_bytes}}`.
    """
    template = (
        '{{index .RepoTags 0}}\t{{.Id}}\t{{index .Config.Labels "io.cartwright.fingerprint"}}'
        "\t{{.Size}}"
    )
    found = {}
    for reference in references:
        done = attempt("image", "inspect", "--format", template, reference)
        if done.returncode == 0:
            _, image_id, fingerprint, size_bytes = done.stdout.strip().split("\t")
            found[reference] = {
                "id": image_id,
                "fingerprint": fingerprint,
                "size_bytes": size_bytes,
            }
    return found
