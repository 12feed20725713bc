"""A checkpoint seen through another one: the base of views that change some of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo, in_parts

if TYPE_CHECKING:
    import numpy as np


class CheckpointView(Checkpoint):
    """All of `base` as it is, for a subclass to change.  Closing it closes `base`.

    A subclass in which tensors have other names than in `base` overrides `_stored`; one that changes values overrides `read`
    and `parts`.
    """

    def __init__(self, base: Checkpoint) -> None:
        self._base = base
        self.format = base.format
        self.config = base.config
        self.generation_config = base.generation_config
        self.packed_by = base.packed_by

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._base.tensors

    def read(self, name: str) -> np.ndarray:
        return self._base.read(self._stored(name))

    def parts(self, name: str) -> Iterator[np.ndarray]:
        return self._base.parts(self._stored(name))

    def location(self, name: str) -> str | None:
        return self._base.location(self._stored(name))

    def close(self) -> None:
        self._base.close()

    def _stored(self, name: str) -> str:
        """The base's name of a tensor."""
        return name


class RenamedCheckpoint(CheckpointView):
    """`base` with other names: `names` has the base's name of each tensor, in record order, and leaves out the hidden ones."""

    def __init__(self, base: Checkpoint, names: Mapping[str, str]) -> None:
        super().__init__(base)
        self._names = names
        self._tensors: dict[str, TensorInfo] = {}
        for name, stored in names.items():
            info = base.tensors[stored]
            self._tensors[name] = TensorInfo(name, info.shape, info.dtype, info.nbytes)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def _stored(self, name: str) -> str:
        return self._names.get(name, name)


class ZeroBiases(CheckpointView):
    """`base` with biases of zeros, after its own tensors.  `shapes` are those of the added ones by name."""

    def __init__(self, base: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(base)
        self._added = {name: TensorInfo.of(name, shape, "float32") for name, shape in shapes.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {**self._base.tensors, **self._added}

    def read(self, name: str) -> np.ndarray:
        import numpy as np

        info = self._added.get(name)
        return super().read(name) if info is None else np.zeros(info.shape, np.float32)

    def parts(self, name: str) -> Iterator[np.ndarray]:
        return in_parts(self.read(name)) if name in self._added else super().parts(name)
