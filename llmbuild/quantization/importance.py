"""Importance of inputs that was measured elsewhere: mean squares, for a search under their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmbuild.errors import InputError
from llmbuild.quantization.calibrated import Factor

if TYPE_CHECKING:
    import numpy as np

    from llmbuild.quantization.ports import PlainParameter


def of_another_model(where: str, why: str) -> InputError:
    """What is said of a file that was measured with another model."""
    return InputError(
        "the importance is not that of this model",
        where=where,
        why=why,
        fix="give the file that was measured with this model",
    )


class MeanSquares:
    """Mean squares of inputs [k] by the checkpoint's names of the weights; `where` they come from."""

    def __init__(self, by_source: Mapping[str, np.ndarray], where: str) -> None:
        self._by_source, self._where = by_source, where

    def factor(self, parameter: PlainParameter) -> Factor | None:
        """Of the mean over the parameter's sources; None where the file knows none of them.

        Raises InputError where it has another number of inputs.
        """
        import numpy as np

        known = [self._by_source[source] for source in parameter.sources if source in self._by_source]
        if not known:
            return None
        wrong = next((each for each in known if each.size != parameter.shape[1]), None)
        if wrong is not None:
            raise of_another_model(
                self._where, f"{parameter.name} has {parameter.shape[1]} inputs, and the file has {wrong.size} of it"
            )
        return Factor.of_diagonal(np.mean(np.stack(known).astype(np.float64), axis=0))
