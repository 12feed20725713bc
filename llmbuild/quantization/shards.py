"""Writing tensors to `params_shard_N.bin`, cut where MLC LLM cuts them.

The rule is that of TVM's tensor cache: tensors follow each other without alignment.  When the pending bytes and the next
tensor together reach the cap of 32 MiB, a tensor of at least half the cap becomes a shard of its own at once and the pending
ones stay pending; a smaller tensor starts a new pending shard after the pending one is written.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmbuild.errors import StoreError
from llmbuild.quantization.pack import round_to_bfloat16
from llmbuild.quantization.tensor_index import Shard, TensorRecord

SHARD_CAP = 32 << 20
"""Bytes of a shard that are not exceeded by tensors smaller than it."""

IN_FLIGHT = 3 * SHARD_CAP
"""Bytes of shards that may wait for the executor before `append` blocks."""

CHUNK_ELEMENTS = 1 << 20

Array = np.ndarray[Any, Any]
Float32 = Literal["bf16", "exact"]

_LARGEST_BFLOAT16 = np.uint32(0x7F7F0000)


def encode_float32(values: Array) -> Array:
    """The bits (uint16) of finite float32 values as the tensor cache stores them.

    Round to nearest even; magnitudes from the largest bfloat16 on are cut off, so that none becomes infinite.
    """
    encoded = round_to_bfloat16(values)
    bits = values.view(np.uint32)
    large = (bits & np.uint32(0x7FFFFFFF)) >= _LARGEST_BFLOAT16
    if large.any():
        encoded[large] = (bits[large] >> np.uint32(16)).astype(np.uint16)
    return encoded


class ShardWriter:
    """Takes tensors in record order and writes shards to `out` on the executor's threads.

    Which bytes go where depends on the tensors alone.  At most `IN_FLIGHT` bytes and one shard wait for the executor.
    """

    def __init__(self, out: Path, executor: Executor, *, float32: Float32 = "bf16", cap: int = SHARD_CAP) -> None:
        self._out, self._executor, self._exact, self._cap = out, executor, float32 == "exact", cap
        self._pending: list[tuple[TensorRecord, Array]] = []
        self._pending_bytes = 0
        self._shards: list[Future[Shard]] = []
        self._waiting: deque[tuple[Future[Shard], int]] = deque()
        self.tensors = 0
        self.nbytes = 0

    def append(self, name: str, value: Array) -> None:
        """Add a tensor; `value` must not change afterwards.  Raises StoreError when an earlier shard could not be written."""
        value = np.ascontiguousarray(value)
        dtype = value.dtype.name
        size = value.size * 2 if dtype == "float32" and not self._exact else value.nbytes
        self.tensors += 1
        self.nbytes += value.nbytes
        alone = False
        if self._pending_bytes + size >= self._cap:
            alone = size * 2 >= self._cap
            if not alone:
                self._commit_pending()
        offset = 0 if alone else self._pending_bytes
        record = TensorRecord(name, value.shape, dtype, "raw" if self._exact else "f32-to-bf16", size, offset)
        if alone:
            self._commit([(record, value)])
        else:
            self._pending.append((record, value))
            self._pending_bytes += size

    def finish(self) -> list[Shard]:
        """Write what is pending and wait for everything.  Raises StoreError."""
        self._commit_pending()
        return [future.result() for future in self._shards]

    def _commit_pending(self) -> None:
        if self._pending_bytes:
            self._commit(self._pending)
        self._pending, self._pending_bytes = [], 0

    def _commit(self, tensors: list[tuple[TensorRecord, Array]]) -> None:
        future = self._executor.submit(_write_shard, self._out / f"params_shard_{len(self._shards)}.bin", tensors)
        self._shards.append(future)
        self._waiting.append((future, sum(record.nbytes for record, _ in tensors)))
        while len(self._waiting) > 1 and sum(size for _, size in self._waiting) > IN_FLIGHT:
            self._waiting.popleft()[0].result()


def _write_shard(path: Path, tensors: list[tuple[TensorRecord, Array]]) -> Shard:
    """Write one shard and compute its MD5 on the way, in chunks."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("wb", buffering=0) as file:
            for record, value in tensors:
                flat = value.reshape(-1)
                for start in range(0, flat.size, CHUNK_ELEMENTS):
                    chunk = flat[start : start + CHUNK_ELEMENTS]
                    stored: Any = encode_float32(chunk) if record.rounded else chunk
                    data = memoryview(stored.view(np.uint8))
                    digest.update(data)
                    while data:
                        data = data[file.write(data) :]
    except OSError as error:
        raise StoreError(
            f"cannot write {path.name}",
            where=str(path.parent),
            why=error.strerror,
            fix="free some space, or point the store to another disk",
        ) from error
    total = sum(record.nbytes for record, _ in tensors)
    return Shard(path.name, total, tuple(record for record, _ in tensors), digest.hexdigest())
