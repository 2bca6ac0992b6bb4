"""Rows from outside: commands that ask an endpoint or the hub, in a container with network."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from stages.core import lock
from stages.core.errors import InputError
from stages.host import docker, images, serving, settings
from stages.host.view import View

SERVICE = "collect"
KEY_VARIABLE = "OPENAI_API_KEY"
_IMAGE = "bench"
_LABEL = "io.cartwright.collect"
_LOCKS = ".collect"
# A container's own localhost is not this machine's.
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
_FROM_CONTAINERS = "host.docker.internal"


def generate(
    out: str, catalogs: Sequence[str], options: Mapping[str, str | int], view: View
) -> int:
    """Collect rows that the endpoint's model writes; returns the exit code.

    Args:
        out: The JSONL file to make.
        catalogs: Files of shops' own lines.
        options: The other options of `stages.collect.generate`; empty ones are left out.
        view: Where a build's progress goes.

    Raises:
        InputError: No endpoint is named, a file is not there, or another run makes the same file.
    """
    words: list[str] = []
    mounts: list[tuple[Path, str]] = []
    for number, given in enumerate(catalogs):
        path = serving.existing_file(given, "--catalog")
        mounts.append((path, f"/inputs/catalog-{number}/{path.name}"))
        words += ["--catalog", mounts[-1][1]]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value != "" else []
    url, key = endpoint_url(), settings.setting(KEY_VARIABLE, "")
    return _run("stages.collect.generate", out, mounts, words, url, key, view)


def fetch(dataset: str, out: str, revision: str, file: str, view: View) -> int:
    """Bring a hub dataset, or a folder of the same files, into the row format.

    Returns:
        The exit code.

    Raises:
        InputError: The id is none, another run makes the same file, or it has no folder.
    """
    mounts: list[tuple[Path, str]] = []
    folder = Path(dataset.removeprefix("file://")).expanduser().resolve()
    if folder.is_dir():
        dataset = f"/inputs/{folder.name}"
        mounts.append((folder, dataset))
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset):
        raise InputError(f"{dataset}: is neither a hub id, OWNER/NAME, nor a folder that is there")
    words = ["--id", dataset]
    words += ["--revision", revision] if revision else []
    words += ["--file", file] if file else []
    return _run(
        "stages.collect.fetch", out, mounts, words, "", os.environ.get("HF_TOKEN", ""), view
    )


def endpoint_url() -> str:
    """The endpoint's address as a container sees it.

    Raises:
        InputError: None is named, or what is named is no address.
    """
    url = settings.setting("OPENAI_BASE_URL", "")
    if not url:
        raise InputError(
            "OPENAI_BASE_URL is not set; give the root of an OpenAI-compatible API, "
            "such as http://localhost:8000/v1"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"OPENAI_BASE_URL must be an http or https address, not {url!r}")
    if host in _THIS_MACHINE:
        place = f"{_FROM_CONTAINERS}:{port}" if port else _FROM_CONTAINERS
        return parts._replace(netloc=place).geturl()
    return url


def _run(
    module: str,
    out: str,
    mounts: Sequence[tuple[Path, str]],
    words: Sequence[str],
    url: str,
    secret: str,
    view: View,
) -> int:
    """Run a collecting program on an output file of the user's, one at a time."""
    path = Path(out).expanduser().resolve()
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InputError(f"--out {out}: {what}; name the file to make")
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    label = f"{_LABEL}={mark}"
    with ExitStack() as held:
        try:
            held.enter_context(
                lock.hold(settings.artifacts() / _LOCKS / mark, wait=False, tell=print)
            )
        except InputError:
            raise InputError(
                f"--out {out}: another command is making this file; wait for it to end"
            ) from None
        images.ensure([_IMAGE], view)
        view.end()
        # A command that was killed leaves its container at work.
        docker.remove_containers(label)
        # So does an interrupt; requests cost money, so that nothing may go on unseen.
        held.callback(docker.remove_containers, label)
        return serving.run_tool(
            SERVICE,
            mounts,
            module,
            "--out",
            f"/out/{path.name}",
            *words,
            writable=[(path.parent, "/out")],
            variables={"OPENAI_BASE_URL": url},
            secret=secret,
            label=label,
        )
