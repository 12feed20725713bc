"""Compile one PrimFunc for 64-bit ARM and call it with NumPy arrays, in an emulated processor."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.aarch64 import EMULATOR

TARGET = {"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu"}
DRIVER = Path(__file__).parent.parent / "drivers/bare_aarch64.c"
CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4}
"""DLPack's, by the words of the names of types."""
MISSING = next(
    (
        f"needs {name} (Debian: apt install clang lld qemu-user-static)"
        for name in ("clang", "ld.lld", EMULATOR)
        if shutil.which(name) is None
    ),
    None,
)
"""Why nothing can be emulated here, for skipping a test."""


def emulated(
    function: Any, directory: Path, cpu: str = "cortex-a53", features: Sequence[str] = ()
) -> Callable[..., None]:
    """A callable on arrays; the last one, which the function writes, is updated.  `directory` is for the program.

    The processor has ARMv8.0 alone, or is another one for code that may use more `features`.
    """
    import tvm
    import tvm_ffi.libinfo

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")}).with_attr("system_lib_prefix", "")
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        target = tvm.target.Target({**TARGET, "mattr": [f"+{feature}" for feature in features]})
        compiled = tvm.compile(module, target=target).mod
    directory.mkdir()
    program = directory / "program"
    compiled.write_to_file(str(directory / "kernel.o"), "o")
    headers = [*tvm_ffi.libinfo.include_paths(), str(Path(tvm.__file__).parent / "include")]
    freestanding = ("-ffreestanding", "-nostdlib", "-static", "-fuse-ld=lld")
    command = ["clang", "--target=aarch64-linux-gnu", "-O1", *freestanding, *(f"-I{one}" for one in headers)]
    subprocess.run([*command, "-o", str(program), str(DRIVER), str(directory / "kernel.o")], check=True)

    def call(*arrays: np.ndarray) -> None:
        done = subprocess.run(
            [EMULATOR, "-cpu", cpu, str(program)],
            input=struct.pack("<q", len(arrays)) + b"".join(map(_packed, arrays)),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
        arrays[-1][...] = np.frombuffer(done.stdout, arrays[-1].dtype).reshape(arrays[-1].shape)

    return call


def _packed(array: np.ndarray) -> bytes:
    """As the driver reads it."""
    code = CODES[array.dtype.name.rstrip("0123456789")]
    head = struct.pack("<4q", array.ndim, code, array.dtype.itemsize * 8, array.nbytes)
    return head + struct.pack(f"<{array.ndim}q", *array.shape) + array.tobytes()
