"""Which files of a checkpoint are needed: its small files and one form of its weights, all of them at the top level."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from llmbuild.checkpoints.names import (
    CHAT_TEMPLATE_FILE,
    CHAT_TEMPLATE_JSON,
    GENERATION_CONFIG,
    QUANTIZATION_FILES,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    TOKENIZER_JSON,
)
from llmbuild.checkpoints.weight_files import (
    ADAPTER_WEIGHTS,
    INDEXES,
    WeightFiles,
    choose,
    format_of,
    gguf_models,
    gguf_parts,
    unread,
)
from llmbuild.errors import FetchError, InputError
from llmbuild.printable import several

CONFIG_NAMES = ("config.json", "adapter_config.json")
"""What makes a directory a checkpoint or an adapter."""

GGUF = "gguf"
"""The form of weights that a GGUF file is."""

GGUF_NAME = "model.gguf"
"""The name of a fetched GGUF file, so that renaming one changes nothing downstream."""

MOST_NAME = 255
"""Bytes of the longest name that file systems have."""

MOST_SIZE = (1 << 63) - 1
"""Bytes of the largest file that they have."""

MOST_DESCRIPTION = 1 << 20
"""Bytes of the largest file that is read before a fetch; a config.json has a few thousand."""

MOST_SETTINGS = 56 << 10
"""Bytes of the largest tokenizer_config.json or generation_config.json that a hub is asked for before a fetch: with config.json
they are less than 64 kB.  Llama 3's settings of 256 special tokens are among them."""

SMALL_FILES = (
    "config.json",
    GENERATION_CONFIG,
    *TOKENIZER_FILES,
    SPECIAL_TOKENS_FILE,
    *QUANTIZATION_FILES,
    CHAT_TEMPLATE_FILE,
    CHAT_TEMPLATE_JSON,
    "adapter_config.json",
)


def needed_files(
    names: Collection[str], source_format: str | None, where: str, read: Callable[[str], bytes]
) -> list[str]:
    """The needed ones of a directory's files, sorted; `source_format` selects one form of weights, `read` returns an index.

    The files of one GGUF model are all that is needed where there is no configuration, or no other weights beside it.  Raises
    FetchError (about `where`) when there are several GGUF models to choose from, InputError when it is no checkpoint, or lacks
    some of its shards.
    """
    top = {name for name in names if "/" not in name}
    configured = any(name in CONFIG_NAMES for name in top)
    weights: WeightFiles | None = None
    if "config.json" in top and source_format != GGUF:
        weights = choose(top, source_format, where, read)
    models = gguf_models(top)
    if source_format == GGUF or (source_format is None and weights is None and "adapter_config.json" not in top):
        if len(models) == 1:
            return _all_parts(models[0], top, where)
        if models:
            raise FetchError(
                "holds several GGUF files",
                where=where,
                why=several([parts[0] for parts in models]),
                fix="name one of them in the source",
            )
    if not configured or source_format == GGUF:
        raise InputError(
            "is not a checkpoint",
            where=where,
            why="it holds no .gguf file" if source_format == GGUF else "it holds neither config.json nor a .gguf file",
            fix="give the directory that holds the model's files",
        )
    wanted = top.intersection(SMALL_FILES)
    if weights is not None:
        wanted.update(top.intersection(weights.files), () if weights.index is None else (weights.index,))
    if "adapter_config.json" in top:
        wanted.update([name for name in ADAPTER_WEIGHTS.values() if name in top][:1])
    return sorted(wanted)


def unread_weights(names: Collection[str], needed: Collection[str], source_format: str | None) -> str | None:
    """A file of weights of another format than that of the needed files, where none was asked for."""
    chosen = format_of(needed) if source_format is None else None
    return None if chosen is None else unread(names, chosen)


def gguf_of(path: str, names: Collection[str], where: str) -> list[str]:
    """The files of the GGUF model of which `path` is the file, or one part.  Raises InputError when a part is missing."""
    return _all_parts(gguf_parts(path), names, where)


