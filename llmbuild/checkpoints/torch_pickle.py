"""One `pytorch_model.bin`: a zip archive of a pickle and one entry a storage, read without torch.

Format: `torch.save` since 1.6 writes `<root>/data.pkl` and `<root>/data/<key>`, all stored uncompressed, so that a storage
can be read by position.  The pickle goes through `torch_machine`, which can build tensors and nothing else.
"""

from __future__ import annotations

import errno
import math
import os
import re
import reprlib
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llmbuild.checkpoints.files import WeightFile
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import ITEM_SIZES, TensorInfo, in_parts, is_plausible
from llmbuild.checkpoints.torch_machine import PickledTensor, run_pickle
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_PICKLE_BYTES = 8 << 20
"""Names and shapes of the largest published models take under a megabyte."""
MAX_DIRECTORY_BYTES = 4 << 20
"""Of the archive: room for 40,000 entries."""

MAX_EXPANDED_BYTES = 1 << 30
"""Of a tensor that repeats its storage's elements, as norms and biases of one value do."""

_SIGNED = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "complex64", "complex128")
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")


class _Bounded:
    """A weight file for zipfile, which cannot read much at once, as it does with the directory of an archive."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        if self._at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        count = left if size < 0 else min(size, left)
        if count > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its directory has over {MAX_DIRECTORY_BYTES} bytes")
        data = self._file.read_bytes(self._at, count)
        self._at += count
        return data


class TorchFile:
    """An open torch file.  Opening reads names and shapes only.  Raises InputError for anything but a plain state dict."""

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self._file = WeightFile(path, checks)
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors in the order of the state dict."""
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        import numpy as np

        tensor, info = self._pickled[name], self._tensors[name]
        start = self._data_offset(tensor.storage.key) + tensor.offset * ITEM_SIZES[info.dtype]
        if 0 in info.shape or tensor.is_contiguous:
            value = self._file.read_array(start, info.shape, info.dtype)
        else:
            span = self._file.read_array(start, (tensor.extent,), info.dtype)
            strides = tuple(step * span.itemsize for step in tensor.strides)
            value = self._file.new_array(info.shape, info.dtype)
            value[...] = np.lib.stride_tricks.as_strided(span, info.shape, strides, writeable=False)
        if tensor.conjugate and np.iscomplexobj(value):
            np.conjugate(value, out=value)
        return np.negative(value, out=value) if tensor.negative else value

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """See `Checkpoint.parts`; the tensor is read as a whole."""
        return in_parts(self.read(name))

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        path = self._file.path
        self._entries = self._read_directory()
        root = self._root()
        self._prefix = f"{root}/data/"
        order = self._entries.get(f"{root}/byteorder")
        if order is not None and self._stored(order).strip() != b"little":
            raise InputError("the torch file was written by a big-endian machine", where=str(path), fix="save it again")
        state = run_pickle(self._stored(self._entries[f"{root}/data.pkl"]), path)
        self._pickled: dict[str, PickledTensor] = {}
        self._tensors: dict[str, TensorInfo] = {}
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, PickledTensor):
                kind = "a dictionary of its own" if isinstance(value, dict) else "not a tensor"
                raise InputError(
                    f"entry {reprlib.repr(name)} of the torch file is {kind}",
                    where=str(path),
                    why="a checkpoint's weights are one dictionary from tensor names to tensors",
                    fix="save the model's state_dict() alone",
                )
            self._check(name, value)
            self._pickled[name] = value
            self._tensors[name] = TensorInfo.of(name, value.shape, value.dtype)

    def _read_directory(self) -> dict[str, zipfile.ZipInfo]:
        path = self._file.path
        start = self._file.read_bytes(0, min(4, self._file.size))
        if start != b"PK\x03\x04":
            legacy = start[:1] == b"\x80"
            raise InputError(
                "the torch file is in the format of before torch 1.6" if legacy else "not a torch file",
                where=str(path),
                why="only the zip-based format can be read without running the pickle in it",
                fix=f"""convert it: python -c "import torch; f = '{path.name}'; """
                """torch.save(torch.load(f, map_location='cpu', weights_only=True), f)\""""
                if legacy
                else "fetch the file again, or name the format with source-format",
            )
        try:
            with zipfile.ZipFile(_Bounded(self._file)) as archive:
                infos = archive.infolist()
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            UnicodeDecodeError,
            struct.error,
        ) as error:
            raise InputError(
                "the torch file's archive cannot be read", where=str(path), why=str(error), fix="fetch the file again"
            ) from error
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename
            if name in entries:
                raise InputError(f"the torch file's archive names {name!r} twice", where=str(path))
            if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
                raise InputError(
                    f"the torch file's archive has an entry with an unsafe name: {name!r}", where=str(path)
                )
            entries[name] = info
        return entries

    def _root(self) -> str:
        roots = [
            name.removesuffix("/data.pkl")
            for name in self._entries
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise InputError(
                "not a torch file",
                where=str(self._file.path),
                why=f"the archive has {len(roots)} data.pkl at its top and needs one",
            )
        if f"{roots[0]}/constants.pkl" in self._entries:
            raise InputError(
                "the torch file is a TorchScript archive",
                where=str(self._file.path),
                why="it holds a program, not only weights",
                fix="save the model's state_dict() with torch.save",
            )
        return roots[0]

    def _position(self, info: zipfile.ZipInfo) -> int:
        """Where the entry's bytes begin; only uncompressed, unencrypted entries have such a place."""
        path = self._file.path
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise InputError(f"entry {info.filename!r} of the torch file is compressed or encrypted", where=str(path))
        header = _LOCAL_HEADER.unpack(self._file.read_bytes(info.header_offset, _LOCAL_HEADER.size))
        if header[0] != b"PK\x03\x04":
            raise InputError(f"entry {info.filename!r} of the torch file has no local header", where=str(path))
        position = info.header_offset + _LOCAL_HEADER.size + int(header[9]) + int(header[10])
        if position + info.file_size > self._file.size:
            raise self._file.truncated(position + info.file_size)
        return position

    def _stored(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > MAX_PICKLE_BYTES:
            raise InputError(f"entry {info.filename!r} of the torch file is too large", where=str(self._file.path))
        return self._file.read_bytes(self._position(info), info.file_size)

    def _data_offset(self, key: str) -> int:
        return self._position(self._entries[self._prefix + key])

    def _check(self, name: str, tensor: PickledTensor) -> None:
        storage, size = tensor.storage, ITEM_SIZES[tensor.dtype]
        entry = self._entries.get(self._prefix + storage.key) if re.fullmatch(r"[\w.-]+", storage.key) else None
        if entry is None:
            raise self._bad(name, f"its storage {storage.key!r} is not in the archive")
        elements = entry.file_size // size
        if storage.elements is not None and storage.elements > elements:
            raise self._bad(name, f"its storage should have {storage.elements} elements and has {elements}")
        # A tensor with a stride of 0 has more elements than its storage, and the file's size is no bound of its own.
        expanded = math.prod(tensor.shape) > elements
        if not is_plausible(tensor.shape, size) or (expanded and math.prod(tensor.shape) * size > MAX_EXPANDED_BYTES):
            raise self._bad(name, f"its shape {list(tensor.shape)} has more elements than its storage")
        if tensor.negative and tensor.dtype not in _SIGNED:
            raise self._bad(name, f"it is said to be the negative of {tensor.dtype}, which has no sign")
        if tensor.offset + tensor.extent > elements:
            raise self._bad(name, "it reaches past the end of its storage")
        self._position(entry)

    def _bad(self, name: str, why: str) -> InputError:
        return InputError(
            f"tensor {name[:200]!r} is not valid", where=str(self._file.path), why=why, fix="fetch the file again"
        )
