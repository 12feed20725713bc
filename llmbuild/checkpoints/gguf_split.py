"""A GGUF file in parts, as llama-gguf-split writes it: the first has the metadata, and each has tensors of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import is_file
from llmbuild.checkpoints.gguf import GgufFile
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.checkpoints.weight_files import gguf_parts
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


class SplitGguf:
    """The open parts of a GGUF file, which read as one.  Raises InputError when a part is missing, or is not one of this file."""

    def __init__(self, first: GgufFile, checks: Checks = NO_CHECKS) -> None:
        self.path = first.path
        self._parts = [first]
        self._part_of: dict[str, GgufFile] = {}
        self._tensors: dict[str, TensorInfo] = {}
        try:
            self._open(checks)
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The first part's."""
        return self._parts[0].metadata

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors of all parts, in the order of the parts."""
        return self._tensors

    @property
    def block_types(self) -> tuple[str, ...]:
        """As `GgufFile.block_types`."""
        return tuple(sorted({name for part in self._parts for name in part.block_types}))

    def read(self, name: str) -> np.ndarray:
        """One tensor, as `GgufFile.read` gives it."""
        return self._part_of[name].read(name)

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """See `Checkpoint.parts`."""
        return self._part_of[name].parts(name)

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _open(self, checks: Checks) -> None:
        count, names = self.metadata[_COUNT], gguf_parts(self.path.name)
        number = self.metadata.get(_NUMBER)
        which = f"part {number + 1}" if isinstance(number, int) else "one"
        if number != 0 or len(names) != count or self.path.name != names[0]:
            raise InputError(
                "the GGUF file is one part of a split one",
                where=str(self.path),
                why=f"it is {which} of {count}, and each has other tensors",
                fix="put all parts into one directory, with the names that llama-gguf-split gave them",
            )
        for number, name in enumerate(names):
            path = self.path.parent / name
            if number and not is_file(path):
                raise self._bad(path, "a part of the split GGUF file is missing", f"there are {count} parts")
            part = self._parts[0] if number == 0 else GgufFile(path, checks)
            if number:
                self._parts.append(part)
            if part.metadata.get(_NUMBER) != number or part.metadata.get(_COUNT) != count:
                why = f"it says that it is number {part.metadata.get(_NUMBER)} of {part.metadata.get(_COUNT)}"
                raise self._bad(path, f"the file is not part {number + 1} of {count} of the split GGUF file", why)
            for tensor, info in part.tensors.items():
                if tensor in self._tensors:
                    raise self._bad(
                        path, f"tensor {tensor!r} is in two parts of the split GGUF file", "each has others"
                    )
                self._tensors[tensor], self._part_of[tensor] = info, part
        promised = self.metadata.get(_TENSORS, len(self._tensors))
        if promised != len(self._tensors):
            why = f"the first promises {promised} tensors, and they have {len(self._tensors)}"
            raise self._bad(self.path, "the parts of the GGUF file do not belong together", why)

    @staticmethod
    def _bad(path: Path, what: str, why: str) -> InputError:
        return InputError(what, where=str(path), why=why, fix="fetch the checkpoint again")


def open_gguf(path: Path, checks: Checks = NO_CHECKS) -> GgufFile | SplitGguf:
    """A GGUF file, given it or any part of it.  Raises InputError when it is not a valid one."""
    first = path.parent / gguf_parts(path.name)[0]
    file = GgufFile(first if is_file(first) else path, checks)
    count = file.metadata.get(_COUNT)
    return SplitGguf(file, checks) if isinstance(count, int) and count > 1 else file
