"""The second moments of a model's inputs as a file, as the calibrate task writes it and quantize reads it.

A safetensors file.  Each distinct input of linear layers has a tensor for each block of at most `BLOCK` of its elements, NAME.0,
NAME.1, …: the upper half of the mean of x x^T, row after row, float32 [m (m + 1) / 2].  The metadata has `format`, `tokens`, of
how many rows the means are, and `inputs`, JSON: {NAME: {"size": elements, "parameters": [the layers that it is an input of]}}.
NAME is that of the first of these layers; all are MLC's names of parameters without ".weight".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.safetensors import SafetensorsFile
from llmbuild.errors import InputError, StoreError
from llmbuild.jsontext import parse_json
from llmbuild.quantization.calibrated import DAMPING, EMBEDDING_DAMPING, Factor
from llmbuild.quantization.ports import PlainParameter

Array = np.ndarray[Any, Any]

MOMENTS = "moments.safetensors"
"""The file's name in the task's output."""

FORMAT = "llmbuild moments 1"

BLOCK = 1024
"""Between inputs of different blocks nothing is known.  Of a layer of 8,192 inputs that saves seven eighths of 256 MB."""


@dataclass(frozen=True, slots=True)
class Input:
    """A distinct input of linear layers: its number of elements, and the parameters that are multiplied with it, in order."""

    size: int
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parameters[0]

    @property
    def blocks(self) -> list[slice]:
        """The blocks that its elements are cut into, equal up to one element."""
        count = -(-self.size // BLOCK)
        ends = [self.size * part // count for part in range(count + 1)]
        return [slice(first, end) for first, end in itertools.pairwise(ends)]


def write_moments(path: Path, inputs: Sequence[Input], tokens: int, blocks: Iterable[Array]) -> None:
    """Write the file; `blocks` are the square means [m, m] of each input's blocks, float32, in order.  Raises StoreError."""
    about = {each.name: {"size": each.size, "parameters": list(each.parameters)} for each in inputs}
    metadata = {"format": FORMAT, "tokens": str(tokens), "inputs": json.dumps(about)}
    header: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for each in inputs:
        for number, block in enumerate(each.blocks):
            size = block.stop - block.start
            count = size * (size + 1) // 2
            header[f"{each.name}.{number}"] = {
                "dtype": "F32",
                "shape": [count],
                "data_offsets": [place, place + 4 * count],
            }
            place += 4 * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for values in blocks:
                for row in range(len(values)):
                    file.write(np.ascontiguousarray(values[row, row:], np.dtype("<f4")).tobytes())
    except OSError as error:
        raise StoreError(f"cannot write {path.name}", where=str(path.parent), why=error.strerror) from error


class MomentsFile:
    """An open file of second moments.  Raises InputError where it is none; close it after use."""

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self._path, self._file = path, SafetensorsFile(path, checks)
        try:
            self.tokens, self.inputs = self._read_metadata(self._file.metadata)
        except BaseException:
            self._file.close()
            raise
        self._by_parameter = {name: each for each in self.inputs for name in each.parameters}
        self._latest: tuple[Input, Factor] | None = None

    def close(self) -> None:
        self._file.close()

    def factor(self, parameter: PlainParameter) -> Factor | None:
        """What is known of a parameter's inputs; None for an embedding that is no head.

        Raises InputError for a linear layer that the file does not have, or has with another number of inputs.
        """
        module = parameter.name.removesuffix(".weight")
        known = self._by_parameter.get(module)
        if known is None and parameter.role == "embedding":
            return None
        if known is None or known.size != parameter.shape[1]:
            has = "no such layer" if known is None else f"{known.size} inputs of it"
            raise self._unfit(f"the model has {module} with {parameter.shape[1]} inputs, and the file has {has}")
        # Layers with one input follow each other: each factor is computed once.
        if self._latest is None or self._latest[0] is not known:
            damping = EMBEDDING_DAMPING if parameter.role == "embedding" else DAMPING
            self._latest = known, Factor.of_moments(self.moments(known), damping)
        return self._latest[1]

    def moments(self, of: Input) -> list[Array]:
        """The blocks [m, m] of an input, whose lower halves are zero."""
        found = []
        for number, block in enumerate(of.blocks):
            size = block.stop - block.start
            square = np.zeros((size, size), np.float32)
            square[np.triu_indices(size)] = self._file.read(f"{of.name}.{number}")
            if not np.isfinite(square).all() or np.diagonal(square).min() < 0:
                raise self._unfit(f"block {number} of {of.name} holds values that no second moments are")
            found.append(square)
        return found

    def _read_metadata(self, metadata: Mapping[str, Any]) -> tuple[int, tuple[Input, ...]]:
        if metadata.get("format") != FORMAT:
            raise self._unfit(f"its format is {str(metadata.get('format'))[:40]!r}, and '{FORMAT}' is read")
        try:
            inputs = tuple(
                Input(int(each["size"]), tuple(map(str, each["parameters"])))
                for each in parse_json(metadata["inputs"].encode()).values()
            )
            tokens = int(metadata["tokens"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unfit("its metadata is damaged") from error
        wanted = {
            f"{each.name}.{number}": (block.stop - block.start)
            for each in inputs
            if each.parameters and 0 < each.size <= 1 << 24
            for number, block in enumerate(each.blocks)
        }
        shapes = {name: (size * (size + 1) // 2,) for name, size in wanted.items()}
        if not shapes or shapes != {name: info.shape for name, info in self._file.tensors.items()}:
            raise self._unfit("its tensors are not those that its metadata lists")
        return tokens, inputs

    def _unfit(self, why: str) -> InputError:
        return InputError(
            "these are no second moments of this model's inputs",
            where=str(self._path),
            why=why,
            fix="run `llmbuild build` without it, which collects them, or name the file of another build of the same model",
        )
