"""Weights by the method "calibrated": what runs, what does not, and the same bytes for any number of threads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.logits import PROMPT, reference_logits, session
from tests.helpers.stored import load_stored_into

CALIBRATED = f"""{TINY_MANIFEST}
[quality]
calibration-text = "calibration.txt"
[quantizations.q4f32_1]
method = "calibrated"
"""
WEIGHTS = "dist/tiny-q4f32_1-MLC"


def weights(project: ProjectDir) -> dict[str, bytes]:
    return {name: data for name, data in project.snapshot(WEIGHTS).items() if name.startswith("params_shard_")}


@contextmanager
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_calibrating_runs_once_and_for_the_text_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-tied"))
    assert project.build()["lower"] == 1
    rounded = weights(project)

    text = project.root / "calibration.txt"
    text.write_text("A first text, of which a model sees every letter. " * 30)
    project.write(CALIBRATED)
    # Of what the library for the platform depends on nothing has changed; the one with taps is new.
    reference = {"text": 1, "config": 1, "lower": 1, "link": 1, "calibrate": 1}
    assert project.build() == {**reference, "quantize": 2}
    calibrated = weights(project)
    assert {name: len(data) for name, data in calibrated.items()} == {name: len(data) for name, data in rounded.items()}
    assert calibrated != rounded

    model = reference_model(project.root / "checkpoint")
    load_stored_into(model, project.root / WEIGHTS, json.loads((project.root / "checkpoint/config.json").read_text()))
    running = session(project, "q4f32_1")
    running.add()
    found, wanted = running.prefill(PROMPT), reference_logits(model, PROMPT)[-1]
    assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)

    with one_core():
        result = project.run("build", "--check", "calibrate[tiny]", "quantize[tiny, q4f32_1]")
    assert result.code == 0, result.text

    text.write_text("Another text, 1 + 1 = 2, with other letters in it: ÄÖÜ. " * 30)
    assert project.build() == {"text": 1, "calibrate": 1, "quantize": 1}
    assert weights(project) != calibrated
    project.write(CALIBRATED.replace('"calibrated"', '"search"'))
    assert project.build() == {"quantize": 1}
    # What it was made with is still there.
    project.write(CALIBRATED)
    assert project.build() == {}


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, CALIBRATED, cached_checkpoint("llama-tied"))
    (project.root / "calibration.txt").write_text("Hello.")
    result = project.run("build", "calibrate[tiny]")
    assert result.code == 3, result.text
    assert "the text has" in result.text
    assert "give a longer text" in result.text
