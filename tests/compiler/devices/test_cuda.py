"""CUDA compilers without a GPU: which one is taken, what is in the fat binary, and in a library's object."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler import devices
from llmbuild.compiler.device_code import fatbin, nvcc, nvrtc
from llmbuild.compiler.devices import cuda
from llmbuild.errors import ToolchainError
from tests.helpers.device_module import lowered
from tests.helpers.kept import Memory

HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}
ARCHS = ["sm_80", "sm_90", "sm_90a"]

# A product of 16 x 16 tiles on tensor cores, in the form of TVM's kernels.
KERNEL = """
#ifndef __CUDACC_RTC__
#include <cuda.h>
#endif
#include <cuda_fp16.h>
#include <mma.h>
extern "C" __global__ void __launch_bounds__(32) product(half* a, half* b, float* c) {
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, half, nvcuda::wmma::row_major> x;
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, half, nvcuda::wmma::col_major> y;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum;
  nvcuda::wmma::fill_fragment(sum, -INFINITY);
  nvcuda::wmma::load_matrix_sync(x, a, 16);
  nvcuda::wmma::load_matrix_sync(y, b, 16);
  nvcuda::wmma::mma_sync(sum, x, y, sum);
  nvcuda::wmma::store_matrix_sync(c, sum, 16, nvcuda::wmma::mem_row_major);
}
"""


def part(archs: list[str]) -> Mapping[str, Any]:
    limits = {"max_num_threads": 1024, "max_threads_per_block": 1024, "max_shared_memory_per_block": 49152}
    device = {"kind": "cuda", "arch": archs[0], "thread_warp_size": 32, **limits}
    return {"device": device, "host": HOST, "archs": archs}


@pytest.fixture
def compiler(request: pytest.FixtureRequest) -> Any:
    """nvcc or NVRTC, as the test asks, where it is installed."""
    found = nvcc.find_nvcc() if request.param == "nvcc" else nvrtc.find_nvrtc()
    if found is None:
        pytest.skip(
            "nvcc is not on PATH" if request.param == "nvcc" else "the wheels of llmbuild[cuda] are not installed"
        )
    return found


@pytest.mark.parametrize("compiler", ["nvcc", "nvrtc"], indirect=True)
def test_a_fat_binary_holds_machine_code_for_each_architecture(compiler: Any, tmp_path: Path) -> None:
    made = compiler.compile(KERNEL, ARCHS)
    assert compiler.compile(KERNEL, ARCHS) == made
    found = sorted((entry.kind, entry.arch) for entry in fatbin.entries(b"before" + made + b"after"))
    ptx = "sm_80" if isinstance(compiler, nvcc.Nvcc) else "sm_90"
    assert found == [("cubin", "sm_80"), ("cubin", "sm_90"), ("cubin", "sm_90a"), ("ptx", ptx)]
    assert cuda.lacking(ARCHS, made) is None
    assert b"product" in made and b"fill_fragment" not in made and str(Path.home()).encode() not in made
    assert re.match(r"nvcc \d+\.\d+\.\d+$|nvrtc \d+\.\d+\.\d+ \(runtime ", compiler.identity)
    cuobjdump = _cuda_tool("cuobjdump")
    if cuobjdump is not None:
        (tmp_path / "k.fatbin").write_bytes(made)
        listed = subprocess.run(
            [cuobjdump, "-lelf", "-lptx", "k.fatbin"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert sorted((kind, arch) for arch, kind in re.findall(r"\.(sm_\w+)\.(cubin|ptx)", listed.stdout)) == found


@pytest.mark.parametrize("compiler", ["nvcc", "nvrtc"], indirect=True)
def test_what_the_compiler_says_is_in_the_error(compiler: Any) -> None:
    with pytest.raises(ToolchainError, match="undefined_thing"):
        compiler.compile('extern "C" __global__ void k(int* a) { *a = undefined_thing; }', ["sm_80"])


@pytest.mark.parametrize("compiler", ["nvcc", "nvrtc"], indirect=True)
def test_flags_in_the_environment_do_not_reach_the_code(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'extern "C" __global__ void twice(int* a) { *a *= 2; }'
    plain = compiler.compile(code, ["sm_80"])
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-G")
    assert compiler.compile(code, ["sm_80"]) == plain


@pytest.mark.full
@pytest.mark.parametrize("compiler", ["nvrtc"], indirect=True)
def test_kept_code_is_that_of_the_same_architectures(
    compiler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "find_compiler", lambda: compiler)
    kept = Memory()
    for archs in (["sm_80"], ["sm_80", "sm_90"], ["sm_80"]):
        kept.count()
        out = lowered(tmp_path / f"{len(kept)}", part(archs), kept=kept)
        devices.require(part(archs), out / "devc.o")
    assert kept.made == 0


@pytest.mark.parametrize(
    ("compiler", "archs"),
    [
        ("nvrtc", ARCHS[:1]),
        pytest.param("nvrtc", ARCHS, marks=pytest.mark.full),
        pytest.param("nvcc", ARCHS, marks=pytest.mark.full),
    ],
    indirect=["compiler"],
)
def test_a_lowered_module_holds_machine_code_with_tensor_cores(
    compiler: Any, archs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler == nvrtc.find_nvrtc():
        monkeypatch.setattr(cuda, "find_nvcc", lambda: None)
    out = lowered(tmp_path, part(archs))
    data = (out / "devc.o").read_bytes()
    devices.require(part(archs), out / "devc.o")
    assert {entry.arch for entry in fatbin.entries(data) if entry.kind == "cubin"} == set(archs)
    assert b"__global__" not in data and b"#include" not in data
    nvdisasm, cuobjdump = _cuda_tool("nvdisasm"), _cuda_tool("cuobjdump")
    if nvdisasm is None or cuobjdump is None:
        return
    start = data.index(fatbin.MAGIC)
    size = int.from_bytes(data[start + 8 : start + 16], "little")
    (tmp_path / "k.fatbin").write_bytes(data[start : start + 16 + size])
    path = f"{Path(nvdisasm).parent}:/usr/bin:/bin"
    said = subprocess.run(
        [cuobjdump, "-sass", "k.fatbin"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True
    ).stdout
    # The PTX has a section too, without instructions.
    sections = re.split(r"^\s*arch = ", said, flags=re.M)[1:]
    codes = {section.split()[0]: section for section in sections if "code for " in section}
    assert set(codes) == set(archs)
    assert all("HMMA" in code for code in codes.values())


@pytest.mark.full
@pytest.mark.parametrize("compiler", ["nvrtc"], indirect=True)
def test_headers_that_do_not_count_are_in_no_kernel(compiler: nvrtc.Nvrtc, tmp_path: Path) -> None:
    """All that TVM's generator of CUDA code includes (codegen_cuda.cc), compiled where those headers are not."""
    tree = compiler.parts.trees[0]
    for name, *_ in tree.walk():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(compiler.root / name)
    assert (compiler.root / "include/cccl/cub").is_dir() and not (tmp_path / "include/cccl/cub").exists()
    included = ("cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda_fp6.h", "cuda_fp4.h", "math_constants.h", "mma.h")
    headers = (*included, "cooperative_groups.h", "cuda/pipeline", "cuda/barrier", "cuda/std/utility")
    code = "".join(f"#include <{name}>\n" for name in headers) + KERNEL
    bare = nvrtc.Nvrtc(compiler.versions, tmp_path)
    assert bare.compile(code, ["sm_90"]) == compiler.compile(code, ["sm_90"])


