from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stages.core import lock
from stages.core.errors import InputError
from tests.core.toy import ROOT

HOLD = """
import sys
from pathlib import Path
from stages.core import lock
with lock.hold(Path(sys.argv[1]), wait=False, tell=print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=rf"in use by another run \(process {holder.pid}, since "),
        lock.hold(tmp_path, wait=False, tell=print),
    ):
        pass
    holder.kill()
    holder.communicate()
    with lock.hold(tmp_path, wait=False, tell=print):
        pass
