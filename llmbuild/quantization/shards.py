"""Writing tensors to `params_shard_N.bin`, cut where MLC LLM cuts them.

The rule is that of TVM's tensor cache: tensors follow each other without alignment.  When the pending bytes and the next
tensor together reach the cap of 32 MiB, a tensor of at least half the cap becomes a shard of its own at once and the pending
ones stay pending; a smaller tensor starts a new pending shard after the pending one is written.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from llmbuild.errors import StoreError
from llmbuild.quantization.rounding import round_to_bfloat16
from llmbuild.quantization.tensor_index import Shard, TensorRecord

SHARD_CAP = 32 << 20
"""The cap of a shard in bytes; only a larger tensor exceeds it."""

IN_FLIGHT = 3 * SHARD_CAP
"""Bytes of shards that may wait for the executor before `append` blocks."""

CHUNK_ELEMENTS = 1 << 20

Array = np.ndarray[Any, Any]
Float32 = Literal["bf16", "exact"]
Value: TypeAlias = Array | Iterator[Array]
"""A tensor's elements: all, or in order as they come."""
Placed: TypeAlias = tuple[TensorRecord, Value | None]
"""A tensor in a shard, with its value or, where the shard need not be written, without."""

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


class ShardLayout(ABC):
    """Takes tensors in record order and decides which shard each goes to; `commit` gets each shard that is full."""

    def __init__(self, *, float32: Float32 = "bf16", cap: int = SHARD_CAP) -> None:
        self._exact, self._cap = float32 == "exact", cap
        self._pending: list[Placed] = []
        self._pending_bytes = 0
        self._committed = 0
        self.tensors = 0
        self.nbytes = 0

    def place(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], value: Value | None = None) -> None:
        """Add a tensor, with its value or without."""
        nbytes = math.prod(shape) * dtype.itemsize
        size = nbytes // 2 if dtype.name == "float32" and not self._exact else nbytes
        self.tensors += 1
        self.nbytes += nbytes
        alone = False
        if self._pending_bytes + size >= self._cap:
            alone = size * 2 >= self._cap
            if not alone:
                self._commit_pending()
        offset = 0 if alone else self._pending_bytes
        record = TensorRecord(name, shape, dtype.name, "raw" if self._exact else "f32-to-bf16", size, offset)
        if alone:
            self._commit([(record, value)])
        else:
            self._pending.append((record, value))
            self._pending_bytes += size

    def end(self) -> None:
        """Commit the pending tensors: no further one follows."""
        self._commit_pending()

    @abstractmethod
    def commit(self, name: str, tensors: Sequence[Placed]) -> None:
        """A shard is full: its file name and its tensors in order."""

    def _commit_pending(self) -> None:
        if self._pending_bytes:
            self._commit(self._pending)
        self._pending, self._pending_bytes = [], 0

    def _commit(self, tensors: Sequence[Placed]) -> None:
        self._committed += 1
        self.commit(f"params_shard_{self._committed - 1}.bin", tensors)


class Assignment(ShardLayout):
    """Where tensors would go: `shard_of` by tensor name, `sizes` in bytes by shard name."""

    def __init__(self, *, float32: Float32 = "bf16", cap: int = SHARD_CAP) -> None:
        super().__init__(float32=float32, cap=cap)
        self.shard_of: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def commit(self, name: str, tensors: Sequence[Placed]) -> None:
        self.shard_of.update((record.name, name) for record, _ in tensors)
        self.sizes[name] = sum(record.nbytes for record, _ in tensors)


class ShardWriter(ShardLayout):
    """Takes tensors in record order and writes shards to `out` on the executor's threads.

    Which bytes go where depends on the tensors alone.  At most `IN_FLIGHT` bytes wait for the executor.
    Shards that `complete` names, with their MD5, lie in `out` already: their tensors may be placed without a value.
    `written` is called with each shard that is newly written, on the thread that wrote it.
    """

    def __init__(
        self,
        out: Path,
        executor: Executor,
        *,
        float32: Float32 = "bf16",
        cap: int = SHARD_CAP,
        complete: Mapping[str, str] | None = None,
        written: Callable[[Shard], None] = lambda _shard: None,
    ) -> None:
        super().__init__(float32=float32, cap=cap)
        self._out, self._executor = out, executor
        self._complete, self._written = complete or {}, written
        self._shards: list[Future[Shard]] = []
        self._waiting: deque[tuple[Future[Shard], int]] = deque()

    def append(self, name: str, value: Array) -> None:
        """Add a tensor; `value` must not change afterwards.  Raises StoreError when an earlier shard could not be written."""
        value = np.ascontiguousarray(value)
        self.place(name, value.shape, value.dtype, value)

    def append_coming(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: Iterator[Array]) -> None:
        """Add a tensor that has at least the cap's bytes in its shard, which this thread writes while the pieces come: the whole
        tensor is never in memory.  Raises StoreError, and what `pieces` raises."""
        self.place(name, shape, dtype, pieces)

    def finish(self) -> list[Shard]:
        """Write the pending tensors and wait for all writes.  Raises StoreError."""
        self.end()
        return [future.result() for future in self._shards]

    def commit(self, name: str, tensors: Sequence[Placed]) -> None:
        if name in self._complete:
            records = tuple(record for record, _ in tensors)
            self._done(Shard(name, sum(record.nbytes for record in records), records, self._complete[name]))
            return
        values = [(record, value) for record, value in tensors if value is not None]
        assert len(values) == len(tensors), f"a tensor of {name} has no value"
        if any(isinstance(value, Iterator) for _, value in values):
            self._done(self._write(self._out / name, values))
            return
        future = self._executor.submit(self._write, self._out / name, values)
        self._shards.append(future)
        self._waiting.append((future, sum(record.nbytes for record, _ in tensors)))
        while sum(size for _, size in self._waiting) > IN_FLIGHT:
            self._waiting.popleft()[0].result()

    def _done(self, shard: Shard) -> None:
        future: Future[Shard] = Future()
        future.set_result(shard)
        self._shards.append(future)

    def _write(self, path: Path, tensors: list[tuple[TensorRecord, Value]]) -> Shard:
        shard = _write_shard(path, tensors)
        self._written(shard)
        return shard


def _write_shard(path: Path, tensors: list[tuple[TensorRecord, Value]]) -> Shard:
    """Write one shard and compute its MD5 on the way, in chunks."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("wb", buffering=0) as file:
            for record, value in tensors:
                for chunk in value if isinstance(value, Iterator) else _chunks(value):
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


def _chunks(value: Array) -> Iterator[Array]:
    flat = value.reshape(-1)
    return (flat[start : start + CHUNK_ELEMENTS] for start in range(0, flat.size, CHUNK_ELEMENTS))
