"""Every model family as device code in float16: generated for each device kind, accepted by the compilers that exist here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler import devices
from llmbuild.compiler.device_code import fatbin
from llmbuild.compiler.devices import rocm
from llmbuild.compiler.lower import lower
from llmbuild.errors import ToolchainError
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers import wgsl
from tests.helpers.checkpoints import CONFIGS
from tests.helpers.gpu_library import TARGETS
from tests.helpers.opencl_source import front_end_errors, opencl_sources, require_clang
from tests.helpers.tiny_library import chat_config

SCHEME = "q4f16_1"
ARCHS = {"cuda": "sm_80", "rocm": "gfx942"}
VARIANTS = (
    "gpt_neox",
    "gpt_neox-sequential",
    "llama-bias",
    "llama-tied",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-tied",
)
USUAL = {("cuda", "gpt_neox"), ("webgpu", "qwen3")}
"""Llama is built for every kind by tests/e2e/test_platforms.py, and the other kinds take the same functions as these."""


def objects(kind: str, variant: str, out: Path) -> Path:
    """The library of the tiny model for the device kind; the test is skipped where the device's compiler is missing."""
    part: Mapping[str, Any] = TARGETS[kind]
    if kind in ARCHS:
        part = {**part, "archs": [ARCHS[kind]]}
    try:
        devices.identity(part)
    except ToolchainError as error:
        pytest.skip(error.what)
    web = kind == "webgpu"
    config = chat_config(CONFIGS[variant], SCHEME)
    lower(config, SCHEMES[SCHEME], {}, part, system_lib=web, system_lib_prefix="" if web else None, out=out)
    return out


@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        pytest.param(kind, variant, marks=() if (kind, variant) in USUAL else pytest.mark.full)
        for kind in ("cuda", "rocm", "metal", "opencl", "webgpu")
        for variant in VARIANTS
    ],
)
def test_device_code(kind: str, variant: str, tmp_path: Path) -> None:
    """CUDA and ROCm: machine code for the architecture is inside.  Metal: only that source is generated."""
    out = objects(kind, variant, tmp_path)
    data = (out / "devc.o").read_bytes()
    if kind == "metal":
        assert b"simdgroup_multiply_accumulate" in data
    elif kind == "cuda":
        assert ARCHS[kind] in {entry.arch for entry in fatbin.entries(data) if entry.kind == "cubin"}
    elif kind == "rocm":
        (code,) = rocm.code_objects(data)
        assert rocm.machine(code) == ARCHS[kind]
    elif kind == "opencl":
        require_clang()
        (text,) = opencl_sources(data)
        assert front_end_errors(text, tmp_path / "kernels.cl") == ""
    elif kind == "webgpu":
        if reason := wgsl.missing():
            pytest.skip(reason)
        kernels = wgsl.shaders(out)
        assert len(kernels) > 50
        assert wgsl.validate(kernels, tmp_path / "shaders") == {}
