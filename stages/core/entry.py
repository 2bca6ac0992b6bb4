"""The command line that every stage has.

`python -m stages.X [--params p.json] --input NAME=DIR ... --out DIR [--provenance prov.json]`

It is the same line in a container, on a bare host and in tests. The output folder appears whole or
not at all: the work happens in a sibling `.tmp-` folder, the manifest is written last and one
rename publishes it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from stages.core import artifact, params, provenance
from stages.core.errors import CartwrightError, InputError, MissingDependency, StageFailed

T = TypeVar("T")
Run = Callable[[T, Mapping[str, Path], Path], dict[str, Any]]

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL_BELOW_BYTES = 1 << 20


class _Terminated(BaseException):
    """SIGTERM arrived; no handler of ordinary exceptions may swallow it."""


def main(
    stage: str, params_type: type[T], run: Run[T], arguments: Sequence[str] | None = None
) -> int:
    """Run a stage from the command line.

    Args:
        stage: Name of the stage as in pipeline.yaml.
        params_type: The stage's parameter dataclass.
        run: The stage's work: parameters, inputs by name, an empty output folder; it returns
            the metrics for the manifest.
        arguments: The command line, without the program's name; that of the process if None.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted, 143 terminated.
    """
    given = _parse(stage, arguments)
    out = Path(given.out)
    # No two attempts share it: what is left of a killed one must not end up in the next.
    temporary = out.parent / f"{artifact.TEMPORARY_PREFIX}{out.name}-{secrets.token_hex(4)}"
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _build(stage, params_type, run, given, temporary)
    except _Terminated:
        _report("terminated")
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        _report("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        code = _explain(error, out.parent)
        if code is None:
            raise
        return code
    finally:
        # A second signal must not cut the cleaning short.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _parse(stage: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    module = stage.replace("-", "_")
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{module}",
        description=f"Run the stage {stage}; the output folder appears whole or not at all.",
    )
    parser.add_argument(
        "--params", metavar="FILE", help="parameters as JSON; the defaults if not given"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="an input folder under the name that the stage knows it by; repeat for each",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder to create")
    parser.add_argument(
        "--provenance", metavar="FILE", help="JSON with what only the caller knows: key, image, git"
    )
    return parser.parse_args(arguments)


def _build(
    stage: str,
    params_type: type[T],
    run: Run[T],
    given: argparse.Namespace,
    temporary: Path,
) -> None:
    """Do the work in the temporary folder, then publish it."""
    out = Path(given.out)
    caller = _read_json(Path(given.provenance)) if given.provenance else {}
    # Two stages may be one module with other parameters.
    stage = caller.get("stage", stage)
    values = params.build(
        params_type,
        _read_json(Path(given.params)) if given.params else {},
        lambda name: f"{given.params or 'without --params'}: {stage}{'.' + name if name else ''}",
    )
    inputs = _parse_inputs(given.input)
    described = provenance.describe_inputs(inputs)
    if out.exists():
        raise InputError(f"--out {out}: exists already; name a new folder or delete it")
    temporary.mkdir(parents=True)
    started_at, started_sec = datetime.now().astimezone(), time.monotonic()
    metrics = run(values, inputs, temporary)
    _check_outputs(stage, caller.get("outputs", ()), temporary)
    manifest = provenance.make_manifest(
        stage=stage,
        params=params.as_plain(values),
        inputs=described,
        files=artifact.inventory(temporary, sync=True),
        metrics=metrics,
        started_at=started_at,
        wall_sec=time.monotonic() - started_sec,
        given=caller,
    )
    artifact.write_manifest(temporary, manifest)
    temporary.rename(out)
    artifact.sync_folder(out.parent)


def _check_outputs(stage: str, patterns: Sequence[str], folder: Path) -> None:
    """Hold a stage to the outputs that pipeline.yaml declares, glob patterns included."""
    for pattern in patterns:
        if not any(folder.glob(pattern)):
            raise StageFailed(
                f"{stage} ended without writing {pattern}, which pipeline.yaml lists as its output"
            )


def _parse_inputs(pairs: Sequence[str]) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    for pair in pairs:
        name, separator, folder = pair.partition("=")
        if not (name and separator and folder):
            raise InputError(f"--input {pair}: must be NAME=DIR")
        if name in inputs:
            raise InputError(f"--input {pair}: the name {name} was given before")
        inputs[name] = Path(folder)
    return inputs


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return value


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _report(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)


def _explain(error: Exception, folder: Path) -> int | None:
    """Say in one sentence why the stage ended and give its exit code; None for a bug of ours."""
    if isinstance(error, CartwrightError) and not _is_full(folder):
        _report(str(error))
        return error.exit_code
    if _means_no_space(error) or _is_full(folder):
        _report(
            f"no space left on the disk that holds {folder}: nothing was kept of this stage; "
            "free some space, with `invoke gc` for example, and run again"
        )
        return InputError.exit_code
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("stages"):
        _report(
            f"the package {error.name} is not installed here; "
            "run the stage in its container (without --local) or install it"
        )
        return MissingDependency.exit_code
    return None


def _means_no_space(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error, also where a library wrapped it in its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_full(folder: Path) -> bool:
    """Whether the disk is full; tools in C often do not say why a write failed."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free < _FULL_BELOW_BYTES
