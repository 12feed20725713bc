"""Writers of llama.cpp's importance matrices, in the form of GGUF and in the older one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_gguf(path: Path, squares: Mapping[str, np.ndarray], calls: int, kind: str = "imatrix") -> None:
    """As llama-imatrix of 2025 writes mean squares over so many calls."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "")
    writer.add_type(kind)
    writer.add_uint32("imatrix.chunk_count", calls)
    for name, values in squares.items():
        writer.add_tensor(f"{name}.in_sum2", (values * calls).astype(np.float32)[None])
        writer.add_tensor(f"{name}.counts", np.array([[calls]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_entries(path: Path, squares: Mapping[str, np.ndarray], calls: int) -> None:
    """The older form (.dat)."""
    data = struct.pack("<i", len(squares))
    for name, values in squares.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += (values * calls).astype("<f4").tobytes()
    path.write_bytes(data)
