"""Load a weight directory, and compare it with the parameters that a library expects."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from llmbuild.errors import UsageError, VerifyError, Where
from llmbuild.jsontext import parse_json
from llmbuild.runtime.chat_config import read_chat_config
from llmbuild.runtime.library import Library, ParameterRecord

MOST_VALUES = 2_000_000
"""The index of a model has some ten a tensor."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One record of the tensor index."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def read_tensor_index(directory: Path) -> Mapping[str, Any]:
    """The content of tensor-cache.json (or of its older name).

    Raises UsageError when neither exists, VerifyError when it is not the index of shards in the same directory.
    """
    for name in ("tensor-cache.json", "ndarray-cache.json"):
        path = directory / name
        if path.is_file():
            try:
                index = parse_json(path.read_bytes(), most_values=MOST_VALUES)
            except (OSError, ValueError) as error:
                raise VerifyError("the tensor index is not JSON", where=str(path), why=str(error)) from error
            wrong = _wrong_index(index)
            if wrong is not None:
                raise VerifyError(
                    "the tensor index is damaged", where=Where(str(path), key=wrong), fix="run `llmbuild build`"
                )
            checked: Mapping[str, Any] = index
            return checked
    raise UsageError("no weights here", where=str(directory), fix="run `llmbuild build` first")


def _wrong_index(index: Any) -> str | None:
    """The key whose value is not valid in an index, or None."""
    shards = index.get("records") if isinstance(index, dict) else None
    if not isinstance(shards, list):
        return "records"
    for number, shard in enumerate(shards):
        match shard:
            case {"dataPath": str(name), "nbytes": int(), "md5sum": str(), "records": list(records)} if _plain(name):
                pass
            case _:
                return f"records[{number}]"
        for place, record in enumerate(records):
            match record:
                case {"name": str(), "shape": list(shape), "dtype": str()} if all(type(size) is int for size in shape):
                    pass
                case _:
                    return f"records[{number}].records[{place}]"
    return None


def _plain(name: str) -> bool:
    return name == PurePath(name).name != ".." and "\0" not in name and 0 < len(name.encode()) <= 255


def stored_tensors(index: Mapping[str, Any]) -> tuple[StoredTensor, ...]:
    return tuple(
        StoredTensor(record["name"], tuple(record["shape"]), record["dtype"])
        for shard in index["records"]
        for record in shard["records"]
    )


def check_sizes(directory: Path, index: Mapping[str, Any]) -> None:
    """Compare each shard's size with the index; raises VerifyError naming the first that is missing or differs."""
    for shard in index["records"]:
        path = directory / shard["dataPath"]
        if not path.is_file():
            raise VerifyError("a weight shard is missing", where=str(path), fix="run `llmbuild build`")
        if path.stat().st_size != shard["nbytes"]:
            raise VerifyError(
                f"the shard has {path.stat().st_size} bytes, the index says {shard['nbytes']}",
                where=str(path),
                fix="run `llmbuild build`",
            )


def check_shards(directory: Path, index: Mapping[str, Any]) -> None:
    """Compare each shard's size and MD5 with the index; raises VerifyError naming the first that differs."""
    check_sizes(directory, index)
    for shard in index["records"]:
        path = directory / shard["dataPath"]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != shard["md5sum"]:
            raise VerifyError(
                "the shard's MD5 is not the index's",
                where=str(path),
                why=f"{found} is not {shard['md5sum']}",
                fix="run `llmbuild build`",
            )


def parameter_differences(
    expected: Sequence[ParameterRecord], stored: Sequence[StoredTensor], vocab_size: int
) -> list[str]:
    """One sentence for each parameter that differs between the library and the weights."""
    have = {tensor.name: tensor for tensor in stored}
    differences = []
    for parameter in expected:
        tensor = have.pop(parameter.name, None)
        if tensor is None:
            differences.append(f"{parameter.name}: the library needs it, the weights lack it")
            continue
        shape = tuple(vocab_size if size == "vocab_size" else size for size in parameter.shape)
        if shape != tensor.shape:
            differences.append(
                f"{parameter.name}: the library needs shape {list(shape)}, stored is {list(tensor.shape)}"
            )
        if parameter.dtype != tensor.dtype:
            differences.append(f"{parameter.name}: the library needs {parameter.dtype}, stored is {tensor.dtype}")
    differences.extend(f"{name}: stored, but the library does not know it" for name in have)
    return differences


def check_parameters(library: Library, directory: Path, index: Mapping[str, Any]) -> int:
    """Compare every parameter's name, shape and dtype; returns how many agree, raises VerifyError listing the others."""
    config = read_chat_config(directory)
    expected = library.parameters
    differences = parameter_differences(expected, stored_tensors(index), config["vocab_size"])
    if differences:
        shown = "\n".join(differences[:8])
        more = f"\nand {len(differences) - 8} more" if len(differences) > 8 else ""
        raise VerifyError(
            f"{len(differences)} parameters of the library and the weights differ",
            where=str(library.path),
            why=shown + more,
            fix="build both from one manifest: `llmbuild build`",
        )
    return len(expected)


def load_parameters(library: Library, directory: Path) -> list[Any]:
    """The weights as TVM tensors, in the order of the library's metadata."""
    from tvm.contrib import tvmjs

    tensors, _ = tvmjs.load_tensor_cache(str(directory), library.device)
    _give_back()
    return [tensors[parameter.name] for parameter in library.parameters]


def _give_back() -> None:
    """Have the C library return what TVM freed while it read shards, some 50 MB; glibc alone keeps them (malloc_trim(3))."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
