"""Which files of a checkpoint are needed: its small files and one form of its weights, all of them at the top level."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from llmbuild.checkpoints.names import QUANTIZATION_FILES, SPECIAL_TOKENS_FILE, TOKENIZER_FILES
from llmbuild.errors import FetchError, InputError

CONFIG_NAMES = ("config.json", "adapter_config.json")
"""What makes a directory a checkpoint or an adapter."""

GGUF_NAME = "model.gguf"
"""The name of a fetched GGUF file, so that renaming one changes nothing downstream."""

MOST_NAME = 255
"""Bytes of the longest name that file systems have."""

MOST_SIZE = (1 << 63) - 1
"""Bytes of the largest file that they have."""

MOST_DESCRIPTION = 1 << 20
"""Bytes of the largest file that is read before a fetch; a config.json has a few thousand."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
    SPECIAL_TOKENS_FILE,
    *QUANTIZATION_FILES,
    "adapter_config.json",
)

# Each form of weights, best first: the files of the form, for a model and for an adapter.  Names that match none of the
# exact forms (`consolidated.safetensors`, `model.fp16.safetensors`) repeat the same weights in most repositories.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "huggingface-safetensor",
        re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"),
    ),
    ("huggingface-safetensor", re.compile(r"[^/]+\.safetensors|[^/]+\.safetensors\.index\.json")),
    (
        "huggingface-torch",
        re.compile(r"(pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"),
    ),
    ("huggingface-torch", re.compile(r"[^/]+\.bin|[^/]+\.bin\.index\.json")),
)


def needed_files(names: Collection[str], source_format: str | None, where: str) -> list[str]:
    """The needed ones of a directory's files, sorted; `source_format` selects one form of weights.

    Without a configuration the directory must contain exactly one GGUF file, which is then all that is needed.  Raises
    FetchError (about `where`) when there is neither, or when there are several GGUF files to choose from.
    """
    top = [name for name in names if "/" not in name]
    ggufs = sorted(name for name in top if name.lower().endswith(".gguf"))
    configured = any(name in CONFIG_NAMES for name in top)
    if source_format == "gguf" or (source_format is None and not configured):
        if len(ggufs) == 1:
            return ggufs
        if ggufs:
            raise FetchError(
                "holds several GGUF files", where=where, why=", ".join(ggufs), fix="name one of them in the source"
            )
    if not configured or source_format == "gguf":
        raise InputError(
            "is not a checkpoint",
            where=where,
            why="it holds no .gguf file"
            if source_format == "gguf"
            else "it holds neither config.json nor a .gguf file",
            fix="give the directory that holds the model's files",
        )
    wanted = {name for name in top if name in SMALL_FILES}
    asked = {form for form, _ in _FORMS}
    for form, pattern in _FORMS:
        weights = {name for name in top if pattern.fullmatch(name)}
        if weights and (source_format == form or source_format not in asked):
            wanted |= weights
            break
    return sorted(wanted)


def is_weights(name: str) -> bool:
    """Whether a needed file is one of weights, which tasks read a tensor at a time, and not small or an index."""
    return name not in SMALL_FILES and name.lower().endswith((".safetensors", ".bin", ".gguf"))


def is_description(name: str) -> bool:
    """Whether a file says by itself what a checkpoint is: its architecture, and how its weights were quantized."""
    return name == "config.json" or name in QUANTIZATION_FILES


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
    """The name under which a needed file is put out."""
    base = PurePosixPath(name).name
    return GGUF_NAME if base.lower().endswith(".gguf") else base


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
