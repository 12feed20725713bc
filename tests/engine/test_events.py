"""Events as JSON: flat, versioned, kebab-case."""

from __future__ import annotations

import dataclasses
import json

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.errors import ExitCode, InputError


def test_every_event_is_json_with_version_type_and_time() -> None:
    failure = TaskFailure.of(InputError("wrong", where="a.json", why="w", fix="f"))
    made: list[events.Event] = [
        events.PlanMade(time=1.0, tasks=("a", "b"), jobs=2, project="p", needs=((), (0,))),
        events.Queued(time=1.0, label="a", action="d"),
        events.Predicted(time=1.0, seconds=(1.0, None)),
        events.Started(time=1.0, label="a", action="d"),
        events.TaskProgress(time=1.0, label="a", done=1, total=2, unit="bytes"),
        events.WaitingForLock(time=1.0, label="a", action="d", owner_pid=1, owner_label="b"),
        events.WaitingForMemory(time=1.0, label="a", action="d", needs=1, taken=2, budget=3),
        events.Finished(time=1.0, label="a", action="d", output="o", output_size=1, wall_s=1.0, cpu_s=1.0, peak_rss=1),
        events.CachedTask(time=1.0, label="a", action="d", output="o", source="store"),
        events.Failed(time=1.0, label="a", action=None, failure=failure),
        events.Skipped(time=1.0, label="a", because="b"),
        events.CorruptBlob(time=1.0, digest="d", path="/x"),
        events.Summary(time=1.0, ran=1, cached=2, failed=3, skipped=4, wall_s=1.0),
    ]
    concrete = {one for one in vars(events).values() if isinstance(one, type) and issubclass(one, events.Event)}
    assert {type(one) for one in made} == concrete - {events.Event, events.TaskEvent}
    for event in made:
        value = json.loads(json.dumps(event.to_json()))
        assert list(value)[:2] == ["v", "type"]
        assert (value["v"], value["time"]) == (1, 1.0)
        assert len(value) == len(dataclasses.fields(event)) + 2
        assert not any("_" in name for name in value)
    assert made[0].to_json() == {
        "v": 1, "type": "plan-made", "time": 1.0, "tasks": ["a", "b"], "jobs": 2, "project": "p", "needs": [[], [0]],
    }  # fmt: skip
    assert made[9].to_json()["failure"]["exit-code"] == 3  # type: ignore[index, call-overload]


def test_failures_cross_process_borders() -> None:
    failure = TaskFailure.of(InputError("wrong", where="a.json", why="w", fix="f"))
    again = TaskFailure.from_json(json.loads(json.dumps(failure.to_json())))
    assert again == failure
    assert str(again.to_error()) == "a.json: wrong\n  why: w\n  fix: f"
    assert again.to_error().exit_code == ExitCode.INPUT
    assert TaskFailure("x", exit_code=99).to_error().exit_code == ExitCode.FAILED
