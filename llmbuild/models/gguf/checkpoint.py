"""A GGUF file as a Hugging Face checkpoint: configuration, tokenizer, names and layouts restored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.gguf import GgufFile
from llmbuild.checkpoints.gguf_split import SplitGguf, open_gguf
from llmbuild.checkpoints.gguf_tokenizer import Note, make_tokenizer_files
from llmbuild.checkpoints.huggingface import missing_tensor
from llmbuild.checkpoints.names import GENERATION_CONFIG, TOKENIZER_CONFIG, TOKENIZER_JSON
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo
from llmbuild.errors import InputError
from llmbuild.models.gguf.config import make_config, make_generation_config
from llmbuild.models.gguf.names import restored_tensors

if TYPE_CHECKING:
    import numpy as np

_ROPE_FACTORS = "rope_freqs.weight"
MAX_FACTORS_BYTES = 1 << 20
"""There is one for each two elements of a head."""


class GgufCheckpoint(Checkpoint):
    """An open GGUF file, or its parts; the tensors are in the file's order.  Raises InputError when it is not valid."""

    format = "gguf"

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self._file = open_gguf(path, checks)
        try:
            self.config = _config(self._file)
            self.generation_config = make_generation_config(self._file.metadata)
            heads = int(self.config["num_attention_heads"])
            self._restored = restored_tensors(
                self._file.metadata["general.architecture"],
                tuple(self._file.tensors),
                heads=heads,
                key_value_heads=int(self.config.get("num_key_value_heads", heads)),
                where=path,
            )
            self._tensors = {name: self._info(name) for name in self._restored}
            types = self._file.block_types
            self.packed_by = f"GGUF, {' and '.join(types)}" if types else None
        except BaseException:
            self._file.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            raise missing_tensor(name, self._tensors, self._file.path)
        origin = self._restored[name]
        value = self._file.read(origin.source)
        return value if origin.restore is None else origin.restore(value)

    def close(self) -> None:
        self._file.close()

    def _info(self, name: str) -> TensorInfo:
        origin = self._restored[name]
        info = self._file.tensors[origin.source]
        heads = int(self.config["num_attention_heads"])
        groups = int(self.config.get("num_key_value_heads", heads))
        parts = {"attn_q": 2 * heads, "attn_k": 2 * groups, "attn_qkv": 3 * heads}
        unit = parts.get(origin.source.split(".")[-2], 1) if origin.restore is not None else 1
        if info.shape[0] % unit:
            raise InputError(
                f"tensor {origin.source!r} has {info.shape[0]} rows, which the attention heads do not divide",
                where=str(self._file.path),
            )
        return TensorInfo(name, info.shape, info.dtype, info.nbytes)


def read_gguf_metadata(
    path: Path, checks: Checks = NO_CHECKS, note: Note | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, bytes]]:
    """Configuration, generation configuration and tokenizer files of a GGUF file.  Raises InputError."""
    file = open_gguf(path, checks)
    try:
        return _config(file), make_generation_config(file.metadata), make_tokenizer_files(file.metadata, path, note)
    finally:
        file.close()


def read_gguf_description(path: Path) -> dict[str, bytes | dict[str, Any]]:
    """What a GGUF file says for config.json, for generation_config.json where it has sampling values, and of the chat template
    for tokenizer_config.json.  tokenizer.json takes long to make, and is there only where the file lists more tokens than its
    embedding has rows.  Raises InputError."""
    file = open_gguf(path)
    try:
        config = _config(file)
        template = file.metadata.get("tokenizer.chat_template")
        settings = {"chat_template": template} if isinstance(template, str) else {}
        found: dict[str, bytes | dict[str, Any]] = {"config.json": config, TOKENIZER_CONFIG: settings}
        found[GENERATION_CONFIG] = make_generation_config(file.metadata) or {}
        tokens = file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) > config["vocab_size"]:
            found[TOKENIZER_JSON] = make_tokenizer_files(file.metadata, path)[TOKENIZER_JSON]
        return found
    finally:
        file.close()


def _config(file: GgufFile | SplitGguf) -> dict[str, Any]:
    factors = None
    if _ROPE_FACTORS in file.tensors:
        if file.tensors[_ROPE_FACTORS].nbytes > MAX_FACTORS_BYTES:
            raise InputError(f"tensor {_ROPE_FACTORS!r} is too large to be one of frequencies", where=str(file.path))
        factors = [float(value) for value in file.read(_ROPE_FACTORS).reshape(-1)]
    return make_config(file.metadata, file.tensors, factors, file.path)
