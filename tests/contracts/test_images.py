"""The Dockerfile, the locks and compose.yaml say the same, and every container is hardened."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core import dockerfile

ROOT = Path(__file__).parents[2]
IMAGES = {
    "trainer": "trainer",
    "trainer-cpu": "trainer",
    "quantizer": "quantizer",
    "quantizer-cpu": "quantizer",
    "auto-gptq": "auto-gptq",
    "converter": "converter",
    "bench": "bench",
    "bench-gpu": "bench-gpu",
    "serve": "serve",
    "load": "load",
}
"""Image to the folder of its requirements: a CPU and a CUDA flavour share one."""
LOCKS_BELOW = {"bench-gpu": {"quantizer"}}
"""What an image takes from another's folder first."""
WITHOUT_TORCH = {"serve", "load"}
"""Folders of images over no torch layer: the second is over the first."""
OLD = {"auto-gptq"}
"""Folders of images whose packages are of their own time: they share no layer with another."""
LOCKS_OF_NO_IMAGE = {"tools", "torch"}
CPU_IMAGES = ("trainer-cpu", "quantizer-cpu", "converter", "bench", "serve")
NETWORKED = {"base", "collect", "serve"}
SERVE_MAX_BYTES = 350e6
CPU_IMAGES_MAX_BYTES = 3.5e9

