"""What the small files of a checkpoint say of quantized weights: the method, and whether llmbuild reads it.

Files of weights are not needed for it, so that a checkpoint which is not read is refused before it is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.files import is_file, read_json
from llmbuild.checkpoints.names import QUANTIZATION_FILES
from llmbuild.checkpoints.packed.auto_round import auto_round
from llmbuild.checkpoints.packed.awq import Awq
from llmbuild.checkpoints.packed.compressed import Compressed
from llmbuild.checkpoints.packed.fp8 import Fp8
from llmbuild.checkpoints.packed.gptq import Gptq
from llmbuild.checkpoints.packed.stated import FIX, READ, Quantization, shown
from llmbuild.checkpoints.packed.weight import Method
from llmbuild.errors import InputError, Where
from llmbuild.printable import either

_SPELLINGS = {"intel/auto-round": "auto-round", "w_bit": "bits", "q_group_size": "group_size"}
"""Older spellings of names of methods, and of the keys that AutoAWQ writes into a file of its own."""


def check_quantization(
    config: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    ignore: Collection[str] = (),
) -> Quantization | None:
    """How the weights are quantized according to config.json; None where it names no method, or `ignore` has its key.

    `files` has the contents of those of `QUANTIZATION_FILES` that the checkpoint has; they count where config.json is silent.
    Raises InputError for a method that is not read, for a form of one that is not, and where none is named.
    """
    found = _find(config, files or {})
    if found is None or (found.file == "config.json" and found.key in ignore):
        return None
    if found.method in READ:
        method_of(found, config)
        return found
    raise InputError(
        f"the weights are quantized by {found.label}, which is not read",
        where=found.where("quant_method" if "quant_method" in found.values else None),
        why=f"quantized checkpoints are read where the method is {either(READ.values())}",
        fix=FIX,
    )


def method_of(quantization: Quantization, config: Mapping[str, Any]) -> Method:
    """How the weights are unpacked.  Raises InputError for a form of the method that is not read."""
    match quantization.method:
        case "awq":
            return Awq.of(quantization)
        case "gptq":
            return Gptq.of(quantization)
        case "auto-round":
            return auto_round(quantization)
        case "compressed-tensors":
            return Compressed.of(quantization)
        case _:
            return Fp8.of(quantization, config)


def read_quantization_files(directory: Path) -> dict[str, dict[str, Any]]:
    """The contents of those of `QUANTIZATION_FILES` that a directory has.  Raises InputError for one that is not valid."""
    return {name: read_json(directory / name, name) for name in QUANTIZATION_FILES if is_file(directory / name)}


def _find(config: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> Quantization | None:
    for key in ("quantization_config", "compression_config"):
        values = config.get(key)
        if values is not None:
            if not isinstance(values, Mapping):
                raise InputError("must be an object", where=Where("config.json", key=key), why=f"it is {shown(values)}")
            default = "compressed-tensors" if key == "compression_config" else None
            return _named(values, "config.json", key, default)
    values = config.get("quantization")
    if isinstance(values, Mapping) and "bits" in values and "group_size" in values:
        return _named(values, "config.json", "quantization", "mlx")
    for file, content in files.items():
        inside = "quantization" if file == "hf_quant_config.json" else None
        values = content if inside is None else content.get(inside)
        # ModelOpt names no algorithm where it quantized the cache alone.
        if isinstance(values, Mapping) and any(
            values.get(name) for name in ("quant_method", "bits", "w_bit", "quant_algo")
        ):
            return _named(values, file, inside, QUANTIZATION_FILES[file])
    return None


def _named(values: Mapping[str, Any], file: str, key: str | None, default: str | None) -> Quantization:
    """The method that an object names, as transformers decides it; `default` is what writes such a file without naming it."""
    plain = {_SPELLINGS.get(name, name): value for name, value in values.items()}
    method = plain.get("quant_method")
    if plain.get("load_in_4bit") is True or plain.get("load_in_8bit") is True:
        method = "bitsandbytes"
    elif method is None and "bits" in plain and "group_size" in plain and default is None:
        # MLX writes both, and never its own name.
        method = "mlx"
    elif method is None:
        method = default
    if not isinstance(method, str) or not method:
        raise InputError(
            "the weights are quantized, and no method is named",
            where=Where(file, key="quant_method" if key is None else f"{key}.quant_method"),
            why="it is missing" if method is None else f"it is {shown(method)}",
            fix=FIX,
        )
    method = method.lower()
    return Quantization(_SPELLINGS.get(method, method), plain, file, key)
