"""What the methods of quantizing leave of a model's loss: KL divergence of the next token on held-out text, by transformers.

    python benchmarks/methods.py [--checkpoint DIR] [--orders 6] [--tokens 8192] [--calibration 16384]
        [--calibration-text FILE]

Without a checkpoint it is the small Llama that the tests train, on its own texts.  Each figure is the mean over orders of the
inputs of every layer: in one order the luck of a few frequent tokens' rows is a tenth of it.  Rows named "head 8" have the head,
which is the embedding in a tied model, in 8 bits.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmbuild.quantization.calibrated import DAMPING, EMBEDDING_DAMPING, Factor
from llmbuild.quantization.pack import pack
from llmbuild.quantization.scheme import SCHEMES, Scheme
from llmbuild.quantization.unpack import unpack
from tests.helpers.divergence import Change, Judge, pack_calibrated
from tests.helpers.trained import trained_checkpoint

Q4, Q3, Q8 = SCHEMES["q4f16_1"], SCHEMES["q3f16_1"], SCHEMES["q8f16_1"]


def plain(scheme: Scheme) -> Change:
    return lambda weight, _moments, _head: unpack(scheme, *pack(weight, scheme), weight.shape, transposed=False)


def by_factor(scheme: Scheme, factor: Callable[[np.ndarray, bool], Factor]) -> Change:
    def change(weight: np.ndarray, moments: np.ndarray, head: bool) -> np.ndarray:
        return unpack(scheme, *pack_calibrated(weight, scheme, factor(moments, head)), weight.shape, transposed=False)

    return change


def weighted(scheme: Scheme) -> Change:
    return by_factor(scheme, lambda moments, _: Factor.of_diagonal(np.diagonal(moments)))


def calibrated(scheme: Scheme, largest: int | None = None) -> Change:
    """With the moments of blocks of at most `largest` inputs, as the calibrate task has them of 1,024."""

    def factor(moments: np.ndarray, head: bool) -> Factor:
        size = len(moments)
        count = -(-size // (largest or size))
        ends = [size * part // count for part in range(count + 1)]
        blocks = [moments[first:end, first:end] for first, end in itertools.pairwise(ends)]
        return Factor.of_moments(blocks, EMBEDDING_DAMPING if head else DAMPING)

    return by_factor(scheme, factor)


def head_8(of_head: Change, rest: Change) -> Change:
    return lambda weight, moments, head: (of_head if head else rest)(weight, moments, head)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a directory that transformers reads")
    parser.add_argument("--orders", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--calibration", type=int, default=16384)
    parser.add_argument("--calibration-text", type=Path, help="a text to calibrate with instead")
    arguments = parser.parse_args()
    text = arguments.calibration_text.read_text() if arguments.calibration_text else None
    judge = Judge(arguments.checkpoint or trained_checkpoint(), arguments.tokens, arguments.calibration, text)
    search = replace(Q4, method="search")
    methods: dict[str, Change] = {
        "4 round": plain(Q4),
        "4 search": plain(search),
        "4 weighted search": weighted(Q4),
        "4 calibrated": calibrated(Q4),
        "4 calibrated, blocks of 64": calibrated(Q4, 64),
        "4 calibrated, blocks of 32": calibrated(Q4, 32),
        "4 round, head 8": head_8(plain(Q8), plain(Q4)),
        "4 search, head 8": head_8(plain(replace(Q8, method="search")), plain(search)),
        "4 calibrated, head 8": head_8(calibrated(Q8), calibrated(Q4)),
        "3 round": plain(Q3),
        "3 search": plain(replace(Q3, method="search")),
        "3 calibrated": calibrated(Q3),
        "8 round": plain(Q8),
        "8 calibrated": calibrated(Q8),
    }
    first = 0.0
    print("| method | KL | relative to round, 4 bits |\n|---|---|---|")
    for name, change in methods.items():
        mean = judge.mean_divergence(change, arguments.orders)
        first = first or mean
        print(f"| {name} | {mean:.3e} | {mean / first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
