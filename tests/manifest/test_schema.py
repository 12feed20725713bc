"""The JSON schema that editors read says of each table what the manifest's reader does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmbuild.manifest.json_schema import json_schema


def tables() -> list[tuple[str, dict[str, Any]]]:
    """Each table whose keys are fixed, with its part of the schema."""
    schema = json_schema()
    every = {"the manifest": schema, **schema["$defs"]}
    return [(name, part) for name, part in every.items() if "properties" in part]


@pytest.mark.parametrize(("name", "part"), tables())
def test_an_editor_marks_unknown_keys(name: str, part: dict[str, Any]) -> None:
    assert part["additionalProperties"] is False
    for key in part["properties"]:
        assert re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", key), key
