"""`invoke load-test`, short, and `invoke serve --replicas`: real servers, real load."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from stages.host import docker, service
from stages.loadtest import samples
from tests.commands import one_artifact, run_invoke
from tests.e2e.conftest import free_port

SHORT = {
    "rounds": 1, "seconds": 0.3, "requests_each": 2, "exact_rows": 3, "connections": 40,
    "flood_sec": 2, "requests": 60,
}  # fmt: skip
SERVERS = {
    "cartwright", "llama-server -np 1", "llama-server -np 16", "llama-cpp-python",
    "llama-cpp-python --cache",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny: Path) -> Path:
    return next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))


@pytest.fixture(scope="module")
def results(model: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    words = ["load-test", "--model", str(model), "--profile", "tiny", "--out", str(out)]
    words += [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    done = run_invoke(*words, artifacts=tiny)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("| what | aim | measured |") == 3
    return out


@pytest.mark.parametrize("part", ["compare", "overload", "soak"])
def test_a_result_says_what_was_measured_and_with_what(results: Path, part: str) -> None:
    result = json.loads((results / f"load-test-{part}.json").read_text(encoding="utf-8"))
    assert result["part"] == part and result["command"].startswith("invoke load-test --model")
    assert result["parameters"]["rounds"] == 1 and result["parameters"]["flood_sec"] == 2
    assert len(result["model"]["sha256"]) == 64 and result["host"]["usable_cores"] >= 1
    assert set(result["versions"]) >= {"llama-cpp-python", "locust", "h2load", "uvicorn"}
    assert {"what", "aim", "measured", "met"} == set(result["bars"][0])
    groups = samples.read(results / f"load-test-{part}-samples.jsonl.gz")
    assert sum(len(some) for _, some in groups) > 20
    assert not list(results.glob(".*"))


def test_every_server_answered_every_load(results: Path) -> None:
    found = json.loads((results / "load-test-compare.json").read_text(encoding="utf-8"))
    found = found["figures"]["loads"]
    assert len(found) == 7
    for load, by_server in found.items():
        assert set(by_server) == SERVERS
        for name, one in by_server.items():
            assert set(one["statuses"]) == {"200"}, (load, name, one)
            assert one["per_sec"] > 0 and one["p50_sec"] > 0


def test_a_flood_is_answered_or_refused(results: Path) -> None:
    found = json.loads((results / "load-test-overload.json").read_text(encoding="utf-8"))
    for one in found["figures"]["floods"]:
        assert set(one["statuses"]) <= {"200", "429", "503"} and one["statuses"]["200"] > 0
        assert one["normal_after_sec"] is not None
    soak = json.loads((results / "load-test-soak.json").read_text(encoding="utf-8"))
    assert soak["figures"]["statuses"] == {"200": 60} and len(soak["figures"]["taken"]) == 11


def test_wrong_numbers_and_rows_are_refused(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "x"}\n', encoding="utf-8")
    words = ["load-test", "--model", str(model), "--dataset", str(rows), "--out", str(tmp_path)]
    done = run_invoke(*words)
    assert done.returncode == 2 and "rows.jsonl:1:" in done.stderr
    done = run_invoke(*words, "--set", "rounds=0")
    assert done.returncode == 2 and "--rounds must be at least 1" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_replicas_answer_each_on_a_port_of_its_own(model: Path) -> None:
    cores = int(docker.command("info", "--format", "{{.NCPU}}"))
    if cores < 2:
        pytest.skip("a replica needs a core of its own")
    port = free_port()
    done = run_invoke("serve", "--model", str(model), "--port", str(port), "--replicas", "2")
    try:
        assert done.returncode == 0, done.stderr
        for one in (port, port + 1):
            assert f"http://127.0.0.1:{one}" in done.stdout
            asked = {"catalog": ["Milk (1l)", "Bread"], "message": "two breads"}
            answer = httpx.post(f"http://127.0.0.1:{one}/v1/intent", json=asked, timeout=30)
            assert answer.status_code == 200 and answer.json()["product"] in asked["catalog"]
        names = [name for name, _ in service._containers()]
        assert len(names) == 2
        limit = service.memory_bytes("6g") // 2
        for name in names:
            inspected = json.loads(docker.command("inspect", name))[0]
            assert inspected["HostConfig"]["Memory"] == limit
            assert f"CARTWRIGHT_THREADS={cores // 2}" in inspected["Config"]["Env"]
    finally:
        assert run_invoke("stop").returncode == 0
    assert not service._containers()
