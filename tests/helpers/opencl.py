"""Run code that was generated for OpenCL on this machine: PoCL executes the kernels, TVM's CPU runtime does the rest.

The TVM wheel has no OpenCL runtime, but its generated host code launches a kernel through a function of the kernel's name,
wherever that comes from.  So the code generator is wrapped: it keeps the OpenCL source, and returns a module of small
functions that hand a launch (pointers, numbers, grid) to PoCL.  The target says that its memory is the CPU's
("target_device_type"), which is true of PoCL: tensors, the VM and the KV cache are the CPU's, and kernels read and write
them where they are.  Everything else, host code and kernel source alike, is what a real OpenCL target gets.

    with compiling() as device:
        executable = relax.build(module, target=device.target, …)     # or tvm.compile, or lower's pipeline
    machine = relax.VirtualMachine(executable, tvm.cpu())
    machine["prefill"](…); device.launches["prefill_kernel"]
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
DEVICE = {"kind": "opencl", "max_threads_per_block": 256, "max_num_threads": 256}
CODEGEN = "target.build.opencl"
LAUNCH = "llmbuild.test.opencl.launch"

_devices: dict[int, Device] = {}
_numbers = itertools.count()


@dataclass
class Kernel:
    """A compiled kernel: how its arguments and its grid arrive."""

    handle: Any
    dtypes: tuple[str, ...]
    extents: tuple[str, ...]


@dataclass
class Device:
    """The OpenCL code of one build.  `launches` counts kernel launches by name, `sources` holds the text."""

    target: Any
    options: tuple[str, ...] = ()
    number: int = field(default_factory=lambda: next(_numbers))
    kernels: dict[str, Kernel] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    launches: Counter[str] = field(default_factory=Counter)

    def launch(self, name: str, *values: Any) -> None:
        """Run a kernel and wait for it."""
        import pyopencl as cl

        kernel = self.kernels[name]
        self.launches[name] += 1
        count = len(kernel.dtypes)
        kept = []  # PoCL gets addresses; the objects that stand for them must live until the kernel is done.
        for position, (dtype, value) in enumerate(zip(kernel.dtypes, values[:count], strict=True)):
            if dtype == "handle":
                # A tensor without elements has no address.
                address = ctypes.cast(value, ctypes.POINTER(ctypes.c_uint8)) if value else None
                kept.append(cl.SVM(np.ctypeslib.as_array(address, (1,)) if address else np.zeros(64, np.uint8)))
                kernel.handle.set_arg(position, kept[-1])
            else:
                kernel.handle.set_arg(position, np.dtype(dtype).type(value))
        extents = dict(zip(kernel.extents, values[count:], strict=True))
        local = [int(extents.get(f"threadIdx.{axis}", 1)) for axis in "xyz"]
        # An empty grid is one block to TVM's runtimes: kernels check their bounds.
        blocks = [max(1, int(extents.get(f"blockIdx.{axis}", 1))) for axis in "xyz"]
        queue = _queue()
        cl.enqueue_nd_range_kernel(queue, kernel.handle, [a * b for a, b in zip(local, blocks, strict=True)], local)
        queue.finish()


def require() -> None:
    """Skip the test where no OpenCL platform runs on the CPU."""
    pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    if _cpu() is None:
        pytest.skip("no OpenCL for this CPU, or one that is older than it (on Debian: apt-get install pocl-opencl-icd)")


@contextmanager
def compiling(*, optimize: bool = True, **device: Any) -> Iterator[Device]:
    """While this holds, TVM's OpenCL code goes to PoCL, which compiles it.  `device` changes the target's attributes."""
    import tvm

    require()
    target = tvm.target.Target({**DEVICE, **device, "target_device_type": 1, "host": HOST})
    result = Device(target, () if optimize else ("-cl-opt-disable",))
    _devices[result.number] = result
    original = tvm.get_global_func(CODEGEN)

    def generate(module: Any, wanted: Any) -> Any:
        return _module(result, module, original(module, wanted).inspect_source())

    tvm.register_global_func(
        LAUNCH, lambda number, name, *values: _devices[number].launch(name, *values), override=True
    )
    tvm.register_global_func(CODEGEN, generate, override=True)
    try:
        yield result
    finally:
        tvm.register_global_func(CODEGEN, original, override=True)


def compile_kernel(function: Any, **device: Any) -> Callable[..., Counter[str]]:
    """A scheduled PrimFunc as a callable on arrays and numbers, which updates the arrays and returns the launches."""
    import tvm

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with compiling(**device) as compiled, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        module = tvm.tirx.transform.ForceNarrowIndexToInt32()(module)
        built = tvm.tirx.build(module, target=compiled.target)

    def call(*args: Any) -> Counter[str]:
        compiled.launches.clear()
        tensors = [tvm.runtime.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        built["main"](*tensors)
        for array, tensor in zip(args, tensors, strict=True):
            if isinstance(array, np.ndarray):
                array[...] = tensor.numpy()
        return Counter(compiled.launches)

    return call


def _module(device: Device, module: Any, source: str) -> Any:
    """Compile the source with PoCL; the module has one function a kernel, that launches it."""
    import pyopencl as cl
    import tvm
    from tvm import tirx

    program = cl.Program(_queue().context, source).build(options=list(device.options))
    device.sources.append(source)
    functions = {}
    for function in module.functions.values():
        name = str(function.attrs["global_symbol"])
        extents = tuple(map(str, function.attrs["tirx.kernel_launch_params"]))
        unknown = [tag for tag in extents if not tag.startswith(("blockIdx.", "threadIdx."))]
        assert not unknown, f"{name} is launched with {unknown}"
        dtypes = tuple("handle" if _is_pointer(p) else str(p.ty.dtype) for p in function.params)
        device.kernels[name] = Kernel(cl.Kernel(program, name), dtypes, extents)
        params = [tirx.Var(f"a{i}", dtype) for i, dtype in enumerate((*dtypes, *("int64" for _ in extents)))]
        body = tirx.Evaluate(tirx.call_packed(LAUNCH, device.number, name, *params))
        functions[name] = tirx.PrimFunc(params, body).with_attr("global_symbol", name).with_attr("s_tir", True)
    return tvm.tirx.build(tvm.IRModule(functions), target=tvm.target.Target(HOST))


def _is_pointer(parameter: Any) -> bool:
    return "handle" in str(parameter.ty)


@functools.cache
@functools.cache
def _cpu() -> Any:
    """The OpenCL device that is this machine's CPU, or None.

    A PoCL whose LLVM is older than the processor compiles nothing, and another one beside it may do.
    """
    import pyopencl as cl

    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return None
    for platform in platforms:
        for device in platform.get_devices():
            if device.type & cl.device_type.CPU and _compiles(device):
                return device
    return None


def _compiles(device: Any) -> bool:
    import pyopencl as cl

    try:
        cl.Program(cl.Context([device]), "__kernel void none() {}").build()
    except (cl.Error, RuntimeError):
        return False
    return True


@functools.cache
def _queue() -> Any:
    import pyopencl as cl

    return cl.CommandQueue(cl.Context([_cpu()]))
