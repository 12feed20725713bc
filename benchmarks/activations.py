"""What rounding the input of products costs: the distributions of libraries that differ in `activations` alone, over one text.

    python benchmarks/activations.py DIRECTORY-OF-WEIGHTS FLOAT-LIBRARY OTHER-LIBRARY... [--text FILE] [--tokens 400]

Every token of the text is decoded in turn, and each library's logits are compared with those of the first library, which rounds
nothing: the mean Kullback-Leibler divergence of its distribution from the first one's in nats, the largest, the mean relative L2
distance of the logits, and how often the likeliest token is the same.  The text is by default this repository's README.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def logits(library: Path, weights: Path, tokens: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] of each token after those before it, float64."""
    from llmbuild.runtime.library import load_library
    from llmbuild.runtime.session import Session
    from llmbuild.runtime.weights import load_parameters

    loaded = load_library(library)
    session = Session(loaded, load_parameters(loaded, weights), capacity=len(tokens) + 16)
    session.add()
    return np.stack([np.array(session.decode(token), np.float64) for token in tokens])


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("libraries", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, default=ROOT / "README.md")
    parser.add_argument("--tokens", type=int, default=400)
    arguments = parser.parse_args()

    from tokenizers import Tokenizer

    from llmbuild.runtime.library import configure_threads

    configure_threads(None)
    tokenizer = Tokenizer.from_file(str(arguments.weights / "tokenizer.json"))
    tokens = tokenizer.encode(arguments.text.read_text()).ids[: arguments.tokens]
    first, *others = arguments.libraries
    wanted = logits(first, arguments.weights, tokens)
    expected = log_softmax(wanted)
    print(f"{len(tokens)} tokens, against {first.name}")
    print(f"{'library':50} {'mean KL':>9} {'max KL':>9} {'rel. L2':>9} {'same token':>11}")
    for library in others:
        found = logits(library, arguments.weights, tokens)
        divergence = (np.exp(expected) * (expected - log_softmax(found))).sum(-1)
        distance = np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
        same = (found.argmax(-1) == wanted.argmax(-1)).mean()
        print(
            f"{library.name:50} {divergence.mean():9.2e} {divergence.max():9.2e} {distance.mean():9.2e} {same:11.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
