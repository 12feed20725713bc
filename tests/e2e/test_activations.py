"""The input of products rounded to two bytes, to one, and not at all: how far logits are from the model's, and what is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import LONGER_MANIFEST, ProjectDir, make_project
from tests.helpers.logits import PROMPT, STEPS, reference_logits, session
from tests.helpers.stored import load_stored_into

MANIFEST = (
    LONGER_MANIFEST.replace("q0f32", "q4f32_1").replace('"x86_64-linux-cpu"', '"usual", "one", "none"')
    + """
[platforms.usual]
target = "x86_64-linux-cpu"

[platforms.one]
target = "x86_64-linux-cpu"
activations = "int8"

[platforms.none]
target = "x86_64-linux-cpu"
activations = "float"
"""
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    project = make_project(tmp_path_factory.mktemp("activations"), MANIFEST, cached_checkpoint("llama"))
    project.build()
    return project


def distances(project: ProjectDir, platform: str) -> list[float]:
    """The relative distance from the model with the stored weights: of a prompt's logits, of those after it one by one, and of a
    long prompt's."""
    checkpoint = project.root / "checkpoint"
    model = reference_model(checkpoint)
    load_stored_into(
        model, project.root / "dist/tiny-q4f32_1-MLC", json.loads((checkpoint / "config.json").read_text())
    )
    tokens = PROMPT[:5] + STEPS
    running = session(project, "q4f32_1", platform=platform)
    running.add()
    found = [running.prefill(PROMPT[:5]), *map(running.decode, STEPS)]
    wanted = list(reference_logits(model, tokens)[4:])
    running.remove()
    running.add()
    found.append(running.prefill(PROMPT))
    wanted.append(reference_logits(model, PROMPT)[-1])
    return [
        float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in zip(found, wanted, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "least", "most"), [("none", 0, 1e-5), ("usual", 1e-6, 1e-3), ("one", 1e-3, 5e-2)])
def test_logits_are_as_close_as_promised(project: ProjectDir, platform: str, least: float, most: float) -> None:
    found = distances(project, platform)
    assert all(least < one < most for one in found), found


@pytest.mark.slow
def test_the_record_says_it(project: ProjectDir) -> None:
    from llmbuild.runtime.library import load_library

    told = {
        name: load_library(project.root / f"dist/libs/tiny-q4f32_1-{name}.so").metadata.get("activations")
        for name in ("usual", "one", "none")
    }
    assert told == {"usual": "int8x2", "one": "int8", "none": None}
