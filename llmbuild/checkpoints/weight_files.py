"""Which files hold a checkpoint's weights: transformers' choice, made from the names of the files and from an index.

The order is model.safetensors, its index, pytorch_model.bin, its index.  An index that counts names the files, whatever they are
called.  Where there is none of the four, files without an index are taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llmbuild.checkpoints.pointer import refuse_pointer
from llmbuild.errors import InputError, Where
from llmbuild.jsontext import parse_json
from llmbuild.printable import several

SAFETENSORS = "huggingface-safetensor"
TORCH = "huggingface-torch"

WHOLE: Mapping[str, str] = {SAFETENSORS: "model.safetensors", TORCH: "pytorch_model.bin"}
"""The whole file of each format, best first; its index has `.index.json` appended."""

INDEXES = tuple(f"{name}.index.json" for name in WHOLE.values())
"""The indexes of the formats, best first."""

NAMES = tuple(name + index for name in WHOLE.values() for index in ("", ".index.json"))
"""The files that decide by being there."""

ADAPTER_WEIGHTS: Mapping[str, str] = {SAFETENSORS: "adapter_model.safetensors", TORCH: "adapter_model.bin"}
"""The file of an adapter in each format, best first."""

MAX_NAME_BYTES = 255
"""The longest name of a file that file systems accept."""

_NOT_WEIGHTS = frozenset({*ADAPTER_WEIGHTS.values(), "training_args.bin", "optimizer.bin", "scheduler.bin"})
_NUMBERED = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})\.\w+")
_GGUF_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)

_MOST_PARTS = 10_000
"""A name that counts further is not taken for that of a shard."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of a checkpoint's weights in record order; where an index names them, its name and the file of each tensor."""

    format: str
    files: tuple[str, ...]
    index: str | None = None
    file_of: Mapping[str, str] | None = None


def choose(
    names: Collection[str], source_format: str | None, where: str, read: Callable[[str], bytes]
) -> WeightFiles | None:
    """The weights among the files of the directory `where`; None when it has none, or only GGUF files.

    `source_format` admits one format.  `read` gives the content of an index.  Raises InputError when the index is not valid, or
    when some of the weights are there and others are missing.
    """
    formats = _formats(source_format)
    for format in formats:
        whole = WHOLE[format]
        index = f"{whole}.index.json"
        if whole in names:
            return WeightFiles(format, (whole,))
        if index in names:
            file_of = _read_weight_map(read(index), f"{where}/{index}", PurePosixPath(whole).suffix)
            files = tuple(dict.fromkeys(file_of.values()))
            _require(files, names, f"{where}/{index}")
            return WeightFiles(format, files, index, file_of)
    for format in formats:
        if files := _without_index(names, format):
            _require([name for file in files for name in _siblings(_NUMBERED, file)], names, where)
            return WeightFiles(format, files)
    return None


def refuse_named_weights(config: Mapping[str, Any], read: Collection[str]) -> None:
    """Raise InputError when config.json has transformers read other weights than one of these files.

    `read` are the names of the files that may be chosen: one of the whole files and indexes.
    """
    named = config.get("transformers_weights")
    if named is not None and named not in read:
        raise InputError(
            "the configuration names its file of weights",
            where=Where("config.json", key="transformers_weights"),
            why=f"transformers reads {str(named)[:200]!r}, which is not what is read here",
            fix="put these weights into a directory of their own, as model.safetensors, and remove the key",
        )


def format_of(names: Collection[str]) -> str | None:
    """The format that `choose` reads; None when there are no weights, or only GGUF files."""
    proper = [format for format, whole in WHOLE.items() if whole in names or f"{whole}.index.json" in names]
    return next(iter(proper or [format for format in WHOLE if _without_index(names, format)]), None)


def unread(names: Collection[str], chosen: str) -> str | None:
    """A file of weights of another format than the chosen one, which is not read: its whole file or its index."""
    others = (WHOLE[format] for format in WHOLE if format != chosen)
    return next((name for whole in others for name in (whole, f"{whole}.index.json") if name in names), None)


def gguf_models(names: Iterable[str]) -> list[list[str]]:
    """The GGUF files of each model: one, or the parts of a split one, all of them by number, whether they are there or not."""
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    return [list(parts) for parts in dict.fromkeys(tuple(gguf_parts(name)) for name in ggufs)]


def gguf_parts(name: str) -> list[str]:
    """The names of all parts of a split GGUF file, given any of them; of a whole file its own."""
    return _siblings(_GGUF_PART, name)


def is_plain_name(file: str) -> bool:
    """Whether a file can have this name and no path, no link upward and no control character is in it."""
    plain = file == PurePosixPath(file).name and file != ".." and "\\" not in file
    return plain and file.isprintable() and 0 < len(file.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES


def _formats(source_format: str | None) -> list[str]:
    return [format for format in WHOLE if format == source_format] or list(WHOLE)


def _without_index(names: Collection[str], format: str) -> tuple[str, ...]:
    """Numbered shards, those with the usual name first; where there are none, all files of the format that may be weights."""
    suffix = PurePosixPath(WHOLE[format]).suffix
    files = sorted(name for name in names if name.endswith(suffix) and name not in _NOT_WEIGHTS)
    numbered = {name: match for name in files if (match := _NUMBERED.fullmatch(name))}
    usual = WHOLE[format].removesuffix(suffix)
    return tuple([name for name, match in numbered.items() if match[1] == usual] or numbered or files)


def _siblings(pattern: re.Pattern[str], name: str) -> list[str]:
    """The names of all files that are numbered as this one is."""
    match = pattern.fullmatch(name)
    count = int(match[3]) if match is not None else 0
    if match is None or not 1 <= int(match[2]) <= count <= _MOST_PARTS:
        return [name]
    start, width = match.end(1), len(match[2])
    end = name[match.end(3) :]
    return [f"{name[:start]}-{number:0{width}d}-of-{match[3]}{end}" for number in range(1, count + 1)]


def _require(files: Collection[str], names: Collection[str], where: str) -> None:
    """Raise InputError when some of the files are there and others are not.

    Where none is, the weights were left out on purpose: what the other files decide can be built.
    """
    missing = [file for file in dict.fromkeys(files) if file not in names]
    if missing and len(missing) < len(set(files)):
        raise InputError(
            f"{'shard' if len(missing) == 1 else 'shards'} {several(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            where=where,
            why=f"{len(set(files)) - len(missing)} of {len(set(files))} shards are there",
            fix="fetch the checkpoint again",
        )


def _read_weight_map(data: bytes, where: str, suffix: str) -> dict[str, str]:
    refuse_pointer(data, where)
    try:
        value = parse_json(data, numbers=True)
    except ValueError as error:
        raise InputError(
            "the weight index is not valid JSON", where=where, why=str(error), fix="fetch the checkpoint again"
        ) from error
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    place = Where(where, key="weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("the weight index has no weight_map", where=place, fix="fetch the checkpoint again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not is_plain_name(file) or not file.endswith(suffix):
            raise InputError(
                f"tensor {name[:200]!r} is said to be in {str(file)[:200]!r}",
                where=place,
                why=f"a shard is a file in the same directory, and its name ends with {suffix}",
            )
    return weight_map
