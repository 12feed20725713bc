"""The calibrate task: the second moments of what a model's linear layers are multiplied with, over a text.

A library for one fixed CPU target runs the checkpoint's own weights in float32 and returns these inputs.  The key has weights,
library, tokenizer and text; for any number of threads the output has the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np

    from llmbuild.quantization.moments import Input
    from llmbuild.runtime.session import Session

FEWEST = 500
"""Moments of fewer tokens are noise: a matrix of 1,000 inputs has half a million of them."""


def run(job: Job) -> None:
    """Write moments.safetensors (`quantization.moments`).  Raises InputError for a text that is too short and a model without a
    tokenizer."""
    from llmbuild.quality.windows import WINDOW, prefix_of, read_text, windows
    from llmbuild.quantization.moments import MOMENTS, Input, write_moments
    from llmbuild.runtime.library import configure_threads, load_library
    from llmbuild.runtime.session import PAGE_SIZE, Session
    from llmbuild.runtime.tokenizer import encode, load_tokenizer
    from llmbuild.runtime.weights import load_parameters
    from llmbuild.tasks.text import TEXT

    given = job.inputs
    wanted = job.params["tokens"]
    assert isinstance(wanted, int)
    tokenizer = load_tokenizer(given["tokenizer"])
    tokens = encode(tokenizer, read_text((given["text"] / TEXT).read_bytes(), TEXT))[:wanted]
    if len(tokens) < FEWEST:
        raise InputError(
            f"the text has {len(tokens)} tokens",
            where="quality.calibration-text",
            why=f"weights that are calibrated with fewer than {FEWEST} are worse than others",
            fix="give a longer text, best some 50 pages of what the model is for",
        )
    configure_threads(None)
    (path,) = sorted(given["library"].iterdir())
    library = load_library(path)
    size = max(library.metadata["prefill_chunk_size"], WINDOW)
    session = Session(library, load_parameters(library, given["weights"]), capacity=-(-size // PAGE_SIZE) * PAGE_SIZE)
    inputs = [Input(each["size"], tuple(each["parameters"])) for each in library.metadata["linear_inputs"]]
    context = library.metadata["context_window_size"]
    cut = windows(tokens, prefix_of(tokenizer), context if context > 0 else WINDOW)
    sums, rows = collect(
        session, inputs, (window.tokens for window in cut), lambda done: job.progress(done, len(tokens), "tokens")
    )
    means = (block / rows for blocks in sums for block in blocks)
    write_moments(job.out / MOMENTS, inputs, rows, means)
    print(f"second moments of {len(inputs)} inputs over {rows} tokens")


def collect(
    session: Session, inputs: Sequence[Input], texts: Iterable[Sequence[int]], progress: Callable[[int], None]
) -> tuple[list[list[np.ndarray]], int]:
    """The sums of x x^T of each input's blocks, float32 [m, m], over texts that a library with taps reads one by one, and the
    number of rows."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    sums = [[np.zeros((_length(block), _length(block)), np.float32) for block in each.blocks] for each in inputs]
    rows = 0

    def add(number: int, values: np.ndarray) -> None:
        # One thread has all of an input, so that its sums are made in one order.
        for total, block in zip(sums[number], inputs[number].blocks, strict=True):
            part = np.ascontiguousarray(values[:, block])
            np.add(total, part.T @ part, out=total)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for text in texts:
            session.add()
            for start in range(0, len(text), session.chunk):
                part = text[start : start + session.chunk]
                list(pool.map(add, range(len(inputs)), session.linear_inputs(part)))
                rows += len(part)
                progress(rows)
            session.remove()
    return sums, rows


def _length(block: Any) -> int:
    return int(block.stop - block.start)


KIND = TaskKind(
    name="calibrate",
    version=1,
    params=("tokens",),
    sources=("llmbuild.tasks.calibrate",),
    tools=(
        "apache-tvm",
        "apache-tvm python",
        "apache-tvm-ffi",
        "apache-tvm-ffi python",
        "numpy",
        "ml_dtypes",
        "tokenizers",
    ),
    run=run,
    typical_seconds=60.0,
    typical_memory=1 << 30,
)
