"""What `invoke serve` makes of a model's folder and of a number of replicas."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.host import docker, service, settings
from stages.host.view import choose
from tests.core.toy import Project

HASH = "0123456789abcdef" * 4


def recorded(folder: Path, text: str) -> str:
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return service.recorded_hash(folder / "m.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[1, 2]",
        json.dumps({"files": [{"path": "m.gguf", "sha256": HASH}]}),  # another tool's
        json.dumps({"files": {"other.gguf": {"sha256": HASH}}}),
        json.dumps({"files": {"m.gguf": {"sha256": 7}}}),
        json.dumps({"files": {"m.gguf": {"sha256": "md5:12"}}}),
        json.dumps({"layers": []}),
    ],
)
def test_a_manifest_of_another_tool_says_nothing(tmp_path: Path, text: str) -> None:
    assert recorded(tmp_path, text) == ""


def test_our_manifest_vouches_for_the_file(tmp_path: Path) -> None:
    assert service.recorded_hash(tmp_path / "m.gguf") == ""
    assert recorded(tmp_path, json.dumps({"files": {"m.gguf": {"sha256": HASH}}})) == HASH


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """What Compose would be asked for; nothing is started, and every replica is ready at once."""
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def output(*words: str, **variables: str) -> str:
        calls.append((words, docker.environment(**variables)))
        return ""

    monkeypatch.setattr(docker, "compose_output", output)
    monkeypatch.setattr(docker, "command", lambda *_: "4")
    monkeypatch.setattr(service.images, "ensure", lambda *_: [])
    monkeypatch.setattr(service, "_wait_until_ready", lambda *_: None)
    monkeypatch.setattr(service, "_require_free", lambda _: None)
    return calls


def start(model: Path, port: int = 9000, replicas: int = 1) -> list[str]:
    return service.serve(model, port, None, choose(as_json=True), replicas)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_a_hash_that_the_user_gives_stays_unless_a_manifest_has_one(
    compose: list[tuple[tuple[str, ...], dict[str, str]]],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARTWRIGHT_MODEL_SHA256", "f" * 64)
    start(model)
    assert compose[-1][1]["CARTWRIGHT_MODEL_SHA256"] == "f" * 64
    recorded(model.parent, json.dumps({"files": {"m.gguf": {"sha256": HASH}}}))
    start(model)
    assert compose[-1][1]["CARTWRIGHT_MODEL_SHA256"] == HASH


def test_replicas_share_cores_memory_and_a_range_of_ports(
    compose: list[tuple[tuple[str, ...], dict[str, str]]],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARTWRIGHT_MEMORY", "1.5g")
    assert start(model, 9000, 2) == ["http://127.0.0.1:9000", "http://127.0.0.1:9001"]
    words, variables = compose[-1]
    assert words[:2] == ("up", "--detach") and "serve=2" in words
    assert variables["CARTWRIGHT_PORT"] == "9000-9001"
    assert variables["CARTWRIGHT_THREADS"] == "2"
    assert variables["CARTWRIGHT_MEMORY"] == f"{768 << 20}b"
    assert start(model) == ["http://127.0.0.1:9000"]
    assert compose[-1][1]["CARTWRIGHT_MEMORY"] == "1.5g"
    assert "CARTWRIGHT_THREADS" not in compose[-1][1] or "CARTWRIGHT_THREADS" in os.environ


@pytest.mark.parametrize(
    ("port", "replicas", "memory", "says"),
    [
        (9000, 0, "6g", "--replicas must be at least 1"),
        (9000, 5, "6g", "Docker has 4 cores"),
        (65_535, 2, "6g", "--port must be from 1 to 65534"),
        (9000, 4, "1g", "each gets 268 MB, and needs 268; set it higher"),
        (9000, 2, "much", "CARTWRIGHT_MEMORY=much: must be a size"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    compose: list[tuple[tuple[str, ...], dict[str, str]]],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    port: int,
    replicas: int,
    memory: str,
    says: str,
) -> None:
    monkeypatch.setenv("CARTWRIGHT_MEMORY", memory)
    with pytest.raises(InputError, match=says):
        start(model, port, replicas)
    assert not [words for words, _ in compose if words[0] == "up"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("6g", 6 << 30), ("512m", 512 << 20), ("0.5G", 1 << 29), ("100", 100), ("7kb", 7 << 10)],
)
def test_sizes_as_docker_takes_them(text: str, size_bytes: int) -> None:
    assert service.memory_bytes(text) == size_bytes


def test_a_load_test_names_what_it_lacks(project: Project, tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    done = project.invoke("load-test", "--model", str(model), "--profile", "toy")
    assert done.returncode == 2 and "has no rows yet" in done.stderr
    rows = tmp_path / "rows.jsonl"
    rows.write_text("", encoding="utf-8")
    words = ["load-test", "--model", str(model), "--dataset", str(rows)]
    done = project.invoke(*words, "--part", "everything")
    assert done.returncode == 2 and "--part everything: must be one of compare" in done.stderr
    done = project.invoke(*words, "--out", str(model))
    assert done.returncode == 2 and "name a folder" in done.stderr
    assert "Traceback" not in done.stderr and settings.ROOT.is_dir()
