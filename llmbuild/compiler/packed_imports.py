"""The object that contains what the kernels' objects do not: the VM's bytecode, and the device's code (`devc.o`).

TVM packs the modules that a library imports into one constant: its size, the tree of imports as two lists of numbers, and the
modules, each as a text for its kind and its bytes (ModulePackImportsToLLVM of apache-tvm 0.27.0.post1, as it writes them).  The
library itself has no bytes.  Numbers, and the lengths of texts and lists, have 64 bits, little-endian.

TVM can write the modules of devices that it has no runtime for, and cannot read them back.  So their bytes are put among those
of the executable here, in the text that LLVM has of the object.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm.runtime import _ffi_api

_CONSTANT = re.compile(r'constant \[\d+ x i8\] c"[^"]*"')
_TEXTS = [chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}" for byte in range(256)]
"""Each byte in LLVM's text of a constant."""


def device_bytes(root: Any) -> bytes:
    """The library and the modules of devices that it imports, as they follow the executable."""
    packed = _packed(root)
    at = 8
    for _ in range(2):
        (count,) = struct.unpack_from("<Q", packed, at)
        at += 8 + 8 * count
    return packed[at:]


def write(executable: Any, devices: int, code: bytes, path: Path) -> None:
    """Write the object of an executable whose library imports the modules of devices with these bytes (`device_bytes`).

    The executable's own library imports none.
    """
    root = executable.mod.imports[0]
    prefix = root.get_function("__tvm_get_system_lib_prefix")()
    target = root.get_function("_get_target_string")()
    is_system = bool(root.get_function("__tvm_is_system_module")())
    text = _ffi_api.ModulePackImportsToLLVM(executable.mod, is_system, target, prefix or "").inspect_source("ll")
    alone = _packed(executable.mod)
    library = struct.pack("<Q", 4) + b"_lib"
    if not alone.endswith(library):
        raise RuntimeError("TVM packs imports in another order than it did")
    content = _tree(devices) + alone[8 + len(_tree(0)) : -len(library)]
    data = struct.pack("<Q", len(content) + len(code)) + content + code
    replaced, count = _CONSTANT.subn(lambda _: f'constant [{len(data)} x i8] c"{_text(data)}"', text, count=1)
    if count != 1:
        raise RuntimeError("TVM writes the packed imports in another form than it did")
    described = path.with_suffix(".ll")
    described.write_text(replaced, encoding="ascii")
    tvm.runtime.load_module(str(described)).write_to_file(str(path))
    described.unlink()


def _packed(module: Any) -> bytes:
    return bytes(_ffi_api.ModulePackImportsToTensor(module).numpy().tobytes())


def _tree(devices: int) -> bytes:
    """The executable imports the library, and that the devices' modules: where each one's imports begin, and all imports."""
    return _numbers([0, 1, *[1 + devices] * (1 + devices)]) + _numbers(range(1, devices + 2))


def _numbers(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values) + 1}Q", len(values), *values)


def _text(data: bytes) -> str:
    return "".join(map(_TEXTS.__getitem__, data))
