"""Whether a library computes what a model does: two prompts, one of which goes on, whole and in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.helpers.generic_library import GenericLibrary, tails

FUNCTIONS = ("embed", "batch_prefill", "batch_decode")
RANDOM = np.random.default_rng(3)
FIRST, SECOND = (RANDOM.integers(3, 150, size).tolist() for size in (45, 31))


def agree(library: GenericLibrary, logits: Callable[[list[int]], np.ndarray], tolerance: float) -> None:
    """Compare with `logits` [tokens, vocabulary]: prefill of a batch of two, eight decode steps of it, and three chunks."""
    wanted = [logits(FIRST), logits(SECOND)]
    starts = [len(FIRST) - 8, len(SECOND) - 8]

    library.start(sequences=2)
    prompt = [*FIRST[: starts[0]], *SECOND[: starts[1]]]
    rows = library.forward("batch_prefill", prompt, starts, positions=[starts[0] - 1, sum(starts) - 1])[0]
    tails(rows, _at(wanted, [start - 1 for start in starts]), tolerance)
    for step in range(8):
        tokens = [FIRST[starts[0] + step], SECOND[starts[1] + step]]
        rows = library.forward("batch_decode", tokens, (1, 1))[:, 0]
        tails(rows, _at(wanted, [start + step for start in starts]), tolerance)

    library.start(chunk=16)
    for start in range(0, len(FIRST), 16):
        ids = FIRST[start : start + 16]
        last = library.forward("batch_prefill", ids, positions=[len(ids) - 1])[0]
        tails(last, wanted[0][start + len(ids) - 1][None], tolerance)


def _at(logits: Sequence[np.ndarray], rows: Sequence[int]) -> np.ndarray:
    return np.stack([each[row] for each, row in zip(logits, rows, strict=True)])
