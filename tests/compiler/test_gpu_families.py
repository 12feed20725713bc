"""Every model family on a GPU: the kernels that the pipeline makes for OpenCL, which PoCL runs, against transformers.

The reference holds the weights as the library has them stored, so that only the arithmetic differs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.agreement import FUNCTIONS, agree
from tests.helpers.checkpoints import CONFIGS, cached_checkpoint
from tests.helpers.generic_library import logits_of, stored_model, tails
from tests.helpers.opencl import require
from tests.helpers.opencl_library import OpenCLLibrary
from tests.helpers.parts import covering, of_kernels
from tests.helpers.stored import windowed_logits
from tests.helpers.variants import all_logits, variants, write_checkpoint

LAYOUTS: dict[str, Scheme] = {
    "q0f32": SCHEMES["q0f32"],
    "q4f32_1": SCHEMES["q4f32_1"],
    # Float16 in the table; float32 is the only width that PoCL computes in on every machine.
    "q4f32_0": replace(SCHEMES["q4f16_0"], name="q4f32_0", dtype="float32"),
    "q3f32_1": replace(SCHEMES["q3f16_1"], name="q3f32_1", dtype="float32"),
}
FAMILIES = [name for name in CONFIGS if name != "llama3-rope-parameters"]
"""What is another spelling of the same left out."""

USUAL = {
    ("gpt_neox", "q4f32_1"),
    ("llama-bias", "q3f32_1"),
    ("llama-tied", "q4f32_0"),
}
"""Each packed layout once; mistral and qwen3 have tests of their own, llama3 is in test_pipeline_gpu.py.  `pytest -m
full` runs all of them."""

PROMPT = [int(token) for token in np.random.default_rng(5).integers(3, 310, 37)]
FOLLOWING = [7, 301, 11, 250, 3]
TOLERANCE = 1e-4
ONE_SEQUENCE = ("embed", "prefill", "decode")


@pytest.mark.parametrize(
    ("variant", "layout"),
    [
        pytest.param(variant, layout, marks=() if (variant, layout) in USUAL else pytest.mark.full)
        for variant in FAMILIES
        for layout in LAYOUTS
    ],
)
def test_logits_of_one_sequence(variant: str, layout: str) -> None:
    """A prompt over three pages, whole and in chunks (which attend to earlier ones and are merged), and decode steps."""
    require()
    directory = cached_checkpoint(variant)
    scheme = LAYOUTS[layout]
    prompt = PROMPT[:20] if variant == "mistral" else PROMPT
    expected = logits_of(stored_model(directory, scheme), prompt + FOLLOWING)[len(prompt) - 1 :]
    library = OpenCLLibrary(directory, scheme, ONE_SEQUENCE, optimize=False)
    for chunk in (None, 16):
        tails(library.generate(prompt, FOLLOWING, chunk), expected, TOLERANCE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in covering(of_kernels) else pytest.mark.full) for name in variants()]
)
def test_every_part(name: str, tmp_path: Path) -> None:
    """A batch, decode steps, chunks, and what lies past a window, of every variant that a family has."""
    require()
    model = write_checkpoint(tmp_path / "checkpoint", variants()[name])
    library = OpenCLLibrary(tmp_path / "checkpoint", "q0f32", FUNCTIONS, optimize=False)
    agree(library, partial(all_logits, model), 2e-5)


def test_a_sliding_window_with_sinks() -> None:
    """40 steps, most of them beyond the window: a token sees four sinks, the latest 28 tokens and itself."""
    require()
    directory = cached_checkpoint("mistral")
    tokens = [int(token) for token in np.random.default_rng(7).integers(3, 310, 60)]
    library = OpenCLLibrary(directory, "q4f32_1", ONE_SEQUENCE, optimize=False, sliding_window_size=32)
    window, sinks = library.config.sliding_window_size, library.config.attention_sink_size
    assert (window, sinks) == (32, 4)
    expected = windowed_logits(stored_model(directory, "q4f32_1"), tokens, window=window, sink=sinks)
    tails(library.generate(tokens[:20], tokens[20:], chunk=16), expected[19:], TOLERANCE)


def test_batches_and_trees_of_drafts() -> None:
    """Two sequences of different lengths in each batched function, and a tree of drafts, whose branches are apart."""
    require()
    directory = cached_checkpoint("qwen3-tied")
    model = stored_model(directory, "q4f32_1")
    functions = ("embed", "prefill", "batch_prefill", "batch_decode", "batch_verify")
    library = OpenCLLibrary(directory, "q4f32_1", functions, optimize=False)
    other = PROMPT[:4][::-1]
    first, second = logits_of(model, [*PROMPT, 7, 8, 9]), logits_of(model, [*other, 44, 45])

    library.start(sequences=2)
    rows = library.forward("batch_prefill", PROMPT + other, (37, 4), positions=[36, 40])[0]
    tails(rows, np.stack([first[36], second[3]]), TOLERANCE)
    rows = library.forward("batch_decode", [7, 44], (1, 1))[:, 0]
    tails(rows, np.stack([first[37], second[4]]), TOLERANCE)
    rows = library.forward("batch_verify", [8, 9, 45], (2, 1))[0]
    tails(rows, np.stack([first[38], first[39], second[5]]), TOLERANCE)

    library.start()
    library.forward("prefill", PROMPT)
    rows = library.forward("batch_verify", [7, 8, 100, 101], (4,), parents=[-1, 0, 0, 2])[0]
    branch = logits_of(model, [*PROMPT, 7, 100, 101])
    tails(rows, np.stack([first[37], first[38], branch[38], branch[39]]), TOLERANCE)
