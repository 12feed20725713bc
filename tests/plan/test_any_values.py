"""Planning never ends with an error of its own, whatever JSON a parameter, an input's field or a tool was and is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.canonical import Json, canonical_json
from llmbuild.engine.task import Task
from llmbuild.plan.planner import Plan
from llmbuild.plan.reasons import InputChanged, ParameterChanged, Reason, reason_from_json, reason_to_json, sentences
from llmbuild.report.plan_ci import github_matrix, plan_markdown
from llmbuild.report.plan_json import plan_dot, plan_json, plan_mermaid
from llmbuild.report.plan_text import plan_text, why_text
from llmbuild.report.style import Style
from tests.helpers.plans import Memory, project, tasks_of

numbers = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text("ab \n'\"", max_size=4) | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/", max_size=3), inner, max_size=3),
    max_leaves=6,
)
PROJECT = project(adapter=("smollm2",), platforms=("native", "web"))
TASKS = tasks_of(PROJECT)
PARAMETERS = sorted({(task.kind, name) for task in TASKS for name in task.params} | {("link", "not declared yet")})


def with_parameter(tasks: tuple[Task, ...], kind: str, name: str, value: Json) -> tuple[Task, ...]:
    return tuple(
        dataclasses.replace(task, params={**task.params, name: value}) if task.kind == kind else task for task in tasks
    )


def told(plan: Plan) -> str:
    """Everything that can be said of a plan, as one text."""
    for reason in (reason for verdict in plan.verdicts for reason in verdict.reasons):
        again: Reason = reason_from_json(json.loads(json.dumps(reason_to_json(reason))))
        assert again == reason and hash(again) == hash(reason)
    said = [plan_text(plan, Style()), plan_markdown(plan), plan_dot(plan), plan_mermaid(plan)]
    said += [json.dumps(plan_json(plan)), json.dumps(github_matrix(plan, PROJECT.platforms))]
    said += [why_text(plan, verdict, Style()) for verdict in plan.verdicts]
    return "\n".join(said)


@pytest.mark.parametrize(("kind", "name"), PARAMETERS)
@settings(max_examples=25, deadline=None)
@given(old=values, new=values)
def test_any_value_of_any_parameter_becomes_any_other(kind: str, name: str, old: Json, new: Json) -> None:
    memory = Memory()
    before = memory.plan(with_parameter(TASKS, kind, name, old))
    # What a task "runs" here reads some parameters; what was recorded of it is all that a plan looks at.
    for verdict in before.verdicts:
        task = verdict.task
        memory.last[task.label] = {"kind": task.kind, "version": task.version, "params": task.params, "inputs": {}, "tools": task.tools}  # fmt: skip # noqa: E501
    plan = memory.plan(with_parameter(TASKS, kind, name, new))
    changed = canonical_json(old) != canonical_json(new)
    own = [verdict for verdict in plan.verdicts if verdict.task.kind == kind]
    reasons = [reason for verdict in own for reason in verdict.reasons]
    assert any(isinstance(one, ParameterChanged | InputChanged) for one in reasons) or not changed or not own
    assert all(
        verdict.task.label in [label for cause in plan.causes() for label in cause.tasks] for verdict in own if changed
    )
    assert told(plan)


@settings(max_examples=100, deadline=None)
@given(key=st.dictionaries(st.sampled_from(["kind", "version", "params", "inputs", "tools"]), values))
def test_any_record_of_a_last_run_is_compared(key: Mapping[str, Json]) -> None:
    memory = Memory()
    for task in TASKS:
        memory.last[task.label] = key
    plan = memory.plan(TASKS)
    assert plan.stale
    assert told(plan)
    assert all(sentences(verdict.reasons) for verdict in plan.verdicts)
