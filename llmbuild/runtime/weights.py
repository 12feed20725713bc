"""Load a weight directory, and hold it against what a library expects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.errors import UsageError, VerifyError
from llmbuild.runtime.library import Library, ParameterRecord


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One record of the tensor index."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def read_tensor_index(directory: Path) -> Mapping[str, Any]:
    """The content of tensor-cache.json (or of its older name)."""
    for name in ("tensor-cache.json", "ndarray-cache.json"):
        path = directory / name
        if path.is_file():
            try:
                index: Mapping[str, Any] = json.loads(path.read_bytes())
            except ValueError as error:
                raise VerifyError("the tensor index is not JSON", where=str(path), why=str(error)) from error
            return index
    raise UsageError("no weights here", where=str(directory), fix="run `llmbuild build` first")


def stored_tensors(index: Mapping[str, Any]) -> tuple[StoredTensor, ...]:
    return tuple(
        StoredTensor(record["name"], tuple(record["shape"]), record["dtype"])
        for shard in index["records"]
        for record in shard["records"]
    )


def check_shards(directory: Path, index: Mapping[str, Any]) -> None:
    """Compare each shard's size and MD5 with the index; raises VerifyError naming the first that differs."""
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
    """One sentence for each parameter that the library wants otherwise than the weights have it."""
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
    config = json.loads((directory / "mlc-chat-config.json").read_bytes())
    expected = library.parameters
    differences = parameter_differences(expected, stored_tensors(index), config["vocab_size"])
    if differences:
        shown = "\n       ".join(differences[:8])
        more = f"\n       and {len(differences) - 8} more" if len(differences) > 8 else ""
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
    return [tensors[parameter.name] for parameter in library.parameters]
