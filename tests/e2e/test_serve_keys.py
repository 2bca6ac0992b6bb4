"""The service with API keys, from `invoke serve --api-keys` to `invoke stop`."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.commands import one_artifact, run_invoke
from tests.e2e.conftest import free_port

KEY = "correct-horse-battery-staple"


def test_requests_need_a_key(tiny: Path, tmp_path: Path) -> None:
    model = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    keys, port = tmp_path / "keys", free_port()
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o644)  # the image's user is another
    done = run_invoke("serve", "--model", str(model), "--port", str(port), "--api-keys", str(keys))
    try:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "Authorization: Bearer KEY" in done.stdout and KEY not in done.stdout
        url = f"http://127.0.0.1:{port}"
        request = {"catalog": ["Butter (250g pack)"], "message": "two butters"}
        assert httpx.get(f"{url}/ready").status_code == 200
        assert httpx.post(f"{url}/v1/intent", json=request).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/v1/intent", json=request, headers=headers, timeout=30)
        assert answer.status_code == 200 and answer.json()["product"] == "Butter (250g pack)"
    finally:
        assert run_invoke("stop").returncode == 0


def test_keys_that_are_not_there(tiny: Path, tmp_path: Path) -> None:
    model = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    done = run_invoke("serve", "--model", str(model), "--api-keys", str(tmp_path / "none"))
    assert done.returncode == 2 and "no such file" in done.stderr
