"""A service process for tests, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL = Path(os.environ["CARTWRIGHT_TEST_GGUF"])
CATALOG = ["Butter (250g pack)", "Ground Beef (500g pack)", "Whole Milk (1l bottle)"]
REQUEST = {"catalog": CATALOG, "message": "please add 2 Butter (250g pack), thanks"}
Reply = tuple[int, dict[str, Any], dict[str, str]]


class Server:
    """A service process; its port is free when it starts."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "stages.serve", "--model", str(MODEL)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--threads", "2", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            plain = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body=body, headers={**plain, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        status, text, found = self.raw(method, path, body, headers)
        return status, json.loads(text), found

    def post(self, path: str, request: Any) -> Reply:
        return self.call("POST", path, json.dumps(request).encode())

    def intent(self, request: Any) -> Reply:
        return self.post("/v1/intent", request)

    def wait(self, path: str, status: int = 200) -> None:
        for _ in range(300):
            try:
                if self.call("GET", path)[0] == status:
                    return
            except OSError:
                assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)
        raise AssertionError(f"{path} did not answer {status}")

    def end(self) -> tuple[int, str, str]:
        """SIGTERM; the exit code, stdout and stderr."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
