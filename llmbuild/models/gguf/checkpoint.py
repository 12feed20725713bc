"""A GGUF file as a Hugging Face checkpoint: configuration, tokenizer, names and layouts restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.gguf import GgufFile
from llmbuild.checkpoints.gguf_split import SplitGguf, open_gguf
from llmbuild.checkpoints.gguf_tokenizer import Note, make_tokenizer_files
from llmbuild.checkpoints.huggingface import missing_tensor
from llmbuild.checkpoints.names import GENERATION_CONFIG, TOKENIZER_CONFIG, TOKENIZER_JSON
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo, numpy_dtype
from llmbuild.errors import InputError, Where
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.family import Overrides
from llmbuild.models.gguf.config import make_config, make_generation_config
from llmbuild.models.gguf.known import Chosen, choose
from llmbuild.models.gguf.names import Restored, restored_tensors
from llmbuild.models.gguf.rope import FACTORS
from llmbuild.models.spec import DecoderSpec

if TYPE_CHECKING:
    import numpy as np

MAX_FACTORS_BYTES = 1 << 20
"""There is one for each two elements of a head."""


class GgufCheckpoint(Checkpoint):
    """An open GGUF file, or its parts; the tensors are in the file's order.  See `choose` for `known`.

    Raises InputError when it is not valid.
    """

    format = "gguf"

    def __init__(self, path: Path, checks: Checks = NO_CHECKS, known: DecoderFamily | None = None) -> None:
        self._file = open_gguf(path, checks)
        try:
            chosen = _chosen(self._file, known)
            self.config = _config(self._file, chosen)
            self.generation_config = make_generation_config(self._file.metadata)
            spec = _decoder(chosen.family, self.config, path)
            self._restored = restored_tensors(self._file.tensors, spec, chosen.gguf, path)
            self._tensors = {
                name: TensorInfo.of(name, origin.shape, origin.dtype) for name, origin in self._restored.items()
            }
            types = self._file.block_types
            self.packed_by = f"GGUF, {' and '.join(types)}" if types else None
        except BaseException:
            self._file.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        origin = self._origin(name)
        return origin.restore([self._file.read(source) for source in origin.sources])

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """A tensor whose rows have another order in the file, or other values, is read as a whole."""
        origin = self._origin(name)
        if origin.steps:
            return super().parts(name)
        dtype = numpy_dtype(origin.dtype)
        return (part.astype(dtype, copy=False) for source in origin.sources for part in self._file.parts(source))

    def close(self) -> None:
        self._file.close()

    def _origin(self, name: str) -> Restored:
        if name not in self._restored:
            raise missing_tensor(name, self._tensors, self._file.path)
        return self._restored[name]


def read_gguf_metadata(
    path: Path, checks: Checks = NO_CHECKS, note: Note | None = None, known: DecoderFamily | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, bytes]]:
    """Configuration, generation configuration and tokenizer files of a GGUF file.  Raises InputError."""
    file = open_gguf(path, checks)
    try:
        chosen = _chosen(file, known)
        config, generation = _config(file, chosen), make_generation_config(file.metadata)
        return config, generation, make_tokenizer_files(file.metadata, path, note, chosen.gguf.pre)
    finally:
        file.close()


def read_gguf_description(path: Path, known: DecoderFamily | None = None) -> dict[str, bytes | dict[str, Any]]:
    """What a GGUF file says for config.json, for generation_config.json where it has sampling values, and of the chat template
    for tokenizer_config.json.  tokenizer.json takes long to make, and is there only where the file lists more tokens than its
    embedding has rows.  Raises InputError."""
    file = open_gguf(path)
    try:
        chosen = _chosen(file, known)
        config = _config(file, chosen)
        template = file.metadata.get("tokenizer.chat_template")
        settings = {"chat_template": template} if isinstance(template, str) else {}
        found: dict[str, bytes | dict[str, Any]] = {"config.json": config, TOKENIZER_CONFIG: settings}
        found[GENERATION_CONFIG] = make_generation_config(file.metadata) or {}
        tokens = file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) > config["vocab_size"]:
            found[TOKENIZER_JSON] = make_tokenizer_files(file.metadata, path, pre=chosen.gguf.pre)[TOKENIZER_JSON]
        return found
    finally:
        file.close()


def _chosen(file: GgufFile | SplitGguf, known: DecoderFamily | None) -> Chosen:
    return choose(file.metadata, file.tensors, file.path, known)


def _config(file: GgufFile | SplitGguf, chosen: Chosen) -> dict[str, Any]:
    factors = {}
    for name in FACTORS:
        if name in file.tensors:
            if file.tensors[name].nbytes > MAX_FACTORS_BYTES:
                raise InputError(f"tensor {name!r} is too large to be one of frequencies", where=str(file.path))
            factors[name] = [float(value) for value in file.read(name).reshape(-1)]
    return make_config(chosen, file.metadata, file.tensors, factors)


def _decoder(family: DecoderFamily, config: Mapping[str, Any], path: Path) -> DecoderSpec:
    try:
        return family.decoder(family.configure(config, Overrides()))
    except InputError as error:
        # The file has config.json's keys under other names.
        _, _, key = (error.where or "").partition(": ")
        error.where = str(Where(str(path), key=key)) if key else str(path)
        raise
