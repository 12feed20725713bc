"""The recipes for a template, a scheme and an architecture in docs/how-to-add.md, followed, and a model built of all three."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoints import reference_model, write_tokenizer
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.imports import PACKAGE
from tests.helpers.logits import PROMPT, reference_logits
from tests.helpers.recipes import copy_of_llmbuild, follow, section
from tests.helpers.variants import SHARED, write_checkpoint

JAIS2 = {**SHARED, "architectures": ["Jais2ForCausalLM"], "model_type": "jais2", "mlp_bias": True, "vocab_size": 320}
MANIFEST = TINY_MANIFEST.replace('"q4f32_1"', '"q5f32_1"').replace('"chatml"', '"parrot"')


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """An environment with a copy of llmbuild in which the recipes were followed."""
    place = tmp_path / "python"
    copy_of_llmbuild(place)
    assert follow("A conversation template", place) == ["llmbuild/conversation/data/parrot.toml"]
    assert set(follow("A quantization scheme", place)) == {
        "llmbuild/quantization/overrides.py", "llmbuild/quantization/scheme.py", "llmbuild/tasks/shapes.py",
    }  # fmt: skip
    assert follow("An architecture", place) == ["llmbuild/models/families/jais2.py"]
    return {"PYTHONPATH": str(place)}


def test_a_model_of_a_new_architecture_in_a_new_scheme_with_a_new_template(
    tmp_path: Path, env: Mapping[str, str]
) -> None:
    checkpoint = tmp_path / "jais2"
    write_checkpoint(checkpoint, JAIS2)
    write_tokenizer(checkpoint, "byte-level")
    project = make_project(tmp_path, MANIFEST, checkpoint)
    assert project.build(env=env) == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}

    config = json.loads((project.root / "dist/tiny-q5f32_1-MLC/mlc-chat-config.json").read_text())
    assert (config["model_type"], config["conv_template"]["name"]) == ("jais2", "parrot")
    assert config["model_config"]["hidden_act"] == "relu2"
    wanted = reference_logits(reference_model(checkpoint), PROMPT)
    # Five bits a weight: each is off by at most half of a 15th of the largest in its group.  With four it is a seventh.
    assert np.linalg.norm(logits(project, env) - wanted) / np.linalg.norm(wanted) < 0.12


def logits(project: ProjectDir, env: Mapping[str, str]) -> np.ndarray:
    """What the library says to the prompt, in a process that has the copy of llmbuild."""
    code = f"import llmbuild, numpy; m = llmbuild.load('dist/tiny-q5f32_1-MLC'); numpy.save('logits.npy', m.logits({PROMPT}))"
    subprocess.run([sys.executable, "-c", code], cwd=project.root, env={**os.environ, **env}, check=True, timeout=200)
    found: np.ndarray = np.load(project.root / "logits.npy")
    return found


def test_a_packing_is_in_the_files_that_the_recipe_lists() -> None:
    """Each row's file has what the row names."""
    rows = re.findall(r"^\| (`llmbuild.*?) \| (.*?) \|$", section("A quantization scheme"), re.MULTILINE)
    files = [path for paths, _ in rows for path in re.findall(r"`(llmbuild/\S+\.py)`", paths)]
    assert len(files) == 10
    for paths, what in rows:
        text = "".join((PACKAGE.parent / path).read_text() for path in re.findall(r"`(llmbuild/\S+\.py)`", paths))
        assert [name for name in re.findall(r"`(\w+)`", what) if name not in text] == []
