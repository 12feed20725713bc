"""The families by the names that GGUF has for their architectures."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, Where, did_you_mean
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.registry import families


class Chosen(NamedTuple):
    """What a file says under its architecture's prefix, and the family that it is of."""

    values: GgufValues
    family: DecoderFamily
    gguf: GgufArchitecture


@cache
def gguf_families() -> Mapping[str, tuple[tuple[DecoderFamily, GgufArchitecture], ...]]:
    """The families of each general.architecture, those first that say when they are meant."""
    found: dict[str, list[tuple[DecoderFamily, GgufArchitecture]]] = {}
    for one in families().values():
        if one.gguf is not None:
            for name in one.gguf.names:
                found.setdefault(name, []).append((one, one.gguf))
    return {name: tuple(sorted(found[name], key=lambda pair: pair[1].when is None)) for name in sorted(found)}


def require_architecture(metadata: Mapping[str, Any], path: Path | None) -> str:
    """The architecture that a file's metadata name.  Raises InputError where no family's files are of it."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in gguf_families():
        raise InputError(
            f"architecture {reprlib.repr(name)} is not supported",
            where=None if path is None else Where(str(path), key="general.architecture"),
            why=did_you_mean(name, gguf_families()) if isinstance(name, str) else None,
            fix="use the original weights, or another model: docs/models.md lists the architectures",
        )
    return name


def choose(
    metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo], path: Path, known: DecoderFamily | None
) -> Chosen:
    """The family that a file is of: the one that is known, without a look at the others, where its files are of this
    architecture.  Raises InputError."""
    named = known
    architecture = metadata.get("general.architecture")
    if named is None or named.gguf is None or architecture not in named.gguf.names:
        named, architecture = None, require_architecture(metadata, path)
    shapes = {name: info.shape for name, info in tensors.items()}
    values = GgufValues(architecture, metadata, shapes, path)
    if named is not None and named.gguf is not None:
        return Chosen(values, named, named.gguf)
    candidates = gguf_families()[architecture]
    fitting = (one for one in candidates if one[1].when is None or one[1].when(values))
    return Chosen(values, *next(fitting, candidates[-1]))