def test_source_is_never_embedded_silently(tmp_path: Path) -> None:
    path = tmp_path / "devc.o"
    path.write_bytes(b'\x7fELF extern "C" __global__ void __launch_bounds__(256) add(float* a)')
    with pytest.raises(ToolchainError, match="holds CUDA source"):
        devices.require(part(ARCHS), path)
    path.write_bytes(b"\x7fELF")
    with pytest.raises(ToolchainError, match=r"no machine code for sm_80, machine code for sm_90, .*, PTX for later"):
        devices.require(part(ARCHS), path)


def test_no_compiler_is_an_error_with_the_way_to_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: None)
    with pytest.raises(ToolchainError, match="there is no CUDA compiler") as caught:
        devices.identity(part(["sm_80"]))
    assert "pip install 'llmbuild[cuda]'" in str(caught.value)
    with pytest.raises(ToolchainError, match="there is no CUDA compiler"), devices.prepare(part(["sm_80"])):
        pass


def _false_nvcc(place: Path, version: str = "12.4.99") -> None:
    program = place / "nvcc"
    program.write_text(
        f'#!/bin/sh\ncase $1 in --version) echo "release, V{version}";; --list-gpu-code) echo sm_80; echo sm_90;; esac\n'
    )
    program.chmod(0o755)


def test_nvcc_is_named_by_its_version_and_asked_what_it_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    _false_nvcc(tmp_path / "bin")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert devices.identity(part(["sm_80", "sm_90a"])) == "nvcc 12.4.99"
    with pytest.raises(ToolchainError, match=r"nvcc 12\.4\.99 makes no code for sm_100a, sm_120"):
        devices.identity(part(["sm_80", "sm_100a", "sm_120"]))


def test_wheels_that_are_incomplete_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "nvidia-nvfatbin":
            raise nvrtc.importlib.metadata.PackageNotFoundError(name)
        return "13.5.37"

    monkeypatch.setattr(nvrtc.importlib.metadata, "version", version)
    with pytest.raises(ToolchainError, match="not installed: nvidia-nvfatbin"):
        nvrtc.find_nvrtc()


def test_other_devices_need_no_compiler() -> None:
    for kind in ("metal", "opencl", "webgpu", "vulkan", "llvm"):
        assert devices.identity({"device": {"kind": kind}, "host": HOST}) is None
    assert devices.identity({"device": "cpu", "host": HOST}) is None


def test_asking_for_the_compiler_imports_no_tvm() -> None:
    code = (
        "import sys; from llmbuild.compiler import devices\n"
        "try: devices.identity({'device': {'kind': 'cuda'}, 'host': {}, 'archs': ['sm_80']})\n"
        "except Exception as error: assert type(error).__name__ == 'ToolchainError', error\n"
        "print([name for name in ('tvm', 'numpy') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def _cuda_tool(name: str) -> str | None:
    """A program of CUDA on PATH, or of the wheels."""
    spec = importlib.util.find_spec("nvidia")
    places = [str(Path(place) / "cu13" / "bin") for place in (spec and spec.submodule_search_locations) or ()]
    return shutil.which(name) or next((path for place in places if (path := shutil.which(name, path=place))), None)
