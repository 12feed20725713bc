"""docs/events.md has every event with every field, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.plan import reasons
from llmbuild.report import events as added

DOC = Path(__file__).parent.parent.parent / "docs/events.md"
SECTIONS = dict(re.findall(r"^## `([a-z-]+)`\n(.*?)(?=^## |\Z)", DOC.read_text(), re.MULTILINE | re.DOTALL))


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


TYPES = {
    kebab(one.__name__): one
    for module in (events, added)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, events.Event) and one not in (events.Event, events.TaskEvent)
}


def test_every_type_has_a_section() -> None:
    assert sorted(SECTIONS) == sorted(TYPES)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_field_is_told_in_order(name: str) -> None:
    table = SECTIONS[name].partition("|---|---|\n")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    fields = [one.name.replace("_", "-") for one in dataclasses.fields(TYPES[name])]
    assert fields[0] == "time"
    assert told == fields[1:]


def test_the_version_and_the_fields_of_all_events() -> None:
    text = DOC.read_text()
    assert f"the version of this format, {events.EVENTS_VERSION}." in text
    assert re.findall(r"^\| `(v|type|time)` \|", text, re.MULTILINE) == ["v", "type", "time"]


def test_every_reason_is_told_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) ?\|$", SECTIONS["explained"], re.MULTILINE))
    for name, of in reasons._KINDS.items():
        told = rows[name]
        for one in dataclasses.fields(of):
            assert f"`{one.name}`" in told, (name, one.name)


def test_the_failure_has_every_field() -> None:
    for one in dataclasses.fields(TaskFailure):
        assert f"`{one.name.replace('_', '-')}`" in SECTIONS["failed"]
