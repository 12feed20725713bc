"""From a checkpoint to a weight directory: assemble, quantize or cast, and write every parameter of a model.

Parameters are written in the checkpoint's order: each one at the position of its first source tensor.  Source tensors are read
one at a time, when their parameter is due, wherever they lie, large ones in parts, and are dropped as soon as their rows are
packed.  Threads pack and write while the next tensors are read; their number does not change the output.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from llmbuild.errors import InputError, StoreError
from llmbuild.quantization.calibrated import CalibratedPacker
from llmbuild.quantization.fitting import check
from llmbuild.quantization.journal import Journal
from llmbuild.quantization.pack import Packer, UnfitValueError, cast, packed_shapes
from llmbuild.quantization.ports import KnownInputs, PlainParameter, StoredDtype, TensorSource
from llmbuild.quantization.rounding import numpy_dtype
from llmbuild.quantization.scheme import ComputeDtype, Scheme
from llmbuild.quantization.shards import SHARD_CAP, Assignment, Float32, ShardWriter
from llmbuild.quantization.tensor_index import Totals, write_index

Array = np.ndarray[Any, Any]
StoredTensor: TypeAlias = tuple[str, tuple[int, ...], np.dtype[Any]]
"""A tensor to write: name, shape, dtype."""

READ_AHEAD = 32 << 20
"""Bytes of source tensors that may be in process before the next one is read."""

WHOLE_BYTES = 4 << 20
"""Larger source tensors are read in parts."""

COMING_BYTES = 128 << 20
"""Larger tensors that are not packed are written while they are read."""

CAST_ELEMENTS = 1 << 18


def is_quantized(scheme: Scheme, role: str) -> bool:
    """Whether the scheme packs parameters of this role: linear layers always, embedding and head as the scheme defines."""
    wanted = {"linear": True, "embedding": scheme.quantize_embedding, "head": scheme.quantize_head}
    return scheme.quantized and wanted.get(role, False)


def is_transposed(scheme: Scheme, role: str) -> bool:
    """Whether a packed parameter of this role is stored transposed: the KN layout's linear layers, never an embedding."""
    return scheme.layout == "KN" and role != "embedding"


def packed_names(name: str) -> tuple[str, str]:
    """`….weight` -> (`….q_weight`, `….q_scale`)."""
    module = name.removesuffix(".weight")
    return f"{module}.q_weight", f"{module}.q_scale"


def record_order(parameters: Sequence[PlainParameter], names: Sequence[str]) -> list[PlainParameter]:
    """The parameters in the order in which the checkpoint names their first source tensor; of two that are made of the same
    one, a head comes before the embedding, as in MLC."""
    users: dict[str, list[PlainParameter]] = {}
    for parameter in parameters:
        for source in parameter.sources:
            users.setdefault(source, []).append(parameter)
    order: dict[str, PlainParameter] = {}
    for name in names:
        for parameter in sorted(users.get(name, ()), key=lambda parameter: parameter.role != "head"):
            order.setdefault(parameter.name, parameter)
    return list(order.values())


def convert(
    checkpoint: TensorSource,
    parameters: Sequence[PlainParameter],
    unused: Callable[[str], bool],
    scheme: Scheme,
    out: Path,
    *,
    float32: Float32 = "bf16",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    resume: Path | None = None,
    cap: int = SHARD_CAP,
    inputs: KnownInputs | None = None,
) -> Totals:
    """Write shards and tensor index of all `parameters` to the directory `out`.

    `float32` selects how float32 tensors are stored: rounded to bfloat16 as MLC does, or exactly.  `progress` is called with
    bytes of source tensors done and in all.  `inputs` is what the method "calibrated" goes by.  With `resume`, a directory on the
    file system of `out` that outlives this process, the shards that an earlier call with the same arguments completed there are
    not made again, nor their tensors read.  Raises InputError (MultiError for several) when the checkpoint does not match or
    contains NaN, infinities or values that overflow the scheme's dtype, StoreError when `out` cannot be written.
    """
    check(checkpoint, parameters, unused)
    tensors = checkpoint.tensors
    order = record_order(parameters, list(tensors))
    total = sum(tensors[source].nbytes for parameter in order for source in parameter.sources)
    done = 0
    pool = ThreadPoolExecutor(threads or _cores(), thread_name_prefix="quantize")
    try:
        journal = Journal(resume, pool) if resume is not None else None
        if journal is None:
            writer, present = ShardWriter(out, pool, float32=float32, cap=cap), frozenset[str]()
        else:
            complete, present = _resumable(journal, order, scheme, float32, cap)
            writer = ShardWriter(
                journal.directory, pool, float32=float32, cap=cap, complete=complete, written=journal.add
            )
        started: deque[_Work] = deque()

        def finish_first() -> None:
            nonlocal done
            work = started.popleft()
            work.wait(checkpoint)
            for name, value in work.results:
                writer.append(name, value)
            for result in work.present:
                writer.place(*result)
            done += work.nbytes
            if progress is not None:
                progress(done, total)

        for parameter in order:
            while started and sum(work.nbytes for work in started) > READ_AHEAD:
                finish_first()
            if parameter.name in present:
                nbytes = sum(tensors[source].nbytes for source in parameter.sources)
                started.append(_Work([], nbytes, scheme.dtype, present=stored_tensors(parameter, scheme)))
            elif _is_coming(checkpoint, parameter, scheme, cap):
                while started:
                    finish_first()
                started.append(_write_coming(checkpoint, parameter, scheme, writer))
            else:
                started.append(_start(checkpoint, parameter, scheme, pool, inputs))
        while started:
            finish_first()
        shards = writer.finish()
    finally:
        pool.shutdown(cancel_futures=True)
    if journal is not None:
        _move(journal.directory, out, [shard.path for shard in shards])
    used = {source for parameter in order for source in parameter.sources}
    totals = Totals(writer.tensors, writer.nbytes, sum(math.prod(tensors[source].shape) for source in used))
    write_index(out, shards, totals)
    return totals


