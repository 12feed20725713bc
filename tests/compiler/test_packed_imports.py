"""The object with the bytecode and the device's code is the one that TVM writes of the same modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler import packed_imports

HOSTS = {
    "linux": {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"},
    "windows": {"kind": "llvm", "mtriple": "x86_64-w64-windows-gnu"},
    "macos": {"kind": "llvm", "mtriple": "arm64-apple-macosx13.0.0"},
    "android": {"kind": "llvm", "mtriple": "aarch64-linux-android"},
    "wasm": {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"},
}


def device_module(kind: str) -> Any:
    """A module of a device with one kernel."""
    import tvm
    from tvm import te

    a = te.placeholder((64,), "float32", name="a")
    function = te.create_prim_func([a, te.compute((64,), lambda i: a[i] + 1.0, name="b")])
    schedule = tvm.s_tir.Schedule(function)
    (loop,) = schedule.get_loops(schedule.get_sblock("b"))
    schedule.bind(loop, "threadIdx.x")
    (module,) = tvm.tirx.build(schedule.mod, target=tvm.target.Target({"kind": kind, "host": HOSTS["linux"]})).imports
    return module


def executable(root: Any, target: Any) -> Any:
    from tvm import relax
    from tvm.relax import vm_build

    builder = relax.ExecBuilder()
    with builder.function("identity", 1):
        builder.emit_ret(builder.r(0))
    return relax.VMExecutable(vm_build._ffi_api.VMLink(builder, target, root, [], {}))


@pytest.mark.parametrize("kinds", [[], ["metal"], ["opencl"], ["webgpu"], ["metal", "opencl"]], ids=str)
@pytest.mark.parametrize(
    ("host", "prefix"),
    [("linux", None), ("windows", None), ("macos", "my_"), ("android", "llama_q4f16_1_"), ("wasm", "")],
)
def test_the_object_is_tvms(host: str, prefix: str | None, kinds: list[str], tmp_path: Path) -> None:
    import tvm
    from tvm.runtime import _ffi_api

    target = tvm.target.Target(HOSTS[host])
    attributes = {} if prefix is None else {"system_lib_prefix": prefix}

    def library() -> Any:
        module = tvm.IRModule({}).with_attrs(attributes) if attributes else tvm.IRModule({})
        return tvm.get_global_func("target.build.llvm")(module, target)

    whole = library()
    for kind in kinds:
        whole.import_module(device_module(kind))
    code = packed_imports.device_bytes(whole)
    packed_imports.write(executable(library(), target), len(kinds), code, tmp_path / "devc.o")
    packed = _ffi_api.ModulePackImportsToLLVM(
        executable(whole, target).mod,
        prefix is not None,
        whole.get_function("_get_target_string")(),
        prefix or "",
    )
    packed.write_to_file(str(tmp_path / "tvm.o"))
    assert (tmp_path / "devc.o").read_bytes() == (tmp_path / "tvm.o").read_bytes()
    assert not list(tmp_path.glob("*.ll"))
