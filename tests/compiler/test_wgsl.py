"""The WGSL of a library in 16-bit floats compiles in Chromium's WebGPU implementation, which needs no adapter for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import wgsl
from tests.helpers.gpu_library import TARGETS
from tests.helpers.tiny_library import chat_config

pytestmark = pytest.mark.skipif(wgsl.missing() is not None, reason=str(wgsl.missing()))


@pytest.mark.slow
def test_every_kernel_in_half_precision_compiles(tmp_path: Path) -> None:
    from llmbuild.compiler.lower import lower
    from llmbuild.quantization.scheme import SCHEMES

    scheme = SCHEMES["q4f16_1"]
    config = chat_config(quantization=scheme.name)
    lower(config, scheme, {}, TARGETS["webgpu"], system_lib=True, system_lib_prefix="", out=tmp_path)
    kernels = wgsl.shaders(tmp_path)
    assert len(kernels) > 50
    assert sum("enable f16;" in text for text in kernels.values()) > 30
    assert wgsl.validate(kernels, tmp_path / "shaders") == {}


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    wrong = "@compute @workgroup_size(1) fn main() { let __x = 1; }"
    right = "enable f16; @compute @workgroup_size(1) fn main() { let x = 1.0h; }"
    found = wgsl.validate({"wrong": wrong, "right": right}, tmp_path / "shaders")
    assert list(found) == ["wrong.wgsl"]
    assert "two or more underscores" in found["wrong.wgsl"][0]
