"""Which model a command is about, and programs of an image in the foreground."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.core import artifact, plan
from stages.core.errors import InputError
from stages.core.key import SHORT_KEY_LENGTH
from stages.host import docker, images, settings
from stages.host.view import View

_SERVICE = "serve"
_FALLBACK = ("Q4_K_M", "F16")
# The beginning of an artifact's key, as `invoke status` prints it or shorter.
_KEY = re.compile(r"[0-9a-f]{6,64}")


def existing_file(path: str, option: str) -> Path:
    """A file that the user named, as an absolute path.

    Raises:
        InputError: There is no such file.
    """
    found = Path(path).expanduser().resolve()
    if not found.is_file():
        raise InputError(f"{option} {path}: no such file")
    return found


def model_of(profile: str) -> Path:
    """The GGUF file to use of a profile: the one its report recommends, else Q4_K_M.

    Raises:
        InputError: The profile has no GGUF file yet.
    """
    folder = settings.artifacts() / profile
    complete = plan.newest_first(folder / "gguf")
    if not complete:
        raise InputError(
            f"the profile {profile} has no GGUF file yet: `invoke run --profile {profile}` makes "
            "it; or name one with --model"
        )
    for report in plan.newest_first(folder / "report")[:1]:
        recommended = json.loads((report / "report.json").read_text(encoding="utf-8"))
        used = artifact.read_manifest(report)["inputs"]["gguf"]["key"]
        chosen = str(recommended["recommendation"]["file"])
        file = folder / "gguf" / str(used)[:SHORT_KEY_LENGTH] / chosen
        if file.is_file():
            return file
    return _file_in(complete[0])


def _file_in(folder: Path) -> Path:
    """The GGUF file to use of a folder: its only one, else of an artifact Q4_K_M or F16.

    Raises:
        InputError: It has none, or several of which none is to be preferred.
    """
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if (folder / "variants.json").is_file():
        variants = json.loads((folder / "variants.json").read_text(encoding="utf-8"))
        by_encoding = {variant["encoding"]: variant["file"] for variant in variants}
        for name in _FALLBACK:
            if name in by_encoding:
                return folder / str(by_encoding[name])
    raise InputError(f"{folder} has {len(files)} GGUF files; name one with --model")


def choose_model(model: str, profile: str) -> Path:
    """The model that the user named by its file, folder or artifact's key, or else by its profile.

    Raises:
        InputError: There is none of that name, or a folder does not say which of its files.
    """
    if not model:
        return model_of(profile)
    given = Path(model).expanduser().resolve()
    if given.is_dir():
        return _file_in(given)
    if given.exists() or not _KEY.fullmatch(model):
        return existing_file(model, "--model")
    found = [
        manifest.parent
        for manifest in settings.artifacts().glob(
            f"[!.]*/gguf/{model[:SHORT_KEY_LENGTH]}*/{artifact.MANIFEST_NAME}"
        )
    ]
    if len(found) != 1:
        raise InputError(
            f"--model {model}: {len(found)} GGUF artifacts have a key that begins so; "
            "`invoke status` lists the keys"
        )
    return _file_in(found[0])


def run_tool(
    service: str,
    mounts: Sequence[tuple[Path, str]],
    *words: str,
    writable: Sequence[tuple[Path, str]] = (),
    variables: Mapping[str, str] | None = None,
    secret: str = "",
    label: str = "",
    to_stderr: bool = False,
) -> int:
    """Run a program of an image in the foreground, its output going to the caller's.

    Args:
        service: Compose service whose image is here.
        mounts: Host paths to show read-only, each with its place in the container.
        words: Module and arguments.
        writable: The same for what it may write to.
        variables: What compose.yaml reads beside the usual.
        secret: A line for its standard input, which leaves no trace as a file or variable would.
        label: A mark on the container, for finding it again.
        to_stderr: Send its standard output to standard error, where the caller prints a result.

    Returns:
        Its exit code.
    """
    volumes = [word for path, place in mounts for word in ("--volume", f"{path}:{place}:ro")]
    volumes += [word for path, place in writable for word in ("--volume", f"{path}:{place}")]
    volumes += ["--label", label] if label else []
    model = next((str(path) for path, place in mounts if place.endswith(".gguf")), "/dev/null")
    tool = f"{docker.OWNER_LABEL}-tool={settings.owner_label()}"
    settings.artifacts().mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        docker.compose(
            "--progress", "quiet", "run", "--rm", "-T", "--no-deps", "--label", tool, *volumes,
            service, *words,
        ),
        env=docker.environment(
            CARTWRIGHT_MODEL=model,
            CARTWRIGHT_SECRET_ON_STDIN="1" if secret else "",
            **(variables or {}),
        ),
        input=f"{secret}\n" if secret else "",
        stdout=sys.stderr if to_stderr else None,
        text=True,
        check=False,
    ).returncode  # fmt: skip


def predict(model: Path, catalog_file: Path, message: str, view: View, *, details: bool) -> int:
    """Print the answer to one message over a catalog; returns the exit code."""
    images.ensure([_SERVICE], view)
    view.end()
    # Under their own names, which errors then say.
    places = f"/inputs/model/{model.name}", f"/inputs/catalog/{catalog_file.name}"
    words = ["stages.serve.predict", "--model", places[0], "--catalog", places[1]]
    words += ["--message", message, *(["--json"] if details else [])]
    mounts = [(model, places[0]), (catalog_file, places[1])]
    return run_tool(_SERVICE, mounts, *words)


@contextmanager
def catalog_file(path: str, items: Sequence[str]) -> Iterator[Path]:
    """The catalog as a file: the user's own, or one made of the items given one by one.

    Raises:
        InputError: There is no such file.
    """
    if path:
        yield existing_file(path, "--catalog")
        return
    with tempfile.TemporaryDirectory(prefix="cartwright-") as folder:
        made = Path(folder) / "catalog.txt"
        made.write_text("".join(f"{item}\n" for item in items), encoding="utf-8")
        yield made
