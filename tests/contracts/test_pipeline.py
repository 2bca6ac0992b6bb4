"""pipeline.yaml, compose.yaml, the Dockerfile, the profiles and the stages' folders agree."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core import dockerfile, pipeline, profile, source
from stages.core.errors import InputError
from stages.core.plan import Planner, Step
from stages.host import runner
from stages.host.images import IMAGES

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = pipeline.load(ROOT)
DOCKERFILE = dockerfile.read(ROOT)
STAGES = list(PIPELINE.stages.values())
VARIANTS = [
    variant
    for stage in STAGES
    for variant in (stage, *(stage.with_params({"backend": name}) for name in stage.backends))
]
"""Every stage, and beside it itself with each backend that has images of its own."""
PROFILES = sorted(path.stem for path in (ROOT / profile.PROFILES_FOLDER).glob("*.yaml"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return dict(compose["services"])


def image_of(service: dict[str, Any]) -> str:
    match = re.search(r"/([\w-]+):", service["image"].replace(":-", ""))
    assert match is not None
    return match[1]


def name_of(stage: pipeline.Stage) -> str:
    return "-".join(filter(None, (stage.name, stage.backend)))


def step(stage: pipeline.Stage, device: str) -> Step:
    """A step of a plan, as far as the choice of a service looks at it."""
    return Step(stage, device, "missing", (), {}, {}, None, None, None)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid(name: str) -> None:
    loaded = profile.load(ROOT, PIPELINE, name)
    assert set(loaded.values) == set(PIPELINE.stages)


@pytest.mark.parametrize("name", PROFILES)
def test_awq_is_made_by_awq(name: str) -> None:
    values = profile.load(ROOT, PIPELINE, name).values
    assert (values["gptq"]["method"], values["awq"]["method"]) == ("gptq", "awq")


def test_awq_is_made_by_awq_whatever_a_profile_says(tmp_path: Path) -> None:
    shipped = profile.path_of(ROOT, "llama-3.2-1b").read_text(encoding="utf-8")
    assert "awq:\n" not in shipped
    mine = tmp_path / "mine.yaml"
    for section in ("", "awq:\n", "awq:\n  method: awq\n"):
        mine.write_text(f"{section}{shipped}", encoding="utf-8")
        assert profile.load(ROOT, PIPELINE, str(mine)).values["awq"]["method"] == "awq"
    mine.write_text(f"awq:\n  method: gptq\n{shipped}", encoding="utf-8")
    for settings, place in (([], f"{mine}:2: "), (["awq.method=gptq"], "--set ")):
        with pytest.raises(InputError) as refused:
            profile.load(ROOT, PIPELINE, str(mine), settings)
        assert str(refused.value) == (
            f"{place}awq.method: is always 'awq' in this stage, not 'gptq': leave it out"
        )


@pytest.mark.parametrize("name", PROFILES)
def test_bench_gpu_reads_the_checkpoints_that_it_measures(name: str) -> None:
    variants = profile.load(ROOT, PIPELINE, name).values["bench-gpu"]["variants"]
    read = {variant.partition(":")[0] for variant in variants if ":" in variant}
    assert read
    assert read <= set(PIPELINE.stages["bench-gpu"].inputs)


def test_without_a_gpu_the_report_is_made_of_the_rest() -> None:
    rest = PIPELINE.without_gpu()
    assert set(PIPELINE.stages) - set(rest.stages) == {"awq", "bench-gpu"}
    assert set(PIPELINE.upstream("report")) == set(PIPELINE.stages)
    assert rest.upstream("report") == ["data", "base", "train", "gguf", "bench-cpu", "report"]


@pytest.mark.parametrize("stage", VARIANTS, ids=name_of)
def test_a_stage_has_one_name_everywhere(stage: pipeline.Stage, services: dict[str, Any]) -> None:
    folder = ROOT / "stages" / stage.module
    for file in ("__init__.py", "__main__.py", "params.py", "stage.py"):
        assert (folder / file).is_file(), f"{folder / file} is missing"
    own_name = stage.module.replace("_", "-")
    assert f'main("{own_name}", ' in (folder / "__main__.py").read_text(encoding="utf-8")
    for device, image in stage.images.items():
        service = services[runner.service_of(step(stage, device))]
        assert image_of(service) == image
        assert service["entrypoint"] == ["python3", "-m", f"stages.{stage.module}"]
        assert (service["network_mode"] != "none") == stage.network


def test_only_base_has_network() -> None:
    assert [stage.name for stage in STAGES if stage.network] == ["base"]


def test_the_services_have_the_names_that_the_docs_give(services: dict[str, Any]) -> None:
    gptq = PIPELINE.stages["gptq"]
    old = gptq.with_params({"backend": "auto-gptq"})
    named = [runner.service_of(step(gptq, device)) for device in ("cpu", "gpu")]
    assert [*named, runner.service_of(step(old, "gpu"))] == ["gptq", "gptq-gpu", "gptq-auto-gptq"]


@pytest.mark.parametrize("stage", STAGES, ids=name_of)
def test_a_backend_with_images_is_one_that_the_parameter_may_name(stage: pipeline.Stage) -> None:
    if stage.backends:
        hints = typing.get_type_hints(profile.params_type_of(stage))
        assert set(stage.backends) < set(typing.get_args(hints["backend"]))


def test_auto_gptq_takes_its_own_image_and_a_gpu() -> None:
    gptq = PIPELINE.stages["gptq"]
    assert gptq.with_params({"backend": "gptqmodel"}) == gptq
    old = gptq.with_params({"backend": "auto-gptq"})
    assert (old.images, old.device) == ({"gpu": "auto-gptq"}, "gpu")


def test_the_key_of_a_backend_is_of_its_own_image(tmp_path: Path) -> None:
    def planned(backend: str) -> Step:
        loaded = profile.load(ROOT, PIPELINE, "tiny", [f"gptq.backend={backend}"])
        planner = Planner(
            root=ROOT,
            artifacts=tmp_path,
            pipeline=PIPELINE,
            profile=loaded,
            resolve=lambda stage: "gpu" if "gpu" in stage.images else "cpu",
        )
        return planner.plan(PIPELINE.upstream("gptq"))[-1]

    for backend, image in (("gptqmodel", "quantizer"), ("auto-gptq", "auto-gptq")):
        one = planned(backend)
        targets = [
            name for name in one.recipe["environment"] if name.startswith("images/Dockerfile")
        ]
        assert targets == [f"images/Dockerfile {image}"]
        assert one.stage.images[one.device] == image


@pytest.mark.parametrize("stage", VARIANTS, ids=name_of)
def test_an_image_holds_what_its_stages_import(stage: pipeline.Stage) -> None:
    for image in stage.images.values():
        copied = DOCKERFILE.sources(image)
        for path in source.files_of(ROOT, stage.module):
            name = path.relative_to(ROOT).as_posix()
            held = any(name == one or name.startswith(f"{one.rstrip('/')}/") for one in copied)
            assert held, f"the image {image} lacks {name}, which {stage.name} needs"


def test_every_image_is_known_to_build_all() -> None:
    used = {image for stage in VARIANTS for image in stage.images.values()}
    assert used <= set(IMAGES)
    assert set(IMAGES) <= set(DOCKERFILE.targets)


def test_every_image_has_a_service_that_builds_it(services: dict[str, Any]) -> None:
    for image in IMAGES:
        assert services[image]["build"]["target"] == image
        assert image_of(services[image]) == image
