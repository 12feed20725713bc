"""The inverses of what llama.cpp's converter does to tensors, on arrays and on their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]


class Step(Protocol):
    """One change of a tensor."""

    def __call__(self, value: np.ndarray) -> np.ndarray: ...

    def shape(self, shape: Shape) -> Shape:
        """The shape afterwards; raises ValueError for a tensor that the change does not fit."""
        ...


@dataclass(frozen=True, slots=True)
class Neighbours:
    """llama.cpp rotates neighbouring rows of a head, Hugging Face the first half with the second: [h, d/2, 2] -> [h, 2, d/2]."""

    heads: int

    def __call__(self, value: np.ndarray) -> np.ndarray:
        rows = value.reshape(self.heads, -1, 2, *value.shape[1:])
        return rows.swapaxes(1, 2).reshape(value.shape)

    def shape(self, shape: Shape) -> Shape:
        return _divided(shape, 2 * self.heads)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of `count`: them alone, or all of them with a step on those."""

    start: int
    stop: int
    count: int
    step: Neighbours | None = None

    def __call__(self, value: np.ndarray) -> np.ndarray:
        if self.step is None:
            return value[self.start : self.stop].copy()
        value = value.copy()
        value[self.start : self.stop] = self.step(value[self.start : self.stop])
        return value

    def shape(self, shape: Shape) -> Shape:
        if shape[0] != self.count:
            raise ValueError("other rows than there are")
        return shape if self.step is not None else (self.stop - self.start, *shape[1:])


@dataclass(frozen=True, slots=True)
class Grouped:
    """GGUF stacks all q, all k, all v; the checkpoint has the `shared` queries of a key, the key and the value group by group."""

    groups: int
    shared: int
    size: int

    def __call__(self, value: np.ndarray) -> np.ndarray:
        import numpy as np

        heads = value.reshape(-1, self.size, *value.shape[1:])
        cuts = (self.groups * self.shared, self.groups * (self.shared + 1))
        parts = [part.reshape(self.groups, -1, *value.shape[1:]) for part in np.split(heads, cuts)]
        return np.concatenate(parts, axis=1).reshape(value.shape)

    def shape(self, shape: Shape) -> Shape:
        if shape[0] != self.groups * (self.shared + 2) * self.size:
            raise ValueError("other rows than there are heads")
        return shape


@dataclass(frozen=True, slots=True)
class Row:
    """One of `count` rows."""

    index: int
    count: int

    def __call__(self, value: np.ndarray) -> np.ndarray:
        row: np.ndarray = value[self.index].copy()
        return row

    def shape(self, shape: Shape) -> Shape:
        if shape[0] != self.count or len(shape) != 2:
            raise ValueError("other rows than there are")
        return shape[1:]


@dataclass(frozen=True, slots=True)
class Transposed:
    """The checkpoint has inputs in rows; what has one axis stays."""

    def __call__(self, value: np.ndarray) -> np.ndarray:
        return value.T.copy()

    def shape(self, shape: Shape) -> Shape:
        return shape[::-1]


@dataclass(frozen=True, slots=True)
class Less:
    """Less a number, in float32."""

    number: float

    def __call__(self, value: np.ndarray) -> np.ndarray:
        import numpy as np

        return value.astype(np.float32) - np.float32(self.number)

    def shape(self, shape: Shape) -> Shape:
        return shape


def _divided(shape: Shape, parts: int) -> Shape:
    if shape[0] % parts:
        raise ValueError("not whole heads")
    return shape