def _all_parts(parts: list[str], names: Collection[str], where: str) -> list[str]:
    missing = [name for name in parts if name not in names]
    if missing:
        raise InputError(
            f"part {missing[0]} of the GGUF file is missing",
            where=where,
            why=f"{len(parts) - len(missing)} of {len(parts)} parts are there, and each holds other tensors",
            fix="put all parts into one directory",
        )
    return parts


def is_weights(name: str) -> bool:
    """Whether a needed file is one of weights, which tasks read a tensor at a time, and not small or an index."""
    return name not in SMALL_FILES and name.lower().endswith((".safetensors", ".bin", ".gguf"))


def require_weights(names: Collection[str], source_format: str | None) -> None:
    """Raise InputError where the needed files of a checkpoint, by these names, have none of its weights."""
    if any(is_weights(name) and name not in ADAPTER_WEIGHTS.values() for name in names):
        return
    index = next((name for name in INDEXES if name in names), None)
    wanted = "safetensors, torch or GGUF" if source_format is None else source_format
    raise InputError(
        "the checkpoint has no weights",
        where="",
        why=f"there are none of {wanted}" if index is None else f"none of the shards that {index} names is there",
        fix="name a source that has them, or another source-format"
        if source_format is not None
        else "name a source that has them",
    )


def is_description(name: str) -> bool:
    """Whether a file says by itself what a checkpoint is: its architecture, and how its weights were quantized."""
    return name == "config.json" or name in QUANTIZATION_FILES


def descriptions(names: Collection[str]) -> list[str]:
    """The names of those files that are read before a fetch: descriptions, what names tokens by number, and what names the
    class of a tokenizer whose tokenizer.json has yet to be made, or has the chat template where it is no file of its own."""
    settings = TOKENIZER_JSON not in names or CHAT_TEMPLATE_FILE not in names
    wanted = (GENERATION_CONFIG, TOKENIZER_CONFIG) if settings else (GENERATION_CONFIG,)
    return [name for name in names if is_description(name) or name in wanted]


def begins_gguf(name: str) -> bool:
    """Whether a needed file is a GGUF file or the first part of one, whose head names the architecture."""
    return name.lower().endswith(".gguf") and gguf_parts(name)[0] == name


def transfer_order(name: str) -> tuple[int, str]:
    """The place of a needed file in a transfer: descriptions first, then indexes, the other small files, and weights."""
    if is_description(name) or name in CONFIG_NAMES:
        return 0, name
    if name.endswith(".index.json"):
        return 1, name
    return (3 if is_weights(name) else 2), name


def check_relative(name: str) -> None:
    """Raise ValueError when a name from outside is not that of a file below a directory, or no file can have it."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ValueError("leads out of its directory")
    if "" in parts or "." in parts or "\0" in name:
        raise ValueError("is not the name of a file")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if longest > MOST_NAME:
        raise ValueError(f"is longer than {MOST_NAME} bytes")


def output_name(name: str) -> str:
    """The name under which a needed file is put out: a GGUF file's is one for all, with the number where it is a part."""
    base = PurePosixPath(name).name
    if not base.lower().endswith(".gguf"):
        return base
    parts = gguf_parts(base)
    number = f"-{parts.index(base) + 1:05d}-of-{len(parts):05d}" if len(parts) > 1 else ""
    return GGUF_NAME.replace(".gguf", number + ".gguf")


def checkpoint_root(names: Collection[str], where: str) -> str:
    """The folder of an archive that contains the checkpoint: the shallowest with a configuration, else with a GGUF file.

    Returns "" for the top, otherwise the folder with a slash at its end.  Raises FetchError when there is none.
    """
    found = [name for name in names if PurePosixPath(name).name in CONFIG_NAMES] or [
        name for name in names if name.lower().endswith(".gguf")
    ]
    if not found:
        raise FetchError("holds no checkpoint", where=where, why="no config.json and no .gguf file is in it")
    shallowest = min(found, key=lambda name: (name.count("/"), name))
    return shallowest[: shallowest.rfind("/") + 1]
