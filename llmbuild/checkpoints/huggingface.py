"""A checkpoint as the Hugging Face hub stores it: config.json beside safetensors or torch files, whole or in shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import is_file, read_bounded, read_json, reason
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import Checkpoint, TensorFile, TensorInfo
from llmbuild.checkpoints.weight_files import SAFETENSORS, WHOLE, choose, refuse_named_weights
from llmbuild.errors import InputError, did_you_mean
from llmbuild.printable import several

if TYPE_CHECKING:
    import numpy as np


class HuggingFaceCheckpoint(Checkpoint):
    """Weights in one file or several, opened when first needed for an index and at once for a single file.

    Record order: the files in the order in which the index first names them, and in each file the
    order of the index, then what the index does not name; for a single file the order of its own header.
    """

    def __init__(self, directory: Path, format: str, checks: Checks = NO_CHECKS) -> None:
        self.format = format
        self._checks = checks
        self._directory = directory
        self._files: dict[str, TensorFile] = {}
        self.config = read_config(directory)
        self.generation_config = read_generation_config(directory)
        try:
            self._tensors, self._file_of = self._list_tensors()
        except BaseException:
            self.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            raise missing_tensor(name, self._tensors, self._directory)
        return self._open(self._file_of[name]).read(name)

    def parts(self, name: str) -> Iterator[np.ndarray]:
        if name not in self._tensors:
            raise missing_tensor(name, self._tensors, self._directory)
        return self._open(self._file_of[name]).parts(name)

    def location(self, name: str) -> str | None:
        return self._file_of.get(name)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _list_tensors(self) -> tuple[dict[str, TensorInfo], dict[str, str]]:
        directory = self._directory
        chosen = choose(
            file_names(directory),
            self.format,
            str(directory),
            lambda name: read_bounded(directory / name, "the weight index"),
        )
        if chosen is None:
            whole = WHOLE[self.format]
            raise InputError(
                f"there is neither {whole} nor {whole}.index.json",
                where=str(directory),
                why=f"the directory has {listing(directory)}",
                fix="name another source-format, or fetch the checkpoint again",
            )
        refuse_named_weights(self.config, [chosen.index or chosen.files[0]])
        if chosen.file_of is not None:
            return self._by_index(chosen.file_of, directory / str(chosen.index))
        tensors: dict[str, TensorInfo] = {}
        file_of: dict[str, str] = {}
        for file in chosen.files:
            for name, info in self._open(file).tensors.items():
                if name in tensors:
                    raise InputError(
                        f"tensor {name[:200]!r} is in {file_of[name]} and in {file}",
                        where=str(directory),
                        why="no index says which of the files count",
                        fix=f"leave those that belong together, with {WHOLE[self.format]}.index.json beside them",
                    )
                tensors[name], file_of[name] = info, file
        return tensors, file_of

    def _by_index(self, file_of: Mapping[str, str], index: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
        names_of: dict[str, list[str]] = {}
        for name, file in file_of.items():
            names_of.setdefault(file, []).append(name)
        for file, names in names_of.items():
            shard = self._open(file, index).tensors
            for name in names:
                if name not in shard:
                    raise InputError(
                        f"shard {file} lacks tensor {name!r} that the index promises",
                        where=str(index),
                        why=did_you_mean(name, shard),
                        fix="fetch the checkpoint again",
                    )
        # As in transformers, all that the shards hold counts, whether the index names it or not, and the last shard's by name.
        last = {name: file for file in sorted(names_of) for name in self._open(file).tensors}
        named = [name for names in names_of.values() for name in names]
        found = {name: last[name] for name in (*named, *last)}
        return {name: self._open(file).tensors[name] for name, file in found.items()}, found

    def _open(self, file: str, index: Path | None = None) -> TensorFile:
        if file not in self._files:
            path = self._directory / file
            if index is not None and not is_file(path):
                raise InputError(
                    f"shard {file} is missing",
                    where=str(index),
                    why=f"the directory has {listing(self._directory)}",
                    fix="fetch the checkpoint again",
                )
            self._files[file] = open_weight_file(path, self.format, self._checks)
        return self._files[file]


def open_weight_file(path: Path, format: str, checks: Checks = NO_CHECKS) -> TensorFile:
    """One weight file of the given format.  Raises InputError."""
    if format == SAFETENSORS:
        from llmbuild.checkpoints.safetensors import SafetensorsFile

        return SafetensorsFile(path, checks)
    from llmbuild.checkpoints.torch_pickle import TorchFile

    return TorchFile(path, checks)


def file_names(directory: Path) -> list[str]:
    """The names of the files in a directory.  Raises InputError when it cannot be read."""
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        raise InputError("the checkpoint cannot be read", where=str(directory), why=reason(error)) from error
    return [entry.name for entry in entries if is_file(entry)]


def read_config(directory: Path) -> dict[str, Any]:
    """config.json.  Raises InputError when it is missing or not a JSON object."""
    path = directory / "config.json"
    if not is_file(path):
        raise InputError(
            "the checkpoint has no config.json",
            where=str(directory),
            why=f"the directory has {listing(directory)}",
            fix="name the directory that holds config.json and the weights",
        )
    return read_json(path, "config.json")


def read_generation_config(directory: Path) -> dict[str, Any] | None:
    """generation_config.json, or None where there is none.  Raises InputError when it is not a JSON object."""
    path = directory / "generation_config.json"
    return read_json(path, "generation_config.json") if is_file(path) else None


def missing_tensor(name: str, known: Mapping[str, TensorInfo], where: Path) -> InputError:
    """The error for a tensor that a consumer requests and the checkpoint lacks."""
    return InputError(
        f"the checkpoint has no tensor {name!r}",
        where=str(where),
        why=did_you_mean(name, known) or f"it has {len(known)} others",
        fix="check that model-type fits the checkpoint",
    )


def listing(directory: Path, limit: int = 12) -> str:
    """The names in a directory for a message: "config.json, model.safetensors and 3 more", or "no files"."""
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        return f"no readable entries ({error.strerror})"
    return several(names, limit) or "no files"
