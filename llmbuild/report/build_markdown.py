"""The report on a build as Markdown: the summary of a CI job."""

from __future__ import annotations

from collections.abc import Sequence

from llmbuild.printable import several
from llmbuild.report.build_report import BuildReport, TaskReport
from llmbuild.report.build_text import cache_line, causes_line, check_line, headline
from llmbuild.report.units import seconds, size

_ROWS = 50
"""How many tasks the table has; GitHub cuts a summary at one mebibyte."""

_MARKS = {"ran": "built", "failed": "**failed**", "skipped": "not run", "unfinished": "not finished"}


def build_markdown(report: BuildReport) -> str:
    """A headline, a table of the tasks that were not cached, and the causes and the critical path to unfold."""
    lines = [f"### {markdown_text(headline(report))}", ""]
    told = report.of("ran", "failed", "skipped", "unfinished")
    if told:
        lines += ["| task | | time | memory | output | why |", "|---|---|--:|--:|--:|---|"]
        failures = report.failures
        lines += [_row(task, failures.get(task.failure, ())) for task in told[:_ROWS]]
        if len(told) > _ROWS:
            lines.append(f"| and {len(told) - _ROWS} more | | | | | |")
        lines.append("")
    lines.append(f"{cache_line(report)}.")
    if report.checked:
        lines.append(f"{markdown_text(check_line(report))}.")
    hungriest = report.hungriest
    if hungriest is not None:
        lines.append(f"Most memory: {size(hungriest.peak_rss or 0)} by `{hungriest.label}`.")
    if report.causes:
        lines += ["", f"<details><summary>{causes_line(report)}</summary>", ""]
        for cause in report.causes:
            followed = f"; then {_codes(cause.followed)}" if cause.followed else ""
            lines.append(f"- {markdown_text('; '.join(cause.reasons))}: {_codes(cause.tasks)}{followed}")
        lines += ["", "</details>"]
    if report.critical:
        by_label = {task.label: task for task in report.tasks}
        lines += ["", f"<details><summary>critical path: {seconds(report.critical_s)}</summary>", ""]
        lines += [f"1. `{label}` {seconds(by_label[label].wall_s or 0)}" for label in report.critical]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _row(task: TaskReport, failed: Sequence[str]) -> str:
    """The task's line; `failed` are the labels of those that its failure is the failure of, in plan order."""
    took = "" if task.wall_s is None else seconds(task.wall_s)
    memory = "" if not task.peak_rss else size(task.peak_rss)
    output = "" if task.output_size is None else size(task.output_size)
    why = markdown_text(task.failure if task.status == "failed" else "; ".join(task.reasons))
    if task.status == "failed" and task.label not in failed[:1]:
        why = f"as `{failed[0]}`"
    return f"| `{task.label}` | {_MARKS[task.status]} | {took} | {memory} | {output} | {why} |"


def _codes(labels: tuple[str, ...]) -> str:
    return several([f"`{label}`" for label in labels], _ROWS)


def markdown_text(text: str) -> str:
    """Text on one line, escaped so that nothing is parsed as Markdown or a border of a table."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
