"""One of several training processes: started by torch's launcher, one for each GPU.

`python -m torch.distributed.run --nproc-per-node N -m stages.train.worker PARAMS BASE DATA ADAPTER
SCRATCH`; the stage does this itself where `processes` is above 1, because only one process may
publish an artifact.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core import params as parameters
from stages.core.errors import CartwrightError, StageFailed
from stages.train import backend
from stages.train.params import Params

_CURVE = "curve.json"


def launch(job: backend.Job, data: Path) -> list[dict[str, Any]]:
    """Trains in several processes; the adapter is saved by the first.

    Raises:
        StageFailed: a process ended with an error, which it has printed.
    """
    plain = job.scratch / "params.json"
    plain.write_text(json.dumps(parameters.as_plain(job.params)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1"]
    command += ["--nproc-per-node", str(job.params.processes)]
    # The loopback by number: without a network a container cannot look up its own name.
    command += ["--master-addr", "127.0.0.1", "--master-port", str(_free_port()), "-m", __name__]
    command += [str(path) for path in (plain, job.base, data, job.adapter, job.scratch)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            status = process.wait()
        except BaseException:
            # The launcher's own children, too: they would train on after this stage has ended.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        raise StageFailed(f"training in {job.params.processes} processes ended with exit {status}")
    curve: list[dict[str, Any]] = json.loads((job.scratch / _CURVE).read_text(encoding="utf-8"))
    return curve


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(arguments: Sequence[str]) -> int:
    """Trains as one process of a launch."""
    plain, base, data, adapter, scratch = map(Path, arguments)
    backend.isolate(scratch)
    values = json.loads(plain.read_text(encoding="utf-8"))
    params = parameters.build(Params, values, lambda name: f"{plain}: {name}")
    try:
        curve = backend.train(backend.make_job(params, base, data, adapter, scratch))
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if curve:
        (scratch / _CURVE).write_text(json.dumps(curve), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
