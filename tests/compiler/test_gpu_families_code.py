"""Every model family as device code in float16: generated for each device kind, accepted by the compilers that exist here.

In CI one decoder is built that has every part of every family.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler import devices
from llmbuild.compiler.device_code import fatbin
from llmbuild.compiler.devices import rocm
from llmbuild.compiler.lower import lower
from llmbuild.errors import ToolchainError
from llmbuild.models import build
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers import wgsl
from tests.helpers.generic_library import only
from tests.helpers.gpu_library import TARGETS
from tests.helpers.opencl_source import front_end_errors, opencl_sources, require_clang
from tests.helpers.parts import composed, covering, parts
from tests.helpers.tiny_library import TINY_LLAMA, chat_config
from tests.helpers.variants import in_ci, variants

SCHEME = "q4f16_1"
ARCHS = {"cuda": "sm_80", "rocm": "gfx942"}
FUNCTIONS = ("embed", "batch_prefill", "decode", "batch_decode")


def objects(kind: str, config: dict[str, Any], out: Path) -> Path:
    """The library of a tiny model for the device kind; the test is skipped where the device's compiler is missing."""
    part = {**TARGETS[kind], **({"archs": [ARCHS[kind]]} if kind in ARCHS else {})}
    try:
        devices.identity(part)
    except ToolchainError as error:
        pytest.skip(error.what)
    web = kind == "webgpu"
    lower(config, SCHEMES[SCHEME], {}, part, system_lib=web, system_lib_prefix="" if web else None, out=out)
    return out


OTHERS = ("cuda", "rocm", "opencl", "adreno", "webgpu")
"""Their functions are those of Metal in another language, which runs in other tests (tests/e2e has a browser's and OpenCL's), or
takes CUDA's compiler minutes (test_cuda.py compiles a library): all of them are compiled in the full tests."""


def test_families_that_have_every_part() -> None:
    chosen = covering()
    assert set().union(*map(parts, chosen)) == set().union(*(parts(name) for name in variants() if in_ci(name)))
    assert len(chosen) < sum(map(in_ci, variants())) * 0.7


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.full] if kind in OTHERS else []) for kind in TARGETS]
)
def test_every_part(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(_: Any, __: Any, *rest: Any, taps: bool) -> build.ExportedModel:
        assert not taps
        model = build.export_decoder(composed(), *rest)
        only(model.module, FUNCTIONS)
        return model

    monkeypatch.setattr(build, "export", export)
    check(kind, objects(kind, chat_config(TINY_LLAMA, SCHEME), tmp_path), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", [name for name in variants() if in_ci(name)])
def test_every_family(kind: str, name: str, tmp_path: Path) -> None:
    check(kind, objects(kind, chat_config(variants()[name], SCHEME), tmp_path), tmp_path)


def check(kind: str, out: Path, scratch: Path) -> None:
    """CUDA and ROCm: machine code for the architecture is inside.  Metal: only that source is generated."""
    data = (out / "devc.o").read_bytes()
    if kind == "metal":
        assert b"simdgroup_multiply_accumulate" in data
    elif kind == "cuda":
        assert ARCHS[kind] in {entry.arch for entry in fatbin.entries(data) if entry.kind == "cubin"}
    elif kind == "rocm":
        (code,) = rocm.code_objects(data)
        assert rocm.machine(code) == ARCHS[kind]
    elif kind in ("opencl", "adreno"):
        require_clang()
        (text,) = opencl_sources(data)
        assert front_end_errors(text, scratch / "kernels.cl") == ""
    elif kind == "webgpu":
        if reason := wgsl.missing():
            pytest.skip(reason)
        kernels = wgsl.shaders(out)
        assert len(kernels) > 50
        most = max(text.count("var<storage") for text in kernels.values())
        assert most <= wgsl.MOST_STORAGE
        assert wgsl.validate(kernels, scratch / "shaders") == {}
