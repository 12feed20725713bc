"""The families by the names that GGUF has for their architectures."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, Where, did_you_mean
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.registry import families


@cache
def gguf_families() -> Mapping[str, tuple[tuple[DecoderFamily, GgufArchitecture], ...]]:
    """The families of each general.architecture, those first that say when they are meant."""
    found: dict[str, list[tuple[DecoderFamily, GgufArchitecture]]] = {}
    for family in families().values():
        if family.gguf is not None:
            found.setdefault(family.gguf.name, []).append((family, family.gguf))
    return {name: tuple(sorted(found[name], key=lambda one: one[1].when is None)) for name in sorted(found)}


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


def values_of(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo], path: Path) -> GgufValues:
    """What a file says under its architecture's prefix.  Raises InputError where no family's files are of it."""
    shapes = {name: info.shape for name, info in tensors.items()}
    return GgufValues(require_architecture(metadata, path), metadata, shapes, path)


def family_of(values: GgufValues) -> tuple[DecoderFamily, GgufArchitecture]:
    """The family that a file is of.  Raises InputError where its metadata are not valid."""
    candidates = gguf_families()[values.architecture]
    return next((one for one in candidates if one[1].when is None or one[1].when(values)), candidates[-1])
