"""The image compiles every kind of kernel that the GPU bench uses; no GPU is needed for that."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torch.cuda import _utils
from torch.utils import cpp_extension
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.build import compile_module_from_src

from stages.runtime import marlin_gemv

HOPPER = 90

EXTENSION = """\
#include <cuda_fp16.h>
#include <thrust/complex.h>

__global__ void doubled(__half *values, int count) {
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < count) values[place] = __hadd(values[place], values[place]);
}

extern "C" int launch(void *values, int count) {
    doubled<<<1, 128>>>(static_cast<__half *>(values), count);
    return cudaGetLastError();
}
"""
MODULE = """\
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&definition); }
"""


@triton.jit
def _doubled(values, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * block + tl.arange(0, block)
    there = place < count
    tl.store(values + place, 2 * tl.load(values + place, mask=there), mask=there)


def test_the_compiler_is_of_torchs_cuda() -> None:
    said = subprocess.run(["nvcc", "--version"], text=True, capture_output=True, check=True).stdout
    assert f"release {torch.version.cuda}," in said


def test_a_cuda_extension_compiles_and_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    source = tmp_path / "doubled.cu"
    source.write_text(EXTENSION, encoding="utf-8")
    cpp_extension.load(
        "doubled", [str(source)], build_directory=str(tmp_path), is_python_module=False
    )
    assert (tmp_path / "doubled.so").stat().st_size > 0


def test_marlins_sources_are_there_under_a_read_only_root() -> None:
    from gptqmodel.utils import marlin

    for dtype in ("fp16", "bf16"):
        names = [Path(source).name for source in marlin._marlin_sources(dtype)]
        assert f"kernel_{dtype}_ku4b8.cu" in names  # GPTQ, 4 bits
        assert f"kernel_{dtype}_ku4.cu" in names  # AWQ


def test_the_kernel_for_few_rows_compiles() -> None:
    options = [f"-D{name}=1" for name in ("ROWS", "PARTS", "WARPS", "BFLOAT16")]
    binary, name = _utils._nvrtc_compile(
        marlin_gemv._SOURCE.read_text(encoding="utf-8"),
        "gemv",
        compute_capability=str(HOPPER),
        nvcc_options=options,
    )
    assert len(binary) > 1_000
    assert "gemv" in name


def test_triton_compiles_kernels_and_what_launches_them() -> None:
    signature = {"values": "*fp32", "count": "i32", "block": "constexpr"}
    source = ASTSource(fn=_doubled, signature=signature, constexprs={(2,): 128})
    made = triton.compile(source, target=GPUTarget("cuda", HOPPER, 32))
    assert len(made.asm["cubin"]) > 1_000
    assert compile_module_from_src(MODULE, "launcher").__name__ == "launcher"
