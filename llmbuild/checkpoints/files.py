"""Reading weight files by position.

Weights are read with `preadv` into fresh arrays and not through a memory map: mapped pages count as resident memory of the
process until the kernel reclaims them, so that converting a large checkpoint would appear to need all of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild import jsontext
from llmbuild.checkpoints.pieces import NO_CHECKS, PIECE, Checks
from llmbuild.checkpoints.pointer import POINTER_BYTES, refuse_pointer
from llmbuild.checkpoints.tensor import numpy_dtype
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
VOCABULARY_BYTES = 64 << 20
"""The largest published tokenizer.json, of a vocabulary of 262,000 tokens, has 33 MB and 1.8 million values."""
VOCABULARY_VALUES = 2_500_000
SENTENCEPIECE_BYTES = 8 << 20
"""The largest published tokenizer.model has 5 MB."""

_MAX_READ = 1 << 30


class WeightFile:
    """An open file of known size.  Raises InputError when it cannot be opened or a read comes back short.

    A file that `checks` names belongs to a user who may change it: every read hashes its bytes, and raises ChangedError when
    they differ from the recorded ones.
    """

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self.path = path
        self._pieces = checks.get(path)
        self._last: tuple[int, bytearray] = (-1, bytearray())
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size
        except (OSError, ValueError) as error:
            if self._pieces is not None:
                raise self._pieces.changed(reason(error)) from error
            raise InputError("the weight file cannot be opened", where=str(path), why=reason(error)) from error
        if self._pieces is not None and self._pieces.size != self.size:
            self.close()
            raise self._pieces.changed(f"it had {self._pieces.size} bytes, now it has {self.size}")
        if self.size < POINTER_BYTES:
            try:
                refuse_pointer(self.read_bytes(0, self.size), str(path))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def read_bytes(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes at `offset`."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.truncated(offset + count)
        buffer = bytearray(count)
        self._fill(memoryview(buffer), offset)
        return bytes(buffer)

    def read_array(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """A fresh C-contiguous array of little-endian elements that start at `offset`."""
        import numpy as np

        array = self.new_array(shape, dtype)
        self._fill(array.reshape(-1).view(np.uint8).data, offset)
        return array

    def new_array(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array to fill.  Raises InputError where there is not enough memory."""
        import numpy as np

        try:
            return np.empty(shape, numpy_dtype(dtype))
        except MemoryError as error:
            raise InputError(
                f"there is not enough memory for a tensor of shape {list(shape)}", where=str(self.path)
            ) from error

    def truncated(self, wanted: int) -> InputError:
        return InputError(
            "the file is truncated",
            where=str(self.path),
            why=f"it has {self.size} bytes and at least {wanted} are needed",
            fix="fetch the file again",
        )

    def _fill(self, view: memoryview, offset: int) -> None:
        if self._pieces is None:
            self._read(view, offset)
            return
        done = 0
        while done < len(view):
            index, skipped = divmod(offset + done, PIECE)
            length = self._pieces.length(index)
            if length <= skipped:
                raise self.truncated(offset + len(view))
            part = view[done : done + length - skipped]
            if len(part) == length:
                self._read(part, offset + done)
                self._pieces.check(index, part)
            else:
                part[:] = memoryview(self._piece(index, length))[skipped : skipped + len(part)]
            done += len(part)

    def _piece(self, index: int, length: int) -> bytearray:
        """A whole piece.  The last one is kept, because the next tensor begins where one ends."""
        assert self._pieces is not None
        if self._last[0] != index:
            buffer = bytearray(length)
            self._read(memoryview(buffer), index * PIECE)
            self._pieces.check(index, buffer)
            self._last = index, buffer
        return self._last[1]

    def _read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done : done + _MAX_READ]], offset + done)
            except OSError as error:
                raise InputError("the weight file cannot be read", where=str(self.path), why=error.strerror) from error
            if count == 0:
                if self._pieces is not None:
                    raise self._pieces.changed(f"it ends before byte {offset + len(view)}, it had {self.size} bytes")
                raise self.truncated(offset + len(view))
            done += count


def is_file(path: Path) -> bool:
    """Whether a file exists.  Raises InputError when the system reports an error, for lack of rights or for a name too long."""
    try:
        return path.is_file()
    except OSError as error:
        raise InputError("the checkpoint cannot be read", where=str(path), why=reason(error)) from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file; `what` names the file's role in messages.  Raises InputError."""
    return parse_json(read_bounded(path, what), what, path)


def read_bounded(path: Path, what: str, most: int = jsontext.MOST_BYTES) -> bytes:
    """The content of a small file.  Raises InputError when it cannot be read or has more than `most` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        # A ValueError is a name that no file can have.
        raise InputError(f"{what} cannot be read", where=str(path), why=reason(error)) from error
    if len(data) > most:
        raise InputError(f"{what} is too large to be one", where=str(path), why=f"it has over {most} bytes")
    refuse_pointer(data, str(path))
    return data


def parse_json(data: bytes, what: str, path: Path | None = None, *, unique: bool = False) -> dict[str, Any]:
    """A JSON object from bytes; with `unique` no object in it may have a name twice.  Raises InputError.

    NaN and the infinities pass, as they do in Python, which wrote most of these files: the reader of a number checks it.
    """
    vocabulary = what in _VOCABULARIES
    where = None if path is None else str(path)
    try:
        value = jsontext.parse_json(
            data,
            most_bytes=VOCABULARY_BYTES if vocabulary else jsontext.MOST_BYTES,
            most_values=VOCABULARY_VALUES if vocabulary else jsontext.MOST_VALUES,
            numbers=True,
            unique=unique,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8", where=where, why=str(error)) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{what} is not valid JSON", where=where, why=str(error)) from error
    except ValueError as error:
        raise InputError(f"{what} is refused", where=where, why=str(error)) from error
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object", where=where, why=f"it is a {type(value).__name__}")
    return value


def reason(error: OSError | ValueError) -> str:
    """The operating system's reason for a refusal, without the name of the file, which messages add."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
