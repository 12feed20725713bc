"""Sampling values: their ranges are the manifest's."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.tasks.generation import RANGES, choose


def test_the_ranges_are_those_of_the_manifest() -> None:
    from pydantic import ValidationError

    from llmbuild.manifest.schema import Generation

    assert set(RANGES) == set(Generation.model_fields)
    for name in RANGES:
        for value in (-3.0, -2.0, -1e-9, 0.0, 1e-9, 1.0, 1 + 1e-9, 2.0, 2.1, 1e6, math.inf, math.nan):
            key = name.replace("_", "-")
            try:
                Generation.model_validate({key: value})
                taken = True
            except ValidationError:
                taken = False
            try:
                assert choose(({name: value}, "generation_config.json", None)) == {name: value}
                assert taken, (name, value)
            except InputError:
                assert not taken, (name, value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": -0.1}, "must be a number, at least 0, not -0.1"),
        ({"top_p": 1.5}, "must be a number, more than 0 and at most 1, not 1.5"),
        ({"repetition_penalty": 0}, "must be a number, more than 0, not 0"),
        ({"presence_penalty": True}, "must be a number, at least -2 and at most 2, not true"),
    ],
)
def test_a_value_that_cannot_be_meant_names_its_file_and_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(({}, "manifest", None), (values, "generation_config.json", None))
    assert str(caught.value.where) == f"generation_config.json: {next(iter(values))}"
    assert caught.value.what == said


def test_null_and_negative_ids_are_none() -> None:
    first = {"eos_token_id": -1, "bos_token_id": None, "pad_token_id": -1, "temperature": None}
    second = {"eos_token_id": [-1, 5, 3], "bos_token_id": 6, "unknown": 1}
    chosen = choose((first, "generation_config.json", None), (second, "config.json", None))
    assert chosen == {"eos_token_id": [5, 3], "bos_token_id": 6}
    assert choose(({"eos_token_id": [-1]}, "config.json", None)) == {}
