"""Opening a checkpoint directory, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import SENTENCEPIECE_BYTES, VOCABULARY_BYTES, is_file, read_bounded
from llmbuild.checkpoints.huggingface import (
    HuggingFaceCheckpoint,
    file_names,
    listing,
    read_config,
    read_generation_config,
)
from llmbuild.checkpoints.names import TOKENIZER_FILES
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.weight_files import SAFETENSORS, TORCH, format_of, gguf_models
from llmbuild.errors import InputError, UsageError, did_you_mean

if TYPE_CHECKING:
    from llmbuild.checkpoints.tensor import Checkpoint
    from llmbuild.models.architecture import DecoderFamily

GGUF = "gguf"
AUTO = "auto"
SOURCE_FORMATS = (AUTO, SAFETENSORS, TORCH, GGUF)
"""The values of the manifest's `source-format`; they are mlc_llm's."""


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """A checkpoint without its weights.  A tokenizer file is a path, or bytes when it was made from GGUF metadata."""

    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    tokenizer_files: Mapping[str, bytes | Path]

    def tokenizer_file(self, name: str) -> bytes | None:
        """The content of one tokenizer file, or None when the checkpoint has none of that name.  Raises InputError."""
        content = self.tokenizer_files.get(name)
        if isinstance(content, Path):
            most = SENTENCEPIECE_BYTES if name == "tokenizer.model" else VOCABULARY_BYTES
            return read_bounded(content, name, most)
        return content


def open_checkpoint(
    directory: Path,
    source_format: str | None = None,
    checks: Checks = NO_CHECKS,
    family: DecoderFamily | None = None,
) -> Checkpoint:
    """Open the checkpoint in `directory` (or a single GGUF file) for lazy reading; close it after use.

    `source_format` forces one of `SOURCE_FORMATS`; None and "auto" detect the format, safetensors before torch before GGUF.
    Files that `checks` names are read as `WeightFile` describes.  `family` is that of a GGUF file, where it is known.
    Raises InputError when no format matches or a file is not valid, UsageError for an unknown format, ChangedError.
    """
    format = infer_format(directory, source_format)
    if format == GGUF:
        from llmbuild.models.gguf.checkpoint import GgufCheckpoint

        return GgufCheckpoint(_gguf_file(directory), checks, family)
    if format is None:
        raise InputError(
            "no weights found",
            where=str(directory),
            why=f"there are no safetensors, torch or GGUF weights; the directory has {listing(directory)}",
            fix="name the directory that holds the weights, or fetch the checkpoint again",
        )
    return HuggingFaceCheckpoint(directory, format, checks)


def read_metadata(
    directory: Path,
    source_format: str | None = None,
    checks: Checks = NO_CHECKS,
    note: Callable[[str], None] | None = None,
    family: DecoderFamily | None = None,
) -> CheckpointMetadata:
    """Configuration and tokenizer.  The weights may be absent, except for GGUF, whose one file contains everything.

    `note` takes a sentence about what a GGUF file does not say; `family` is as for `open_checkpoint`.
    Raises InputError when config.json is missing or not valid, or a GGUF file's metadata is not valid.
    """
    if infer_format(directory, source_format) == GGUF:
        from llmbuild.models.gguf.checkpoint import read_gguf_metadata

        config, generation, tokenizer = read_gguf_metadata(_gguf_file(directory), checks, note, family)
        return CheckpointMetadata(config, generation, tokenizer)
    config = read_config(directory)
    files = {name: directory / name for name in TOKENIZER_FILES if is_file(directory / name)}
    return CheckpointMetadata(config, read_generation_config(directory), files)


def infer_format(directory: Path, source_format: str | None = None) -> str | None:
    """The format to read `directory` in; None when it has no weights at all."""
    if source_format is not None and source_format not in SOURCE_FORMATS:
        raise UsageError(
            f"unknown source-format {source_format!r}",
            why=did_you_mean(source_format, SOURCE_FORMATS),
            fix=f"use one of {', '.join(SOURCE_FORMATS)}",
        )
    if source_format not in (None, AUTO):
        return source_format
    if is_file(directory):
        return GGUF
    if not directory.is_dir():
        raise InputError("the checkpoint is not there", where=str(directory), fix="check the path")
    names = file_names(directory)
    return format_of(names) or (GGUF if gguf_models(names) else None)


def _gguf_file(directory: Path) -> Path:
    """The GGUF file, or the first part of a split one."""
    if is_file(directory):
        return directory
    models = gguf_models(file_names(directory))
    if len(models) != 1:
        found = ", ".join(parts[0] for parts in models) or listing(directory)
        raise InputError(
            "there is no GGUF file" if not models else f"there are {len(models)} GGUF files and one is needed",
            where=str(directory),
            why=f"found {found}",
            fix="name the file itself as the source",
        )
    return directory / models[0][0]
