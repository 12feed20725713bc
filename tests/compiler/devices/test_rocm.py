"""Code objects for AMD GPUs: linked without ROCm, complete, for the architecture that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lief
import pytest

from llmbuild.compiler import devices
from llmbuild.compiler.devices import rocm
from llmbuild.errors import ToolchainError
from llmbuild.programs import zig
from llmbuild.targets.kinds import device_kind
from tests.helpers.device_module import lowered


def part(arch: str) -> Mapping[str, Any]:
    limits = {"max_num_threads": 256, "max_threads_per_block": 256, "max_shared_memory_per_block": 65536}
    device = {"kind": "rocm", "mcpu": arch, "thread_warp_size": 32 if arch.startswith("gfx1") else 64, **limits}
    return {"device": device, "host": {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}, "archs": [arch]}


@pytest.mark.parametrize("arch", ["gfx90a", "gfx942", "gfx1100"])
def test_a_code_object_is_complete(arch: str, tmp_path: Path) -> None:
    try:
        assert str(devices.identity(part(arch))).split()[0] in ("zig", "ld.lld")
    except ToolchainError as error:
        pytest.skip(error.what)
    out = lowered(tmp_path, part(arch))
    devices.require(part(arch), out / "devc.o")
    (data,) = rocm.code_objects((out / "devc.o").read_bytes())
    (tmp_path / "kernels.co").write_bytes(data)
    binary = lief.ELF.parse(str(tmp_path / "kernels.co"))
    assert binary is not None and binary.header.machine_type == lief.ELF.ARCH.AMDGPU
    # ELFABIVERSION_AMDGPU_HSA_V5 of LLVM's ELF.h.
    assert binary.header.identity_abi_version == 3
    assert rocm.machine(data) == arch
    symbols = [symbol for symbol in binary.dynamic_symbols if symbol.name]
    kernels = {str(symbol.name) for symbol in symbols if str(symbol.name).endswith(".kd")}
    assert len(kernels) >= 3 and "softmax_kernel.kd" in kernels
    assert [symbol.name for symbol in symbols if symbol.shndx == 0] == []
    with pytest.raises(ToolchainError, match=f"no code object for gfx1030.*\n.*it holds code for {arch}"):
        rocm.require(["gfx1030"], out / "devc.o")


def test_every_architecture_has_a_number() -> None:
    assert set(rocm._MACHINES.values()) == set(device_kind("rocm").archs)


def test_no_linker_is_an_error_with_the_way_to_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zig, "_program", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ROCM_PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"llmbuild\[cross\]"):
        devices.identity(part("gfx1100"))
    old = tmp_path / "ld.lld"
    old.write_text("#!/bin/sh\necho Debian LLD 14.0.6\n")
    old.chmod(0o755)
    with pytest.raises(ToolchainError, match=r"LLD 14\.0\.6 on PATH is too old"):
        devices.identity(part("gfx1100"))
    new = tmp_path / "ld.lld-19"
    new.write_text("#!/bin/sh\necho Debian LLD 19.1.7\n")
    new.chmod(0o755)
    assert devices.identity(part("gfx1100")) == "ld.lld 19.1.7"