def stored_tensors(parameter: PlainParameter, scheme: Scheme) -> list[StoredTensor]:
    """The tensors that a parameter becomes, without computing them."""
    scheme = scheme.of(*parameter.modules)
    if not is_quantized(scheme, parameter.role):
        return [(parameter.name, parameter.shape, numpy_dtype(parameter.dtype or scheme.dtype))]
    rows, columns = parameter.shape
    shapes = packed_shapes(scheme, rows, columns, transposed=is_transposed(scheme, parameter.role))
    dtypes = np.dtype(np.uint32), numpy_dtype(scheme.dtype)
    return list(zip(packed_names(parameter.name), shapes, dtypes, strict=True))


def _resumable(
    journal: Journal, order: Sequence[PlainParameter], scheme: Scheme, float32: Float32, cap: int
) -> tuple[dict[str, str], frozenset[str]]:
    """The MD5 of each shard that exists already, and the parameters that are complete."""
    assignment = Assignment(float32=float32, cap=cap)
    results = {parameter.name: stored_tensors(parameter, scheme) for parameter in order}
    for parameter in order:
        for result in results[parameter.name]:
            assignment.place(*result)
    assignment.end()
    complete = {name: md5 for name, (size, md5) in journal.complete.items() if assignment.sizes.get(name) == size}
    present = frozenset(
        name
        for name, tensors in results.items()
        if all(assignment.shard_of.get(tensor) in complete for tensor, _, _ in tensors)
    )
    return complete, present


def _move(source: Path, dest: Path, names: Sequence[str]) -> None:
    for name in names:
        try:
            (source / name).replace(dest / name)
        except OSError as error:
            raise StoreError(f"cannot move {name}", where=str(dest), why=error.strerror) from error


@dataclass(slots=True)
class _Work:
    """A parameter whose tensors are being packed or cast: `results` are complete when all the futures are.  `present` are the
    tensors of a parameter whose shards all exist."""

    results: list[tuple[str, Array]]
    nbytes: int
    dtype: StoredDtype
    futures: list[tuple[str, Future[None]]] = field(default_factory=list)
    present: list[StoredTensor] = field(default_factory=list)

    def wait(self, checkpoint: TensorSource) -> None:
        """Wait for every job.  Raises InputError for a value that cannot be stored."""
        for source, future in self.futures:
            try:
                future.result()
            except UnfitValueError as error:
                raise _unfit(checkpoint, source, self.dtype, error) from error
        self.futures.clear()


def _unfit(checkpoint: TensorSource, source: str, dtype: StoredDtype, error: UnfitValueError) -> InputError:
    return InputError(
        f"tensor '{source}' cannot be stored in {dtype}",
        where=checkpoint.location(source),
        why=str(error),
        fix="choose a scheme of a wider dtype (bfloat16 or float32)"
        if "overflows" in str(error)
        else "the checkpoint is damaged or its training diverged; take another one",
    )


def _start(
    checkpoint: TensorSource,
    parameter: PlainParameter,
    scheme: Scheme,
    pool: ThreadPoolExecutor,
    inputs: KnownInputs | None,
) -> _Work:
    """Read the sources of a parameter and queue the jobs that fill its results."""
    nbytes = sum(checkpoint.tensors[source].nbytes for source in parameter.sources)
    scheme = scheme.of(*parameter.modules)
    if not is_quantized(scheme, parameter.role):
        return _start_cast(checkpoint, parameter, parameter.dtype or scheme.dtype, pool, nbytes)
    n, k = parameter.shape
    transposed = is_transposed(scheme, parameter.role)
    factor = None if inputs is None else inputs.factor(parameter)
    packer = (
        Packer(scheme, n, k, transposed=transposed)
        if factor is None
        else CalibratedPacker(scheme, n, k, factor, transposed=transposed)
    )
    weight_name, scale_name = packed_names(parameter.name)
    work = _Work([(weight_name, packer.q_weight), (scale_name, packer.q_scale)], nbytes, scheme.dtype)
    ahead: deque[tuple[list[Future[None]], int]] = deque()
    for source, row, piece in _pieces(checkpoint, parameter):
        queued = list(packer.submit(pool, piece, row))
        work.futures.extend((source, future) for future in queued)
        ahead.append((queued, piece.nbytes))
        while len(ahead) > 1 and sum(size for _, size in ahead) > READ_AHEAD:
            wait(ahead.popleft()[0])
    return work