DOCKERFILE = (ROOT / "images/Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCKS = sorted((ROOT / "images").glob("*/requirements.lock"))


def image_of(service: dict[str, Any]) -> str:
    """`${REGISTRY}/bench:${TAG}` -> `bench`."""
    match = re.fullmatch(r"\$\{[^}]+\}/([a-z-]+):\$\{[^}]+\}", service["image"])
    assert match, service["image"]
    return match[1]


def locked(folder: str) -> dict[str, str]:
    """Package to version, as a lock pins them."""
    text = (ROOT / "images" / folder / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


def asked(folder: str) -> list[tuple[str, str]]:
    """Package and pinned version ("" for none), as requirements.in asks for them."""
    lines = (ROOT / "images" / folder / "requirements.in").read_text().splitlines()
    found = [
        re.fullmatch(r"([a-z0-9-]+)(?:==([\w.]+))?", line) for line in lines if line[:1] != "#"
    ]
    assert all(found), lines
    return [(match[1], match[2] or "") for match in found if match]


def images_in_dockerfile() -> set[str]:
    """The stages that end as an image: those that name the user they run as."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {stage.split()[2] for stage in stages if re.search(r"^USER ", stage, re.MULTILINE)}


def test_dockerfile_compose_and_requirements_name_the_same_images() -> None:
    built = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert images_in_dockerfile() == built == set(IMAGES)
    assert {path.parent.name for path in LOCKS} == set(IMAGES.values()) | LOCKS_OF_NO_IMAGE


def test_each_image_is_built_by_the_service_of_its_name() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            assert name == service["build"]["target"] == image_of(service)
            title = service["build"]["labels"]["org.opencontainers.image.title"]
            assert title == f"cartwright/{name}"


def test_each_service_runs_an_image_that_is_built_here() -> None:
    assert {image_of(service) for service in SERVICES.values()} == set(IMAGES)


def test_each_image_takes_the_lock_of_its_folder() -> None:
    for image, folder in IMAGES.items():
        stage = re.search(rf"^FROM \S+ AS {image}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
        assert stage
        took = re.findall(r"images/([a-z-]+)/requirements.lock|from=([a-z-]+)-wheels", stage[1])
        folders = {first or second for first, second in took}
        assert folders == {folder, *LOCKS_BELOW.get(image, ())}, image


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_a_lock_pins_every_package_by_hash(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"\n(?=[a-z])", text.strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in LOCKS}))
def test_a_lock_holds_what_its_requirements_ask_for(folder: str) -> None:
    pins = locked(folder)
    for package, version in asked(folder):
        assert package in pins, f"{folder}: run images/lock, {package} is not in the lock"
        assert version in ("", pins[package]), f"{folder}: run images/lock for {package}"


def test_torch_is_pinned_in_the_dockerfile_alone() -> None:
    for path in LOCKS:
        assert not {"torch", "triton"} & set(locked(path.parent.name)), path
    pins = re.findall(r"^ARG (\w*TORCH_VERSION)=", DOCKERFILE, re.MULTILINE)
    assert pins == ["TORCH_VERSION", "AUTO_GPTQ_TORCH_VERSION"]
    assert set(re.findall(r"\Storch==[^\s]+", DOCKERFILE)) == {
        f'"torch=={pin}"' for pin in ("$TORCH_VERSION", "$AUTO_GPTQ_TORCH_VERSION")
    }


def test_the_old_image_stands_alone() -> None:
    layers = dockerfile.read(ROOT).closure("auto-gptq")
    assert not {"torch-python", "torch-cuda", "quantizer-wheels"} & set(layers)
    for image in set(IMAGES) - OLD:
        assert not any("auto-gptq" in layer for layer in dockerfile.read(ROOT).closure(image))


def test_auto_gptq_has_a_transformers_4() -> None:
    assert re.fullmatch(r"4\.4\d\.\d+", locked("auto-gptq")["transformers"])
    assert not {"datasets", "gekko", "rouge"} & set(locked("auto-gptq"))


def test_images_over_the_torch_layer_agree_with_it() -> None:
    shared = locked("torch")
    for folder in set(IMAGES.values()) - WITHOUT_TORCH - OLD:
        for package, version in locked(folder).items():
            assert shared.get(package, version) == version, f"{folder}: {package}"


def test_what_puts_the_service_under_load_changes_nothing_of_it() -> None:
    below = locked("serve")
    for package, version in locked("load").items():
        assert below.get(package, version) == version, package
    assert dockerfile.read(ROOT).bases["load"] == "serve"


def test_an_image_agrees_with_the_lock_below_it() -> None:
    for image, folders in LOCKS_BELOW.items():
        for folder in folders:
            below = locked(folder)
            for package, version in locked(IMAGES[image]).items():
                assert below.get(package, version) == version, f"{image}: {package}"


def test_a_version_is_written_once() -> None:
    folders = {path.parent.name for path in LOCKS}
    for alike in (folders - OLD, OLD):
        pins = [package for folder in alike for package, version in asked(folder) if version]
        twice = [package for package, count in Counter(pins).items() if count > 1]
        assert twice == []
    arguments = re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE)
    assert len(arguments) == len(set(arguments))
    first_stage = DOCKERFILE.index("\nFROM ")
    assert not re.search(r"^ARG \w+=", DOCKERFILE[first_stage:], re.MULTILINE)


def test_nothing_floats() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    assert ":latest" not in DOCKERFILE + compose
    assert not re.search(r"^# *syntax=", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "${CARTWRIGHT_UID:-65532}:${CARTWRIGHT_GID:-65532}"
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["network_mode"] == ("bridge" if name in NETWORKED else "none")


def test_only_what_asks_for_a_gpu_gets_one() -> None:
    for name, service in SERVICES.items():
        cuda = image_of(service) in {"trainer", "quantizer", "auto-gptq", "bench-gpu"}
        assert ("deploy" in service) == cuda, name


def test_compiled_kernels_are_kept_where_no_artifact_is() -> None:
    kept = {
        name: value
        for name, value in SERVICES["bench-gpu"]["environment"].items()
        if name.endswith("_DIR")
    }
    assert len(kept) == 3
    assert all(place.startswith("/artifacts/.cache/kernels/") for place in kept.values())


def test_a_secret_reaches_the_services_that_need_it_alone() -> None:
    secrets = {
        name: service["secrets"] for name, service in SERVICES.items() if "secrets" in service
    }
    assert secrets == {
        "base": ["hf_token", "ca_bundle"],
        "collect": ["openai_api_key", "hf_token", "ca_bundle"],
        "serve": ["api_keys"],
    }


def test_no_key_or_token_is_a_variable_of_a_container() -> None:
    for name, service in SERVICES.items():
        assert not {"OPENAI_API_KEY", "HF_TOKEN"} & set(service.get("environment", {})), name


def test_what_asks_the_outside_sees_no_artifacts() -> None:
    assert "volumes" not in SERVICES["collect"]
    assert SERVICES["collect"]["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_the_service_listens_on_this_machine_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["serve"]["ports"])
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["serve"]


def test_each_stage_of_the_pipeline_has_its_service() -> None:
    pipeline = yaml.safe_load((ROOT / "stages/pipeline.yaml").read_text())
    for stage, body in pipeline["stages"].items():
        module = body.get("module", stage.replace("-", "_"))
        assert SERVICES[stage]["entrypoint"] == ["python3", "-m", f"stages.{module}"]


# What follows looks at the images themselves.


def inspect(image: str) -> dict[str, Any]:
    name = f"cartwright/{image}:local"
    shown = subprocess.run(
        ["docker", "image", "inspect", name], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, f"{name} is not built: run `invoke build {image}`"
    found: dict[str, Any] = json.loads(shown.stdout)[0]
    return found


def history(image: str) -> list[dict[str, str]]:
    """What made each layer of an image, the newest first."""
    shown = subprocess.run(
        ["docker", "history", "--no-trunc", "--human=false", "--format={{json .}}",
         f"cartwright/{image}:local"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [json.loads(line) for line in shown.splitlines()]


def layers(image: str) -> dict[str, int]:
    """Unpacked size (bytes) of each layer of an image, by digest."""
    # Other instructions change the image's settings and leave no layer; the base image's layer
    # has no instruction at all where it was imported.
    makes_layer = re.compile(r"RUN|COPY|ADD|WORKDIR|/bin/sh|#|$")
    steps = [step for step in reversed(history(image)) if makes_layer.match(step["CreatedBy"])]
    digests = inspect(image)["RootFS"]["Layers"]
    return dict(zip(digests, (int(step["Size"]) for step in steps), strict=True))


@pytest.mark.docker
@pytest.mark.usefixtures("cpu_images")
@pytest.mark.parametrize("image", CPU_IMAGES)
def test_an_image_runs_as_nobody_and_says_where_it_is_from(image: str) -> None:
    config = inspect(image)["Config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"cartwright/{image}"
    for key in ("revision", "version", "licenses"):
        assert labels[f"org.opencontainers.image.{key}"]
    assert labels["io.cartwright.fingerprint"]
    assert not any("TOKEN" in entry or "CERT" in entry for entry in config["Env"])


@pytest.mark.docker
@pytest.mark.usefixtures("cpu_images")
@pytest.mark.parametrize("image", CPU_IMAGES)
def test_no_secret_is_left_in_an_image(image: str) -> None:
    assert not any("BEGIN CERTIFICATE" in step["CreatedBy"] for step in history(image))
    left = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "--entrypoint=find",
         f"cartwright/{image}:local",
         "/run/secrets", "/root/.cache", "/tmp", "/opt/tools", "/wheels", "-type", "f"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    assert left == []


@pytest.mark.docker
@pytest.mark.usefixtures("cpu_images")
def test_serve_is_small() -> None:
    assert inspect("serve")["Size"] <= SERVE_MAX_BYTES
    health = inspect("serve")["Config"]["Healthcheck"]
    assert "/health" in health["Test"][-1]


@pytest.mark.docker
@pytest.mark.usefixtures("cpu_images")
def test_threads_of_the_service_do_not_spin_for_long() -> None:
    assert "GOMP_SPINCOUNT=2000" in inspect("serve")["Config"]["Env"]


@pytest.mark.docker
@pytest.mark.usefixtures("cpu_images")
def test_all_cpu_images_fit_their_budget() -> None:
    """Layers that images share are counted once, as they lie on disk."""
    on_disk: dict[str, int] = {}
    for image in CPU_IMAGES:
        on_disk |= layers(image)
    assert max(inspect(image)["Size"] for image in CPU_IMAGES) < sum(on_disk.values())
    assert sum(on_disk.values()) <= CPU_IMAGES_MAX_BYTES
