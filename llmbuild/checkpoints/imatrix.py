"""llama.cpp's importance matrices: of each weight the mean square of every input over a calibration text.

`llama-imatrix` writes them as GGUF files, where a weight NAME has the tensors NAME.in_sum2 [matrices, inputs] and NAME.counts
[matrices], and wrote a form of its own before (.dat): the number of entries, and of each the length of its name, the name, how
often it was called, the number of values, and the values, float32, which are means times the calls.  All numbers are 32-bit,
little-endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.checkpoints.files import WeightFile
from llmbuild.checkpoints.gguf import MAX_NAME_BYTES, GgufFile
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"GGUF"
SQUARES, COUNTS = ".in_sum2", ".counts"
MAX_ENTRIES = 1 << 16
MAX_INPUTS = 1 << 24


def read_imatrix(path: Path, checks: Checks = NO_CHECKS) -> Mapping[str, np.ndarray]:
    """The mean squares, float32 [inputs], by llama.cpp's names of weights ("blk.0.attn_q.weight").

    Raises InputError for a file that is none, and for values that no mean squares are.
    """
    import numpy as np

    with path.open("rb") as file:
        start = file.read(4)
    found = _of_gguf(path, checks) if start == MAGIC else _of_entries(path, checks)
    if not found:
        raise _none(path, "it has no weights")
    for name, values in found.items():
        if not values.size or not np.isfinite(values).all() or values.min() < 0:
            raise _none(path, f"the values of '{name}' are no mean squares")
    return found


def _of_gguf(path: Path, checks: Checks) -> dict[str, np.ndarray]:
    import numpy as np

    file = GgufFile(path, checks)
    try:
        if file.metadata.get("general.type") != "imatrix":
            raise _none(path, f"general.type is {str(file.metadata.get('general.type'))[:40]!r} and not 'imatrix'")
        found = {}
        for name in file.tensors:
            weight = name.removesuffix(SQUARES)
            if weight == name or f"{weight}{COUNTS}" not in file.tensors:
                continue
            squares = np.atleast_2d(file.read(name).astype(np.float64)).sum(axis=0)
            count = float(file.read(f"{weight}{COUNTS}").sum())
            # Of experts that were never chosen nothing is known.
            if count > 0:
                found[weight] = (squares / count).astype(np.float32)
        return found
    finally:
        file.close()


def _of_entries(path: Path, checks: Checks) -> dict[str, np.ndarray]:
    import numpy as np

    file = WeightFile(path, checks)
    try:
        place = 0

        def number() -> int:
            nonlocal place
            place += 4
            if place > file.size:
                raise _none(path, "it ends too early")
            return int.from_bytes(file.read_bytes(place - 4, 4), "little", signed=True)

        entries = number()
        if not 0 <= entries <= MAX_ENTRIES:
            raise _none(path, f"it would have {entries} entries")
        found = {}
        for _ in range(entries):
            length = number()
            if not 0 < length <= MAX_NAME_BYTES or place + length > file.size:
                raise _none(path, f"a name would have {length} bytes")
            name = file.read_bytes(place, length).decode("utf-8", "replace")
            place += length
            calls, count = number(), number()
            if not 0 < count <= MAX_INPUTS or place + 4 * count > file.size:
                raise _none(path, f"'{name}' would have {count} inputs")
            values = file.read_array(place, (count,), "float32").astype(np.float32)
            place += 4 * count
            found[name] = values / np.float32(max(1, calls))
        return found
    finally:
        file.close()


def _none(path: Path, why: str) -> InputError:
    return InputError(
        "this is no importance matrix",
        where=str(path),
        why=why,
        fix="give one that llama-imatrix wrote, or the moments.safetensors of a calibrate task",
    )
