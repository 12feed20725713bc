"""A key in a wrong table: for every key of the schema and every table without it, the error names a table that takes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import LlmbuildError, MultiError
from llmbuild.manifest.load import load
from llmbuild.manifest.misplaced import SYNONYMS, fitting_table, right_table
from llmbuild.manifest.schema import TABLES, keys_of

BUILD = '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["host"]\n'
MODEL = '[models.a]\npreset = "smollm2_135m"\n'


def path_of(pattern: tuple[str, ...]) -> tuple[str | int, ...]:
    """A place of a table, as a manifest has it."""
    return tuple(
        (0 if pattern[index - 1] in ("build", "exclude") else "x") if part == "*" else part
        for index, part in enumerate(pattern)
    )


def table_of(said: str) -> tuple[str, ...]:
    """The pattern of the table that a sentence names."""
    if "to the top level" in said:
        return ()
    if found := re.search(r"in (?:([\w.]+) of )?\[\[build\]\]", said):
        inner = found[1].split(".") if found[1] else []
        return ("build", "*", *inner, *(["*"] if inner == ["exclude"] else []))
    found = re.search(r"in \[([^\]]+)\]", said)
    assert found is not None, said
    return tuple("*" if part in ("x", "NAME") else part for part in found[1].split("."))


PAIRS = [
    (here, key)
    for here in TABLES
    for key in dict.fromkeys(key for table in TABLES for key in keys_of(table))
    if key not in keys_of(here)
]


def test_every_key_in_every_table_without_it_is_told_a_table_that_has_it() -> None:
    assert len(PAIRS) > 500
    for here, key in PAIRS:
        for written in (key, key.replace("-", "_")):
            said = right_table((*path_of(here), written), None)
            assert said is not None, (here, key)
            if key in SYNONYMS:
                # One of a list that is meant more often: a platform of [[build]], not of what it excludes.
                assert SYNONYMS[key] in keys_of(table_of(said)), (here, key, said)
                assert f"as {SYNONYMS[key]}" in said
                continue
            assert key in keys_of(table_of(said)), (here, key, said)
            # Where a table below the one at hand has the key, no other one is named.
            below = [table for table in TABLES if table[: len(here)] == here and key in keys_of(table)]
            assert not below or table_of(said) in below, (here, key, said)
            assert (f"as {key}" in said) == (written != key)


def test_a_key_that_no_table_has_is_told_nothing() -> None:
    assert right_table(("project", "colour"), "red") is None
    assert fitting_table(("models",), 3) is None


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        (MODEL + "temperature = 0.5\n" + BUILD, "'temperature' belongs in [models.a.generation]"),
        ("[project]\ncontext-window-size = 64\n" + MODEL + BUILD, "'context-window-size' belongs in [metadata]"),
        (
            MODEL + "context_window_size = 64\n" + BUILD,
            "'context_window_size' belongs in [models.a.metadata] as context-window-size",
        ),
        ('quantizations = ["q4f32_1"]\n' + MODEL, "'quantizations' with such a value belongs in [[build]]"),
        ('platforms = ["web"]\n' + MODEL + BUILD, "'platforms' with such a value belongs in [[build]]"),
        (MODEL + BUILD + 'system-lib-prefix = "a_"\n', "'system-lib-prefix' belongs in [platforms.NAME]"),
        (MODEL + BUILD + "[platforms.p]\ncudagraph = true\n", "'cudagraph' belongs in [platforms.p.opt]"),
        (MODEL + "group-size = 32\n" + BUILD, "'group-size' belongs in [quantizations.NAME]"),
        ('source = "models/a"\n' + MODEL + BUILD, "'source' belongs in [models.NAME]"),
        ("[generation]\ntemperature = 0\n" + MODEL + BUILD, "'generation' belongs in [models.NAME]"),
        (MODEL + 'output = "out"\n' + BUILD, "'output' belongs in [project]"),
        ("[project]\nbuild = 1\n" + MODEL + BUILD, "'build' belongs to the top level, written [[build]]"),
        ("[project]\nmodels = {}\n" + MODEL + BUILD, "'models' belongs to the top level, written [models.NAME]"),
        (MODEL + BUILD + 'template = "chatml"\n', "'template' belongs in [models.NAME] as conv-template"),
        (MODEL + BUILD + 'model = "a"\n', "did you mean 'models'?"),
    ],
)
def test_the_errors_of_a_manifest(tmp_path: Path, text: str, fix: str) -> None:
    with pytest.raises(LlmbuildError) as caught:
        load(tmp_path / "buildfile.toml", text)
    errors: Any = caught.value.errors if isinstance(caught.value, MultiError) else (caught.value,)
    assert fix in [error.fix for error in errors]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("quantization", "q4f16_1", "'quantization' belongs in [[build]] as quantizations, a list"),
        ("platform", "web", "'platform' belongs in [[build]] as platforms, a list"),
        ("device", "web", "'device' belongs in [[build]] as platforms, a list"),
    ],
)
def test_one_of_a_list_is_written_as_a_list(key: str, value: str, said: str) -> None:
    assert right_table(("models", "x", key), value) == said
