"""The method "calibrated": errors of early inputs are compensated by later ones, in the same format as "search".

A weight [n, k] is quantized so that its outputs change least for inputs of second moment H [k, k], the mean of x x^T over a
calibration text: a row w loses (w - q) H (w - q)^T.  With H = R R^T, R upper triangular, that is the sum of squares of (w - q) R,
whose element j is R[j, j] times

    (w - q)_j + sum over i < j of (w - q)_i A[i, j],    A[i, j] = R[i, j] / R[j, j].

So inputs are taken in order: each level is the one nearest to w_j plus what the errors before it leave, and what remains counts
with weight R[j, j]^2.  This is GPTQ (Frantar et al., 2022) in the form of LDLQ (Chee et al., 2023): the same levels as by the
inverse's Cholesky factor, without an inverse.  H is damped: a part of its mean diagonal is added to the diagonal.

A group's scale is fixed when its turn comes: candidates of either sign (`TRIES`) are rounded without compensation inside of the
group, refitted by least squares under the weights and rounded to their stored type, and the best is kept.  Where only the
diagonal of H is known nothing is compensated, and the weights are its elements: an importance-weighted search.

The products of matrices are NumPy's, of one thread each (`programs.environment`): rows are computed in blocks of `ROWS`, which
threads share, so that their number changes no byte.  On another kind of CPU sums may be made in another order, and levels that
are nearly a tie may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbuild.quantization.pack import UnfitValueError, describe_unfit, packed_shapes
from llmbuild.quantization.rounding import OVERFLOW, numpy_dtype
from llmbuild.quantization.scheme import Scheme
from llmbuild.quantization.search import LEAST, BestScales, tries_for

Array = np.ndarray[Any, Any]

DAMPING = 0.01
"""The part of the mean diagonal that is added to the diagonal."""

EMBEDDING_DAMPING = 0.3
"""The same for an embedding that is also the head: its rows are inputs as well, where every element counts alike.  On the small
model of the tests 0.3 leaves 0.29 of the divergence that "round" has, and 0.01 leaves 0.37."""

ROWS = 512
"""Rows that are computed together: enough for products of matrices, and few enough for all threads to have some."""

TRIES: dict[int, tuple[float, ...]] = {
    3: (1.2, 1.0625, 0.95, 0.8, -1.0, -0.8),
    4: (1.0625, 1.0, 0.9, -1.0, -0.9, -0.8),
    8: (1.0, 0.9875, 0.95),
}
"""As `search.TRIES`; more of them, for under weights the largest element may be of little weight."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What is known of the inputs of a weight [n, k]: A of each block of inputs, one after another, float32 [m, m] with ones on
    the diagonal (no blocks where only the diagonal of H is known), and what the squared error of each input counts, float32 [k].
    """

    blocks: tuple[Array, ...]
    weights: Array

    @staticmethod
    def of_moments(blocks: Sequence[Array], damping: float = DAMPING) -> Factor:
        """From the second moments of each block [m, m], whose upper halves are read."""
        mean = float(np.mean(np.concatenate([np.diagonal(block) for block in blocks], dtype=np.float64)))
        factors, weights = [], []
        for block in blocks:
            factor = _upper_factor(block, damping * mean if mean > 0 else 1.0)
            diagonal = np.diagonal(factor).copy()
            factors.append((factor / diagonal).astype(np.float32))
            weights.append(diagonal * diagonal)
        every = np.concatenate(weights)
        # Only ratios count, and squares of tiny inputs would leave float32's range.
        return Factor(tuple(factors), (every / every.mean()).astype(np.float32))

    @staticmethod
    def of_diagonal(diagonal: Array) -> Factor:
        """From the mean squares [k] alone."""
        wide = diagonal.astype(np.float64)
        mean = float(wide.mean())
        return Factor((), (wide / mean + DAMPING if mean > 0 else np.ones_like(wide)).astype(np.float32))

    def coefficients(self, first: int, end: int) -> tuple[int, Array]:
        """A[start:end, first:end] for inputs first..end, and `start`: the errors of earlier inputs count nothing for them."""
        place = 0
        parts: list[tuple[int, int, Array]] = []
        for block in self.blocks:
            size = len(block)
            if place < end and first < place + size:
                parts.append((place, size, block))
            place += size
        if not parts:
            return first, np.zeros((end - first, end - first), np.float32)
        start = parts[0][0]
        found = np.zeros((end - start, end - first), np.float32)
        for place, size, block in parts:
            low, high = max(first, place), min(end, place + size)
            found[place - start : high - start, low - first : high - first] = block[
                : high - place, low - place : high - place
            ]
        return start, found


def _upper_factor(moments: Array, damping: float) -> Array:
    """R, upper triangular and float64, with R R^T the damped second moments."""
    # NumPy has the factor of lower triangular form: of the matrix with both axes reversed it is this one, reversed.
    wide = np.triu(moments).astype(np.float64)
    wide += np.triu(wide, 1).T
    wide[np.diag_indices_from(wide)] += damping
    return np.ascontiguousarray(np.linalg.cholesky(wide[::-1, ::-1])[::-1, ::-1])


class CalibratedPacker:
    """Packs one weight [n, k] into `q_weight` and `q_scale`, as `pack.Packer` does, under what is known of its inputs."""

    def __init__(self, scheme: Scheme, n: int, k: int, factor: Factor, *, transposed: bool = False) -> None:
        weight_shape, scale_shape = packed_shapes(scheme, n, k, transposed=transposed)
        self.scheme, self.n, self.k, self.transposed = scheme, n, k, transposed
        self.q_weight: Array = np.empty(weight_shape, np.uint32)
        self.q_scale: Array = np.empty(scale_shape, numpy_dtype(scheme.dtype))
        self._factor = factor
        self._groups = -(-k // scheme.group_size)
        self._chooser = _Chooser(scheme)

    def submit(self, executor: Executor, source: Array, first_row: int = 0) -> Iterator[Future[None]]:
        """Queue the rows of `source` [rows, k], which become rows `first_row`… of the result."""
        for row in range(0, source.shape[0], ROWS):
            yield executor.submit(self.pack_rows, source[row : row + ROWS], first_row + row)

    def pack_rows(self, source: Array, first_row: int) -> None:
        """Pack `source` [rows, k].  Raises UnfitValueError as `pack.Packer.pack_rows`."""
        scheme, size, rows = self.scheme, self.scheme.group_size, len(source)
        with np.errstate(over="ignore", invalid="ignore"):
            # Inputs lie in rows, so that every step is one long loop over outputs.
            values = np.ascontiguousarray(source.astype(np.float32).T)
        if not np.abs(values).max(initial=0) < OVERFLOW[scheme.dtype]:
            raise UnfitValueError(describe_unfit(source, scheme.dtype))
        errors = np.empty_like(values)
        words = np.zeros((self._groups, scheme.words_per_group, rows), np.uint32)
        scales = np.empty((self._groups, rows), self.q_scale.dtype)
        shifts = (np.arange(scheme.elements_per_word, dtype=np.uint32) * np.uint32(scheme.bits))[None, :, None]
        for group in range(self._groups):
            first, end = group * size, min((group + 1) * size, self.k)
            start, factor = self._factor.coefficients(first, end)
            wanted: Array = values[first:end]
            if start < first:
                wanted = wanted + factor[: first - start].T @ errors[start:first]
            scales[group] = self._chooser.scales(wanted, self._factor.weights[first:end, None])
            digits = np.zeros((size, rows), np.uint32)
            self._round(values[first:end], wanted, factor[first - start :], scales[group], errors[first:end], digits)
            placed = digits.reshape(scheme.words_per_group, scheme.elements_per_word, rows) << shifts
            np.bitwise_or.reduce(placed, axis=1, out=words[group])
        self._store(words.reshape(-1, rows), scales, first_row)

    def _round(self, values: Array, wanted: Array, factor: Array, scales: Array, errors: Array, digits: Array) -> None:
        """Take the inputs of a group in order: fill `errors` and `digits` [inputs, rows].

        `wanted` are `values` with what the errors before the group leave; `factor` [inputs, inputs] is the group's own part of A.
        """
        scale = scales.astype(np.float32)
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / np.where(scale == 0, np.float32(1), scale))
        low, high = np.float32(-self.scheme.max_int), np.float32(self.scheme.max_int + 1)
        for place, value in enumerate(wanted):
            target = value + factor[:place, place] @ errors[:place] if place and self._factor.blocks else value
            level = np.clip(np.rint(target * inverse), low, high)
            np.subtract(values[place], level * scale, out=errors[place])
            digits[place] = (level - low).astype(np.uint32)

    def _store(self, words: Array, scales: Array, first_row: int) -> None:
        rows = slice(first_row, first_row + words.shape[1])
        if self.transposed:
            self.q_weight[:, rows], self.q_scale[:, rows] = words, scales
        else:
            self.q_weight[rows], self.q_scale[rows] = words.T, scales.T


class _Chooser:
    """Chooses scales of least weighted squared error."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._low, self._high = np.float32(-scheme.max_int), np.float32(scheme.max_int + 1)
        self._tries = tries_for(scheme, TRIES)

    def scales(self, values: Array, weights: Array) -> Array:
        """The scales, in the scheme's dtype, of groups whose elements lie in the columns of `values` [inputs, groups]."""
        top, bottom = values.max(axis=0), values.min(axis=0)
        largest = np.where(top >= -bottom, top, bottom)
        tiny = np.abs(largest) < LEAST
        start = np.where(tiny, np.float32(0), self._high / np.where(tiny, np.float32(1), largest))
        best = BestScales(self._scheme, values.shape[1])
        levels, weighted = np.empty_like(values), np.empty_like(values)
        for part in self._tries:
            np.multiply(values, np.float32(part) * start, out=levels)
            np.rint(levels, out=levels)
            np.clip(levels, self._low, self._high, out=levels)
            np.multiply(levels, weights, out=weighted)
            best.refit(np.einsum("ij,ij->j", weighted, values), np.einsum("ij,ij->j", weighted, levels))
        return best.scales
