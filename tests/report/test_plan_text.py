"""What `plan` and `why` print, to the character, at 80 and 120 columns."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from llmbuild.plan.planner import Plan
from llmbuild.plan.reasons import OutputMissing
from llmbuild.report.plan_json import plan_dot, plan_json, plan_mermaid
from llmbuild.report.plan_text import plan_text, why_text
from llmbuild.report.style import Style
from tests.helpers.plans import Memory, edit_model, edit_platform, edit_tool, observed, project, tasks_of

BASE = project()


def edited() -> Plan:
    memory = Memory()
    memory.build(tasks_of(BASE))
    return memory.plan(tasks_of(edit_model(BASE, generation={"temperature": 0.7})))


def many_reasons() -> Plan:
    memory = Memory()
    memory.build(tasks_of(BASE))
    changed = edit_platform(
        BASE, metadata={"context-window-size": 4096, "prefill-chunk-size": 1024}, opt={"cudagraph": True}
    )
    world = edit_tool(observed(BASE), "lower", "apache-tvm", "0.28.0")
    return memory.plan(tasks_of(changed, world))


def show(plan: Plan, width: int) -> str:
    return plan_text(plan, Style(width)) + "\n"


def test_first_plan() -> None:
    assert show(Memory().plan(tasks_of(BASE)), 80) == dedent(
        """\
        assistants: 6 tasks: 6 to run

          run      fetch[smollm2]                   never built
          run      inspect[smollm2]                 never built
          run      quantize[smollm2, q4f32_1]       never built
          run      config[smollm2, q4f32_1]         never built
          run      lower[smollm2, q4f32_1, native]  never built
          run      link[smollm2, q4f32_1, native]   never built
        """
    )


def test_nothing_to_do() -> None:
    memory = Memory()
    memory.build(tasks_of(BASE))
    assert show(memory.plan(tasks_of(BASE)), 80) == dedent(
        """\
        assistants: 6 tasks, everything is up to date

          cached   fetch[smollm2]
          cached   inspect[smollm2]
          cached   quantize[smollm2, q4f32_1]
          cached   config[smollm2, q4f32_1]
          cached   lower[smollm2, q4f32_1, native]
          cached   link[smollm2, q4f32_1, native]
        """
    )


def test_a_changed_value_at_80_columns() -> None:
    assert show(edited(), 80) == dedent(
        """\
        assistants: 6 tasks: 1 to run, 2 may follow, 3 cached
        1 root cause, 2 follow

          run      config[smollm2, q4f32_1]
                     temperature 1.0 -> 0.7 (2 may follow)
          maybe    lower[smollm2, q4f32_1, native]
                     if config[smollm2, q4f32_1] changes what it reads
          maybe    link[smollm2, q4f32_1, native]
                     if config[smollm2, q4f32_1] changes what it reads
          cached   fetch[smollm2]
          cached   inspect[smollm2]
          cached   quantize[smollm2, q4f32_1]
        """
    )


def test_a_changed_value_at_120_columns() -> None:
    assert show(edited(), 120) == dedent(
        """\
        assistants: 6 tasks: 1 to run, 2 may follow, 3 cached
        1 root cause, 2 follow

          run      config[smollm2, q4f32_1]         temperature 1.0 -> 0.7 (2 may follow)
          maybe    lower[smollm2, q4f32_1, native]  if config[smollm2, q4f32_1] changes what it reads
          maybe    link[smollm2, q4f32_1, native]   if config[smollm2, q4f32_1] changes what it reads
          cached   fetch[smollm2]
          cached   inspect[smollm2]
          cached   quantize[smollm2, q4f32_1]
        """
    )


def test_many_reasons_are_cut_in_a_plan() -> None:
    assert show(many_reasons(), 80) == dedent(
        """\
        assistants: 6 tasks: 1 to run, 1 may follow, 4 cached
        1 root cause, 1 follow

          run      lower[smollm2, q4f32_1, native]
                     opt cudagraph false -> true; context-window-size set to 4096;
                     prefill-chunk-size set to 1024; and 1 more (1 may follow)
          maybe    link[smollm2, q4f32_1, native]
                     if lower[smollm2, q4f32_1, native] changes what it reads
          cached   fetch[smollm2]
          cached   inspect[smollm2]
          cached   quantize[smollm2, q4f32_1]
          cached   config[smollm2, q4f32_1]
        """
    )


def test_a_file_to_put_back() -> None:
    memory = Memory()
    memory.build(tasks_of(BASE))
    memory.wrong["link[smollm2, q4f32_1, native]"] = (OutputMissing("dist/libs/smollm2-q4f32_1-native.so"),)
    assert show(memory.plan(tasks_of(BASE)), 120) == dedent(
        """\
        assistants: 6 tasks: 1 to restore, 5 cached
        1 root cause

          restore  link[smollm2, q4f32_1, native]   dist/libs/smollm2-q4f32_1-native.so is missing
          cached   fetch[smollm2]
          cached   inspect[smollm2]
          cached   quantize[smollm2, q4f32_1]
          cached   config[smollm2, q4f32_1]
          cached   lower[smollm2, q4f32_1, native]
        """
    )


def why(plan: Plan, kind: str, width: int = 80) -> str:
    verdict = next(verdict for verdict in plan.verdicts if verdict.task.kind == kind)
    lines = why_text(plan, verdict, Style(width)).splitlines()
    return "\n".join(line for line in lines if not line.startswith("  action ")) + "\n"


def test_why_a_task_runs_tells_every_reason() -> None:
    assert why(many_reasons(), "lower") == dedent(
        """\
        lower[smollm2, q4f32_1, native] has to run
          opt cudagraph false -> true
          context-window-size set to 4096
          prefill-chunk-size set to 1024
          apache-tvm 0.27.0.post1 -> 0.28.0
        """
    )


def test_why_a_task_may_run_tells_the_root() -> None:
    assert why(edited(), "link") == dedent(
        """\
        link[smollm2, q4f32_1, native] may have to run
          it reads from config[smollm2, q4f32_1], which runs:
            temperature 1.0 -> 0.7
          where that changes nothing of what this task reads, it stays cached
        """
    )


def test_why_a_task_is_cached() -> None:
    assert why(edited(), "fetch") == "fetch[smollm2] is up to date\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_passes_the_width_unless_a_word_does(width: int) -> None:
    for plan in (edited(), many_reasons()):
        for line in show(plan, width).splitlines():
            assert len(line) <= width or " " not in line[13:].strip() or "[" in line


def test_colour_changes_no_text() -> None:
    import re

    plan = edited()
    colored = plan_text(plan, Style(120, color=True))
    assert "\x1b[33m" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == plan_text(plan, Style(120))


def test_json() -> None:
    value = json.loads(json.dumps(plan_json(edited())))
    assert value["format"] == 1
    assert value["stale"] is True
    assert value["counts"] == {"run": 1, "maybe": 2, "restore": 0, "blocked": 0, "cached": 3}
    config = next(task for task in value["tasks"] if task["kind"] == "config")
    assert config["state"] == "run"
    assert config["needs"] == ["fetch[smollm2]", "inspect[smollm2]"]
    assert config["outputs"] == ["dist/smollm2-q4f32_1-MLC"]
    assert config["reasons"] == [
        {
            "reason": "parameter-changed",
            "name": "generation/temperature",
            "old": 1.0,
            "new": 0.7,
            "text": "temperature 1.0 -> 0.7",
        }
    ]
    assert len(config["action"]) == 64
    assert next(task for task in value["tasks"] if task["kind"] == "lower")["action"] is None


def test_what_is_up_to_date_can_be_left_out() -> None:
    plan = edited().only_stale()
    labels = ["config[smollm2, q4f32_1]", "lower[smollm2, q4f32_1, native]", "link[smollm2, q4f32_1, native]"]
    assert [verdict.task.label for verdict in plan.verdicts] == labels
    assert "cached" not in show(plan, 120) and "1 to run, 2 may follow" in show(plan, 120)
    assert [task["task"] for task in json.loads(json.dumps(plan_json(plan)))["tasks"]] == labels
    assert plan_dot(plan).count(" -> ") - plan_dot(plan).count("1.0 -> 0.7") == plan_mermaid(plan).count("-->") == 2
    assert "fetch" not in plan_dot(plan) + plan_mermaid(plan)


def test_dot_and_mermaid_have_every_edge() -> None:
    dot, mermaid = plan_dot(edited()), plan_mermaid(edited())
    assert dot.count("->") - dot.count("1.0 -> 0.7") == mermaid.count("-->") == 7
    assert '"fetch[smollm2]" -> "config[smollm2, q4f32_1]";' in dot
    assert mermaid.startswith('flowchart LR\n  t0["fetch[smollm2]"]:::cached\n')