def _start_cast(
    checkpoint: TensorSource, parameter: PlainParameter, dtype: StoredDtype, pool: ThreadPoolExecutor, nbytes: int
) -> _Work:
    """Like `_start` for a parameter that is not packed here.  A value of the right dtype is checked and passed on as it is."""
    work, target = _Work([], nbytes, dtype), numpy_dtype(dtype)
    result: Array | None = None
    for source, row, piece in _pieces(checkpoint, parameter):
        if result is None:
            whole = piece.shape == parameter.shape and piece.dtype == target
            result = piece if whole else np.empty(parameter.shape, target)
            work.results.append((parameter.name, result))
        if dtype == "uint32":
            continue
        flat, into = piece.reshape(-1), result[row : row + piece.shape[0]].reshape(-1)
        for start in range(0, flat.size, CAST_ELEMENTS):
            part = slice(start, start + CAST_ELEMENTS)
            work.futures.append((source, pool.submit(_cast_part, flat[part], into[part], dtype)))
    return work


def _is_coming(checkpoint: TensorSource, parameter: PlainParameter, scheme: Scheme, cap: int) -> bool:
    """Whether a parameter is written while it is read: a large one that is cast and fills a shard, with two bytes an element."""
    own = scheme.of(*parameter.modules)
    if not parameter.in_order or parameter.dtype == "uint32" or is_quantized(own, parameter.role):
        return False
    nbytes = sum(checkpoint.tensors[source].nbytes for source in parameter.sources)
    return nbytes > COMING_BYTES and 2 * math.prod(parameter.shape) >= cap


def _write_coming(checkpoint: TensorSource, parameter: PlainParameter, scheme: Scheme, writer: ShardWriter) -> _Work:
    """Read, cast and write a parameter, some rows at a time; nothing of it is left to be done."""
    dtype = parameter.dtype or scheme.dtype
    assert dtype != "uint32"
    pieces = _cast_pieces(checkpoint, parameter, dtype)
    writer.append_coming(parameter.name, parameter.shape, numpy_dtype(dtype), pieces)
    return _Work([], sum(checkpoint.tensors[source].nbytes for source in parameter.sources), dtype)


def _cast_pieces(checkpoint: TensorSource, parameter: PlainParameter, dtype: ComputeDtype) -> Iterator[Array]:
    """The parameter's elements as they are read, cast.  Raises InputError for a value that cannot be stored."""
    for source, _, piece in _pieces(checkpoint, parameter):
        flat = piece.reshape(-1)
        for start in range(0, flat.size, CAST_ELEMENTS):
            try:
                yield cast(flat[start : start + CAST_ELEMENTS], dtype)
            except UnfitValueError as error:
                raise _unfit(checkpoint, source, dtype, error) from error


def _pieces(checkpoint: TensorSource, parameter: PlainParameter) -> Iterator[tuple[str, int, Array]]:
    """The parameter's rows as they are read: (source, first row, its rows)."""
    if not parameter.in_order:
        yield parameter.sources[0], 0, parameter.assemble([checkpoint.read(source) for source in parameter.sources])
        return
    row = 0
    for source in parameter.sources:
        for piece in _in_rows(checkpoint, source):
            yield source, row, piece
            row += piece.shape[0]


def _in_rows(checkpoint: TensorSource, source: str) -> Iterator[Array]:
    """The rows of a tensor: all of them, or those that are complete in each part of a large one."""
    info = checkpoint.tensors[source]
    if info.nbytes <= WHOLE_BYTES or len(info.shape) < 2:
        yield np.ascontiguousarray(checkpoint.read(source))
        return
    size, rest = math.prod(info.shape[1:]), None
    for part in checkpoint.parts(source):
        flat = part if rest is None else np.concatenate([rest, part])
        rows = flat.size // size
        rest = flat[rows * size :].copy() if flat.size % size else None
        if rows:
            yield flat[: rows * size].reshape(rows, *info.shape[1:])


def _cast_part(values: Array, into: Array, dtype: ComputeDtype) -> None:
    result = cast(values, dtype)
    if not np.shares_memory(result, into):
        into[...] = result


def _cores() -> int:
    """The cores this process may use, at most 16: beyond that the reader is the limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(16, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
