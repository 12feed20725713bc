"""The JSON schema under a real validator: it takes what the loader takes, and refuses what the loader refuses for its shape."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llmbuild.errors import LlmbuildError, MultiError
from llmbuild.manifest.json_schema import ID, json_schema
from llmbuild.manifest.load import load
from llmbuild.manifest.starter import propose, render
from llmbuild.models.registry import families
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.targets.names import TargetNames
from tests.helpers.cli import TINY_MANIFEST
from tests.manifest.test_bad_manifests import CASES, Bad

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
GOOD = """\
[project]
name = "all"
[metadata]
context-window-size = 2048
[models.a]
preset = "smollm2_135m"
generation = { temperature = 0.5 }
[quantizations.mine]
base = "q4f32_1"
[platforms.page]
target = "web"
opt = "O0"
host = { triple = "wasm32-unknown-unknown-wasm" }
[[build]]
quantizations = ["mine", "q4f16_1"]
platforms = ["page", "host", "*-metal"]
exclude = [{ platform = "iphone" }, { quantization = "mine", platform = "aarch64-*" }]
"""


def mistakes(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(tomllib.loads(text))]


def test_the_schema_is_one_and_says_what_it_is() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert (SCHEMA["$id"], SCHEMA["title"]) == (ID, "llmbuild manifest")


def test_it_takes_what_the_loader_takes(tmp_path: Path) -> None:
    example = (ROOT / "buildfile.example.toml").read_text(encoding="utf-8")
    started = render(propose("smollm2_135m", tmp_path), "project")
    for text in (GOOD, example, TINY_MANIFEST, started):
        load(tmp_path / "buildfile.toml", text)
        assert mistakes(text) == []


def test_it_refuses_what_has_a_wrong_shape(tmp_path: Path) -> None:
    shape = re.compile(r"unknown key|must be (a |an |one of|at |more|less|true)|.* is not a good name")

    def of_shape(case: Bad) -> bool:
        try:
            tomllib.loads(case.text)
            load(tmp_path / "buildfile.toml", case.text)
        except tomllib.TOMLDecodeError:
            return False
        except LlmbuildError as error:
            errors = error.errors if isinstance(error, MultiError) else (error,)
            return any(shape.match(one.what) for one in errors)
        return False

    wrong = [case for case in CASES if of_shape(case)]
    assert len(wrong) > 20
    # JSON has no infinite number, and what attributes a device has follows from its kind.
    beyond = {"temperature is not a number", "device attribute of another type"}
    assert {case.name for case in wrong if not mistakes(case.text)} == beyond


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("smollm2_135m", "smollm3_135m"),
        ('base = "q4f32_1"', 'base = "q4f32"'),
        ('"q4f16_1"', '"q4 f16"'),
        ("generation = {", "generations = {"),
        ('preset = "smollm2_135m"', 'source = "models/a"\npreset = "smollm2_135m"'),
        ("[project]", "temperature = 1\n[project]"),
    ],
)
def test_it_refuses_names_outside_of_closed_sets(old: str, new: str) -> None:
    assert old in GOOD and mistakes(GOOD.replace(old, new, 1))


def known(table: str, key: str) -> list[str]:
    found: dict[str, Any] = SCHEMA["$defs"][table]["properties"][key]
    return found.get("items", found)["anyOf"][0]["enum"]


def test_an_editor_offers_every_known_name() -> None:
    names = TargetNames()
    assert set(known("PlatformTable", "target")) == {*names.own, *names.aliases, "host"}
    assert {"*", "web", "wasm32-webgpu"} <= set(known("BuildTable", "platforms"))
    assert set(known("BuildTable", "quantizations")) == set(SCHEMES)
    assert set(known("ModelTable", "model-type")) == set(families())
    assert {"checkpoint", "chatml"} <= set(known("ModelTable", "conv-template"))
    own = 'source = "models/a"\nconv-template = '
    for template, wrong in (('"own/template.json"', 0), ('"mine.toml"', 0), ('"chatmll"', 1)):
        text = GOOD.replace('preset = "smollm2_135m"', own + template)
        assert len(mistakes(text)) == wrong
