"""What the small files of a checkpoint say of quantized weights: the method, and whether llmbuild reads it.

Files of weights are not needed for it, so that a checkpoint which is not read is refused before it is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.files import is_file, read_json
from llmbuild.checkpoints.names import QUANTIZATION_FILES
from llmbuild.errors import InputError, Where

READ: Mapping[str, str] = {"awq": "AWQ"}
"""The methods that are read, by the name that quant_method has, with the name that they are known by."""

NOT_READ: Mapping[str, str] = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fbgemm_fp8": "FBGEMM (FP8)",
    "fouroversix": "Four Over Six (NVFP4)",
    "fp8": "FP8",
    "fp_quant": "FP-Quant",
    "gemma": "the method of Gemma",
    "gguf": "GGUF",
    "gptq": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "marlin": "Marlin",
    "metal": "Metal",
    "mlx": "MLX",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
    "mxfp8": "MXFP8",
    "nvfp4": "NVFP4",
    "paroquant": "ParoQuant",
    "qqq": "QQQ",
    "quanto": "Quanto",
    "quark": "Quark",
    "sinq": "SINQ",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}
"""Methods that are known by name only.  Those of transformers are held against its own list by a test."""

_SPELLINGS = {"intel/auto-round": "auto-round", "w_bit": "bits", "q_group_size": "group_size"}
"""Older spellings of names of methods, and of the keys that AutoAWQ writes into a file of its own."""

FIX = "name the checkpoint that it was made from as the source"


@dataclass(frozen=True, slots=True)
class Quantization:
    """What a file says of quantized weights: `method` as quant_method has it, `values` the object that `key` of it holds."""

    method: str
    values: Mapping[str, Any]
    file: str
    key: str | None

    @property
    def label(self) -> str:
        """The name that the method is known by."""
        name = READ.get(self.method) or NOT_READ.get(self.method) or f"an unknown method {self.method!r}"
        algorithm = self.values.get("quant_algo")
        return f"{name} ({algorithm})" if isinstance(algorithm, str) else name

    def where(self, key: str | None = None) -> Where:
        """The place of a key, for messages."""
        return Where(self.file, key=".".join(part for part in (self.key, key) if part) or None)


def check_quantization(
    config: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]] | None = None
) -> Quantization | None:
    """How the weights are quantized according to config.json; None where it names no method.

    `files` has the contents of those of `QUANTIZATION_FILES` that the checkpoint has; they count where config.json is silent.
    Raises InputError for a method that is not read, and for one that no text names.
    """
    found = _find(config, files or {})
    if found is None or found.method in READ:
        return found
    raise InputError(
        f"the weights are quantized by {found.label}, which is not read",
        where=found.where("quant_method" if "quant_method" in found.values else None),
        why=f"quantized checkpoints are read where the method is {_listed(READ.values())}",
        fix=FIX,
    )


def read_quantization_files(directory: Path) -> dict[str, dict[str, Any]]:
    """The contents of those of `QUANTIZATION_FILES` that a directory has.  Raises InputError for one that is not valid."""
    return {name: read_json(directory / name, name) for name in QUANTIZATION_FILES if is_file(directory / name)}


def _find(config: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> Quantization | None:
    for key in ("quantization_config", "compression_config"):
        values = config.get(key)
        if values is not None:
            if not isinstance(values, Mapping):
                raise InputError("must be an object", where=Where("config.json", key=key), why=f"it is {values!r:.80}")
            default = "compressed-tensors" if key == "compression_config" else None
            return _named(values, "config.json", key, default)
    values = config.get("quantization")
    if isinstance(values, Mapping) and "bits" in values and "group_size" in values:
        return _named(values, "config.json", "quantization", "mlx")
    for file, content in files.items():
        if file == "hf_quant_config.json":
            values = content.get("quantization")
            inner = values if isinstance(values, Mapping) else {}
            return _named(inner, file, "quantization", "modelopt")
        return _named(content, file, None, "awq" if file == "quant_config.json" else "gptq")
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
            why="it is missing" if method is None else f"it is {method!r:.80}",
            fix=FIX,
        )
    method = method.lower()
    return Quantization(_SPELLINGS.get(method, method), plain, file, key)


def _listed(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else str(last)
