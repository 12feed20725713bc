"""Which architectures share a run of nvcc's front end, and that their PTX is the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llmbuild.compiler.device_code.nvcc import FLAGS, find_nvcc, front_ends
from tests.compiler.devices.test_cuda import KERNEL

ARCHS = ["sm_80", "sm_86", "sm_90", "sm_90a"]


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        (ARCHS, {"80": [*ARCHS, "compute_80"]}),
        (["sm_90a"], {"90": ["sm_90a", "compute_90"]}),
        (["sm_70", "sm_75"], {"70": ["sm_70"], "75": ["sm_75", "compute_75"]}),
        (["sm_75", "sm_86", "sm_120f"], {"75": ["sm_75"], "86": ["sm_86"], "120": ["sm_120f", "compute_120"]}),
        (["sm_103", "sm_100a", "sm_89"], {"100": ["sm_103", "sm_100a", "compute_100"], "89": ["sm_89"]}),
    ],
)
def test_architectures_with_the_same_ptx_share_a_front_end(archs: list[str], expected: dict[str, list[str]]) -> None:
    assert front_ends(KERNEL, archs) == expected


@pytest.mark.parametrize("header", ["cuda_bf16", "cuda_fp8"])
def test_types_that_later_architectures_compute_with_are_compiled_for_each(header: str) -> None:
    code = f"#include <{header}.h>\n{KERNEL}"
    assert front_ends(code, ["sm_80", "sm_90a"]) == {"80": ["sm_80"], "90a": ["sm_90a"], "90": ["compute_90"]}


@pytest.mark.full
@pytest.mark.parametrize("archs", [("80", "86", "90", "90a"), ("100", "103f", "120")])
def test_the_ptx_of_kernels_names_the_architecture_and_is_the_same_otherwise(
    archs: tuple[str, ...], tmp_path: Path
) -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    (tmp_path / "k.cu").write_text(KERNEL)
    texts = set()
    for arch in archs:
        command = [*nvcc.tool.command, *FLAGS, "-ptx", f"-arch=compute_{arch}", "-o", "k.ptx", "k.cu"]
        subprocess.run(command, cwd=tmp_path, check=True)
        before, found, after = (tmp_path / "k.ptx").read_text().partition(f".target sm_{arch}\n")
        assert found
        texts.add(before + after)
    assert len(texts) == 1
