"""docs/reports.md shows what llmbuild prints."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from llmbuild.cli.plan import FORMATS
from llmbuild.plan.estimates import PlanEstimate, TaskEstimate, Total
from llmbuild.plan.reasons import Cascade
from llmbuild.report.plan_text import plan_text, reasons_line
from llmbuild.report.style import Style
from tests.helpers.plans import Memory, edit_model, project, tasks_of
from tests.report.test_messages import REASONS

DOC = (Path(__file__).parent.parent.parent / "docs/reports.md").read_text()


def test_the_plan_is_what_is_printed() -> None:
    of = project()
    memory = Memory()
    memory.build(tasks_of(of))
    plan = memory.plan(tasks_of(edit_model(of, generation={"temperature": 0.7})))
    estimate = PlanEstimate(
        {"config[smollm2, q4f32_1]": TaskEstimate(0.05, 22_000_000, 3_500_000, 0, 3)},
        Total(0.05, 22_000_000, 3_500_000),
        Total(31.5, 730_000_000, 6_800_000),
        fewest=1,
        most_runs=3,
        guessed=(),
        unknown=(),
    )
    assert textwrap.indent(plan_text(plan, Style(80), estimate), "    ") in DOC


def test_every_kind_of_reason_reads_like_that() -> None:
    said = {line for these in REASONS.values() for line in reasons_line(these).split("; ")}
    said.add(reasons_line((Cascade("config[smollm2, q4f32_1]"),)))
    said.add("vocab-size 32000 -> 32064 (from config[…])")
    rows = DOC.partition("| reason | reads like |")[2].partition("\n\n")[0]
    shown = re.findall(r"`([^`]+)`", rows)
    assert len(shown) == 12 and set(shown) <= said


def test_every_format_is_told() -> None:
    rows = DOC.partition("| `--format` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", rows)) - {"format"} == set(FORMATS)
