"""[publish.NAME]: destinations with a model's names in them, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.errors import LlmbuildError
from llmbuild.manifest.load import load
from llmbuild.manifest.project import Project, Publish
from llmbuild.manifest.publish import destinations

MANIFEST = """\
[models.one]
source = "one"
conv-template = "LM"

[models.two]
source = "two"
conv-template = "LM"

[[build]]
models = ["one", "two"]
quantizations = ["q4f16_1", "q0f32"]
platforms = ["x86_64-linux-cpu"]

[publish.here]
"""
ALL = 'to = "hf:org/{model}-{quantization}-MLC"'


def loaded(text: str) -> Project:
    return load(Path("buildfile.toml"), MANIFEST + text).project


def wrong(text: str) -> str:
    with pytest.raises(LlmbuildError) as found:
        loaded(text)
    return str(found.value)


def test_every_model_has_a_destination() -> None:
    project = loaded(ALL)
    assert project.publish == {"here": Publish("here", "hf:org/{model}-{quantization}-MLC")}
    assert destinations(project.publish["here"], project.matrix) == {
        f"hf:org/{model}-{scheme}-MLC": (model, scheme) for model in ("one", "two") for scheme in ("q4f16_1", "q0f32")
    }
    assert Project.from_json(project.to_json()).publish == project.publish


def test_a_selection() -> None:
    text = 'to = "oci:ghcr.io/org/x:{quantization}"\nmodels = ["two"]\nquantizations = ["q0f32"]\nplatforms = []\nlicense = "mit"'
    project = loaded(text)
    assert destinations(project.publish["here"], project.matrix) == {"oci:ghcr.io/org/x:q0f32": ("two", "q0f32")}


def test_a_source_in_a_registry_is_named_by_its_digest() -> None:
    text = MANIFEST.replace('source = "one"', 'source = "oci:ghcr.io/org/one:v1"')
    with pytest.raises(LlmbuildError, match="a model in a registry is named by its digest"):
        load(Path("buildfile.toml"), text)


def test_a_checkpoint() -> None:
    project = loaded('to = "oci:ghcr.io/org/{model}:v1"\ncontent = "checkpoint"')
    assert list(destinations(project.publish["here"], project.matrix).values()) == [("one", ""), ("two", "")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "buildfile.toml:14: publish.here: has no destination"),
        ('tos = "hf:org/x"', "buildfile.toml:15: publish.here.tos: unknown key 'tos'\n  fix: did you mean 'to'?"),
        ('to = "org/{model}"', "buildfile.toml:15: publish.here.to: 'org/{model}' is not a destination"),
        ('to = "hff:org/{model}"', "did you mean 'hf'?"),
        ('to = "hf:org/{model}"', "'one, q4f16_1' and 'one, q0f32' both go to hf:org/one"),
        ('to = "hf:org/{name}-{quantization}"', "'{name}' stands for nothing"),
        ('to = "hf:org/{model}-{quantization}"\ncontent = "checkpoint"', "a checkpoint has no quantization"),
        ('to = "hf:{model}-{quantization}"', "'one-q4f16_1' is not the name of a repository"),
        ('to = "oci:ghcr.io/{model}-{quantization}"', "has no tag"),
        ('to = "oci:ghcr.io/{model}:{quantization}"\nprivate = true', "only hf: destinations take 'private'"),
        (
            'to = "oci:ghcr.io/{model}:{quantization}"\nrevision = "x"',
            "publish.here.revision: only hf: destinations take",
        ),
        (
            f'{ALL}\nmodels = ["on"]',
            "publish.here.models: no model of the matrix is named 'on'\n  fix: did you mean 'one'?",
        ),
        (
            f'{ALL}\nplatforms = ["web"]',
            "no platform of the matrix is named 'web'\n  fix: the matrix has x86_64-linux-cpu",
        ),
        (f"{ALL}\nmodels = []", "there is nothing to publish"),
        (f'{ALL}\ncontent = "all"', "publish.here.content: must be one of model, checkpoint, not 'all'"),
        (f"{ALL}\nprivate = 1", "publish.here.private: must be true or false, not 1"),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    assert said in wrong(text)
