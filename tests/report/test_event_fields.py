"""A file of events may come from anywhere: it is an event of the documented form, or the report says what it is not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.report.build_html import build_html
from llmbuild.report.build_markdown import build_markdown
from llmbuild.report.build_report import build_report
from llmbuild.report.build_text import build_text
from llmbuild.report.event_fields import checked_event
from llmbuild.report.style import Style

BUILD: list[dict[str, Any]] = [
    {
        "v": 1,
        "type": "plan-made",
        "time": 1.0,
        "tasks": ["fetch[m]", "lower[m]"],
        "jobs": 2,
        "project": "p",
        "needs": [[], [0]],
    },
    {
        "v": 1,
        "type": "cached-task",
        "time": 1.1,
        "label": "fetch[m]",
        "source": "store",
        "wall-s": 1.0,
        "output-size": 3,
    },
    {
        "v": 1,
        "type": "explained",
        "time": 1.1,
        "label": "lower[m]",
        "reasons": [{"reason": "never-built", "text": "never built"}],
    },
    {"v": 1, "type": "started", "time": 1.2, "label": "lower[m]"},
    {
        "v": 1,
        "type": "finished",
        "time": 2.2,
        "label": "lower[m]",
        "wall-s": 1.0,
        "cpu-s": 1.0,
        "peak-rss": 5,
        "output-size": 3,
        "reused": [2, 3],
    },
    {"v": 1, "type": "failed", "time": 2.2, "label": "lower[m]", "failure": {"what": "x"}},
    {"v": 1, "type": "checked", "time": 2.3, "label": "lower[m]", "differences": []},
    {"v": 1, "type": "corrupt-blob", "time": 2.3, "path": "blobs/ab"},
    {"v": 1, "type": "installed", "time": 2.4, "outputs": ["dist/x"], "restored": [], "removed": []},
    {
        "v": 1,
        "type": "summary",
        "time": 2.5,
        "ran": 1,
        "cached": 1,
        "failed": 0,
        "skipped": 0,
        "wall-s": 1.5,
        "interrupted": False,
    },
]
OTHERS = [
    None,
    True,
    -1,
    1.5,
    10**30,
    "text\x1b[2J",
    [],
    [None],
    [["x"]],
    {},
    {"reason": 1},
    [5],
    ["fetch[m]", "fetch[m]"],
]
PLACES = [(number, name) for number, event in enumerate(BUILD) for name in event]


def rendered(events: list[dict[str, Any]]) -> str:
    report = build_report(events)
    return build_text(report, Style()) + build_markdown(report) + build_html(report) + json.dumps(report.to_json())


@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_any_value_at_any_place_is_taken_or_named(other: Any) -> None:
    for number, name in PLACES:
        events = copy.deepcopy(BUILD)
        events[number][name] = other
        try:
            taken = [checked_event(event) for event in events]
        except ValueError as error:
            assert name in str(error) or "event" in str(error) or "plan" in str(error)
            continue
        assert "\x1b" not in rendered(taken)


@given(st.data())
def test_fields_that_are_missing(data: st.DataObject) -> None:
    events = copy.deepcopy(BUILD)
    for number, name in data.draw(st.lists(st.sampled_from(PLACES), max_size=4)):
        events[number].pop(name, None)
    try:
        taken = [checked_event(event) for event in events]
    except ValueError:
        return
    assert rendered(taken)


def test_the_documented_form_is_taken_as_it_is() -> None:
    assert [checked_event(event) for event in BUILD] == BUILD
    assert checked_event({"type": "of a newer version", "label": 5}) == {"type": "of a newer version", "label": 5}
