"""Check a built library against its weights by loading and running both with TVM's runtime.

The checks: shard digests; a row of the embedding for every token that can be sent; every parameter's name, shape and dtype
against the library's metadata; a prefill and decode steps with finite logits of the right size; and that decoding token by
token agrees with prefilling the same tokens at once, which exercises the KV cache on both paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import VOCABULARY_BYTES, is_file, parse_json, read_bounded
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.conversation.numbers import check_numbers
from llmbuild.conversation.vocabulary import read_vocabulary
from llmbuild.errors import InputError, VerifyError
from llmbuild.runtime.chat_config import read_chat_config
from llmbuild.runtime.library import load_library
from llmbuild.runtime.session import PAGE_SIZE, Session
from llmbuild.runtime.weights import check_parameters, check_shards, load_parameters, read_tensor_index

if TYPE_CHECKING:
    import numpy as np

PROMPT_TOKENS = 12
DECODE_STEPS = 5
TOLERANCE = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
"""Largest relative L2 distance between the two paths, by compute dtype: they add up in different orders."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The results of the checks."""

    parameters: int
    shards: int
    bytes: int
    decode_steps: int
    distance: float


def relative_l2(found: np.ndarray, wanted: np.ndarray) -> float:
    """The distance of two arrays over the length of the second."""
    import numpy as np

    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def verify(library_path: Path, directory: Path) -> Verified:
    """Run every check; raises VerifyError for the first that fails."""
    import numpy as np

    index = read_tensor_index(directory)
    check_shards(directory, index)
    library = load_library(library_path)
    count = check_parameters(library, directory, index)
    config = read_chat_config(directory)
    _check_tokens(directory, config)
    parameters = load_parameters(library, directory)

    total = PROMPT_TOKENS + DECODE_STEPS
    capacity = -(-max(total, library.metadata["prefill_chunk_size"]) // PAGE_SIZE) * PAGE_SIZE
    session = Session(library, parameters, max_sequences=2, capacity=2 * capacity)
    # Tokens are spread over the active vocabulary, so that padding rows of the embedding are never used.
    active = min(config["active_vocab_size"], config["vocab_size"])
    tokens = [int(token) for token in np.linspace(0, active - 1, total).astype("int64")]
    session.add(0)
    stepwise = [session.prefill(tokens[:PROMPT_TOKENS], 0)]
    stepwise += [session.decode(token, 0) for token in tokens[PROMPT_TOKENS:]]
    session.add(1)
    at_once = session.prefill(tokens, 1)

    for step, logits in enumerate([*stepwise, at_once]):
        if logits.shape != (config["vocab_size"],):
            raise VerifyError(
                f"the logits have shape {list(logits.shape)}, the vocabulary {config['vocab_size']} tokens",
                where=str(library_path),
            )
        if not np.isfinite(logits).all():
            raise VerifyError(
                f"the logits of step {step} are not finite",
                where=str(library_path),
                why="the weights are broken, or the compute dtype overflows",
                fix="try a scheme that computes in float32, for example q4f32_1",
            )
    distance = relative_l2(stepwise[-1], at_once)
    dtype = _compute_dtype(library.metadata["params"])
    if distance > TOLERANCE[dtype]:
        raise VerifyError(
            f"decoding token by token and prefilling at once differ by {distance:.2e} (relative L2)",
            where=str(library_path),
            why=f"at most {TOLERANCE[dtype]:.0e} is expected of {dtype}",
        )
    shards = index["records"]
    return Verified(count, len(shards), sum(shard["nbytes"] for shard in shards), DECODE_STEPS, distance)


def _check_tokens(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise VerifyError where a token that can be sent has no row in the embedding."""
    path = directory / "tokenizer.json"
    try:
        tokenizer = parse_json(read_bounded(path, path.name, VOCABULARY_BYTES), path.name) if is_file(path) else None
        vocabulary = read_vocabulary(tokenizer)
        check_numbers(
            config["vocab_size"], vocabulary, config["conv_template"], [(CHAT_CONFIG, config)], lambda _: None
        )
    except InputError as error:
        raise VerifyError(
            error.what, where=error.where or str(directory), why=error.why, fix="build the model again"
        ) from error


def _compute_dtype(parameters: list[dict[str, str]]) -> str:
    """The floating dtype that most parameters have; packed words are integers and do not count."""
    floats = [record["dtype"] for record in parameters if record["dtype"] in TOLERANCE]
    return max(sorted(set(floats)), key=floats.count)
