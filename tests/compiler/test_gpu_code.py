"""The GPU kernels of our own compile for every device kind, and keep to the limits of the strictest."""

from __future__ import annotations

import functools
import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.device_code import DEVICES, device_code

EVERYWHERE = {
    "apply_logit_bias_inplace": "logits.logit_bias_kernel",
    "apply_penalty_inplace": "logits.penalty_kernel",
    "apply_bitmask_inplace": "logits.bitmask_kernel",
    "softmax_statistics": "softmax.statistics_kernel",
    "softmax_probabilities": "softmax.probabilities_kernel",
    "scatter": "row_moves.scatter_kernel",
    "gather": "row_moves.gather_kernel",
    "merge": "merge.merge_kernel",
    "argsort": "argsort.argsort_kernel",
    "top_p": "sampling.top_p_kernel",
    "multinomial": "sampling.multinomial_kernel",
    "take_probs": "sampling.take_probs_kernel",
    "top_p_pivot": "renormalize.pivot_kernel",
    "top_p_renormalize": "renormalize.renormalize_kernel",
}
NOT_FOR_WEBGPU = {"verify_draft_tokens": "verify.verify_kernel"}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "softmax.statistics_kernel": (300,),
    "softmax.probabilities_kernel": (None,),
    "row_moves.scatter_kernel": ("float16",),
    "row_moves.gather_kernel": ("float16",),
    "merge.merge_kernel": (9, 128, "float16"),
}
LAUNCHES = len(EVERYWHERE) + 3  # The sort has four kernels.


@functools.cache
def kernel(path: str) -> Any:
    module, make = path.split(".")
    functions = importlib.import_module(f"llmbuild.compiler.kernels.gpu.{module}")
    return getattr(functions, make)(*ARGUMENTS.get(path, ()))


@functools.cache
def code(kind: str) -> str:
    names = EVERYWHERE if kind == "webgpu" else EVERYWHERE | NOT_FOR_WEBGPU
    return device_code({name: kernel(path) for name, path in names.items()}, kind)


ENTRY = {
    "cuda": r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\([^;{]*\) \{',
    "rocm": r"define .*amdgpu_kernel void @(\w+)\(",
    "metal": r"kernel void (\w+)\(",
    "opencl": r"__kernel void (\w+)\([^;{]*\) \{",
    "webgpu": r"@compute @workgroup_size\(\d+, 1, 1\)\nfn (\w+)\(",
}


@pytest.mark.parametrize("kind", DEVICES)
def test_every_kernel_is_generated(kind: str) -> None:
    found = re.findall(ENTRY[kind], code(kind))
    expected = LAUNCHES + (kind != "webgpu")
    assert len(found) == len(set(found)) == expected, found


def test_webgpu_limits() -> None:
    text = code("webgpu")
    assert not re.findall(r"\b[iuf]64\b|\bi8\b|\bu8\b|atomic", text)
    # The third grid dimension is only what TVM folds a large first one into.
    assert not re.findall(r"blockIdx\.z(?! \* gridDim\.x)", text)
    assert {int(size) for size in re.findall(r"@workgroup_size\((\d+)", text)} == {256}
    for kernel in re.split(r"(?=// Function: )", text):
        assert len(re.findall(r"var<storage", kernel)) <= 8
        shared = sum(int(count) * 4 for count in re.findall(r"var<workgroup> \w+ : array<[if]32, (\d+)>", kernel))
        assert kernel.count("var<workgroup>") == len(re.findall(r"var<workgroup> \w+ : array<[if]32, \d+>", kernel))
        assert shared <= 16 << 10
    assert "2147483648i" not in text  # No literal of WGSL.
    assert not re.findall(r"\b__\w+", text)  # No name of WGSL.


def test_no_wide_numbers_elsewhere() -> None:
    for kind, wide in (("metal", r"\blong\b|\bdouble\b"), ("opencl", r"\blong\b|\bdouble\b|\bulong\b")):
        assert not re.findall(wide, code(kind)), kind


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_compiles_it(tmp_path: Path) -> None:
    (tmp_path / "kernels.cu").write_text(code("cuda"))
    subprocess.run(
        ["nvcc", "-arch=sm_80", "-cubin", "-o", "kernels.cubin", "kernels.cu"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert (tmp_path / "kernels.cubin").stat().st_size > 10_000
