"""What one task reads of another's files is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.tasks import link, lower
from llmbuild.tasks.fields import read_fields


def test_the_fields_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1, "b": "c", "d": null}')
    assert read_fields(tmp_path / "x.json", {"a": int, "b": str}) == {"a": 1, "b": "c", "d": None}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "x.json: cannot be read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"b": "\\ud800"}', "half of a surrogate pair"),
        ("[1]", "x.json: is not a JSON object"),
        ('{"a": true}', "x.json: a: is missing or not of type int"),
        ("{}", "x.json: a: is missing or not of type int"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as refused:
        read_fields(tmp_path / "x.json", {"a": int})
    assert said in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_fields(tmp_path / "x.json", {})


@pytest.mark.parametrize(("kind", "name"), [(lower.KIND, "config"), (link.KIND, "library")])
def test_a_task_refuses_what_another_did_not_write(kind: object, name: str, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(json.dumps({"model_type": 5}))
    params = {"scheme": {}, "overrides": {}, "target": {}, "opt": None, "artifact": "so", "link": {}}
    job = Job(params, {name: tmp_path / "input.json"}, {}, tmp_path, tmp_path, lambda done, total, unit="": None)
    with pytest.raises(InputError, match="not of type str"):
        kind.run(job)
