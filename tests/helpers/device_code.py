"""The device code that TVM generates for scheduled PrimFuncs, as text: for reading, and for the compilers that exist here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOSTS = {"webgpu": "wasm32-unknown-unknown-wasm", "metal": "arm64-apple-macosx13.0.0"}
LINUX = "x86_64-unknown-linux-gnu"

DEVICES: Mapping[str, Mapping[str, Any]] = {
    "cuda": {"arch": "sm_80", "max_threads_per_block": 1024},
    "rocm": {"mcpu": "gfx1100", "max_threads_per_block": 256},
    "metal": {"max_threads_per_block": 256, "max_shared_memory_per_block": 32768, "thread_warp_size": 1},
    "opencl": {"max_threads_per_block": 256},
    "webgpu": {"max_num_threads": 256},
}
"""A target of each kind that the TVM wheel generates code for."""


def device_code(functions: Mapping[str, Any], kind: str) -> str:
    """One module's code for a device kind.  CUDA's is C++, ROCm's the text of LLVM."""
    import tvm

    from llmbuild.compiler.device_code.callbacks import replaced

    cuda: list[str] = []

    def keep(code: str, *_: Any) -> bytes:
        """Where TVM's CUDA runtime is loaded, the code comes this way; a module of source is made otherwise."""
        cuda.append(code)
        return b"\x7fELF"

    host = {"kind": "llvm", "mtriple": HOSTS.get(kind, LINUX)}
    target = tvm.target.Target({"kind": kind, **DEVICES[kind], "host": host})
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    tools = {
        "tvm_callback_cuda_compile": keep,
        "tvm_callback_rocm_bitcode_path": list,
        "tvm_callback_rocm_link": lambda code: code,
    }
    with replaced(tools), target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        if kind != "cuda":
            module = tvm.tirx.transform.ForceNarrowIndexToInt32()(module)
        built = tvm.tirx.build(module, target=target)
        return cuda[0] if cuda else str(built.imports[0].inspect_source())
