"""The tensors of a text model in a checkpoint of text and images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo, in_parts
from llmbuild.checkpoints.view import CheckpointView, RenamedCheckpoint
from llmbuild.models.wrappers import passed_over, text_config, wrapper_of

if TYPE_CHECKING:
    import numpy as np

_LAYER = re.compile(r"(^|\.)layers\.(\d+)\.")
_EMBEDDING = re.compile(r"(^|\.)embed_tokens\.weight$")


def text_checkpoint(base: Checkpoint, note: Callable[[str], None]) -> Checkpoint:
    """`base` as a checkpoint of its text model; `base` itself where it is one.

    The towers that the wrapper declares, and the layers that a text alone passes over, are left out with a note; a tensor of any
    other name stays, for the model to take or to refuse.  Raises InputError as `text_config` does.
    """
    wrapper = wrapper_of(base.config)
    if wrapper is None:
        return base
    passed = passed_over(base.config)
    names: dict[str, str] = {}
    left_out: list[str] = []
    for name in base.tensors:
        layer = _LAYER.search(name)
        if name.removeprefix("model.").startswith(wrapper.towers):
            left_out.append(name)
        elif passed and layer is not None:
            number = int(layer[2])
            if number in passed:
                left_out.append(name)
            else:
                dense = number - sum(other < number for other in passed)
                names[f"{name[: layer.start(2)]}{dense}{name[layer.end(2) :]}"] = name
        else:
            names[name] = name
    if left_out:
        note(
            f"only the text model of this {base.config['model_type']} model is built: {len(left_out)} tensors that a text alone "
            f"does not use are left out, the first '{left_out[0]}'"
        )
    text = RenamedCheckpoint(base, names)
    text.config = dict(text_config(base.config))
    return _WithoutRows(text, wrapper.extra_rows) if wrapper.extra_rows else text


class _WithoutRows(CheckpointView):
    """`base` without the last rows of its embedding."""

    def __init__(self, base: Checkpoint, rows: int) -> None:
        super().__init__(base)
        self._rows = rows
        self._cut = {
            name: TensorInfo.of(name, (info.shape[0] - rows, *info.shape[1:]), info.dtype)
            for name, info in base.tensors.items()
            if _EMBEDDING.search(name) and len(info.shape) == 2 and info.shape[0] > rows
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {**self._base.tensors, **self._cut}

    def read(self, name: str) -> np.ndarray:
        value = super().read(name)
        return value[: -self._rows] if name in self._cut else value

    def parts(self, name: str) -> Iterator[np.ndarray]:
        return in_parts(self.read(name)) if name in self._cut else super().parts(name)
