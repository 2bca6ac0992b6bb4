"""Runs the tests that need an image's packages inside that image, as hardened as in production."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stages.host import images
from tests.commands import ROOT, one_artifact

SUITES = {
    "trainer-cpu": "trainer",
    "quantizer-cpu": "quantizer",
    "converter": "converter",
    "bench": "bench",
    "serve": "serve",
    "bench-gpu": "bench_gpu",
    "auto-gptq": "auto_gptq",
}


@pytest.mark.parametrize("image", SUITES)
def test_suite_passes_in_its_image(image: str, copied_pytest: Path, tiny: Path) -> None:
    # Tests build the CPU images alone: a CUDA image takes gigabytes.
    if image in images.GPU_IMAGES and not images.survey([image])[0].is_current:
        pytest.skip(f"the image {image} is not built from these sources: `invoke build {image}`")
    suite = f"tests/stages/in_image/{SUITES[image]}"
    assert list((ROOT / suite).glob("test_*.py")), f"{suite} holds no tests"
    gguf = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    command = ["docker", "run", "--rm", "--init", "--network", "none", "--read-only"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "6g"]
    command += ["--tmpfs", "/tmp:exec,mode=1777", "--user", f"{os.getuid() or 65532}"]
    command += ["--volume", f"{ROOT}:/checkout:ro", "--workdir", "/checkout"]
    command += ["--volume", f"{copied_pytest}:/pytest:ro", "--volume", f"{gguf}:/model.gguf:ro"]
    command += ["--env", "PYTHONPATH=/checkout:/pytest"]
    command += ["--env", "CARTWRIGHT_TEST_GGUF=/model.gguf"]
    command += ["--entrypoint", "python3", f"cartwright/{image}:local", "-m", "pytest"]
    command += ["-p", "no:cacheprovider", "--confcutdir", suite, "-q", suite]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    print(done.stdout[-6_000:])
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
