"""Logits of built libraries on this machine, held against a model in transformers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.cli import ProjectDir

PROMPT = [7, 200, 31, 5, 99, 250, 12, 64, 3, 178, 45]
STEPS = [17, 222, 9, 140, 66]
TOLERANCE = 2e-3


def session(
    project: ProjectDir, scheme: str, *, platform: str = "x86_64-linux-cpu", sequences: int = 1, capacity: int = 256
) -> Any:
    from llmbuild.runtime.library import configure_threads, load_library
    from llmbuild.runtime.session import Session
    from llmbuild.runtime.weights import load_parameters

    configure_threads(1)
    library = load_library(project.root / f"dist/libs/tiny-{scheme}-{platform}.so")
    parameters = load_parameters(library, project.root / f"dist/tiny-{scheme}-MLC")
    return Session(library, parameters, max_sequences=sequences, capacity=capacity)


def reference_logits(model: Any, tokens: list[int]) -> np.ndarray:
    """Logits [tokens, vocab] of a whole sequence at once."""
    import torch

    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([tokens])).logits[0].numpy()
    return logits


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < TOLERANCE
    assert found.argmax() == wanted.argmax()


def assert_prefill_and_decode(project: ProjectDir, scheme: str, model: Any) -> None:
    """The library that was built answers a prompt and the tokens after it as the model does."""
    wanted = reference_logits(model, PROMPT + STEPS)
    running = session(project, scheme)
    running.add()
    assert_close(running.prefill(PROMPT), wanted[len(PROMPT) - 1])
    for step, token in enumerate(STEPS):
        assert_close(running.decode(token), wanted[len(PROMPT) + step])
