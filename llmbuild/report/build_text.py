"""The report on a build as text, and its headline, which every form of the report has."""

from __future__ import annotations

from collections.abc import Sequence

from llmbuild.report.build_report import BuildReport, TaskReport
from llmbuild.report.style import Style, wrapped
from llmbuild.report.units import seconds, size, tasks

_LISTED = 6
"""How many labels of one cause are listed before the rest is counted."""


def headline(report: BuildReport) -> str:
    """`assistants: built 2 of 5 tasks in 31.5 s, 3 cached`, and how it ended when it did not end well."""
    name = f"{report.project}: " if report.project else ""
    ran, cached, failed = (len(report.of(status)) for status in ("ran", "cached", "failed"))
    took = seconds(report.wall_s)
    if not report.ended:
        return f"{name}the build was cut off after {took}; {ran} of {tasks(len(report.tasks))} built, {cached} cached"
    if report.interrupted or failed:
        word = "interrupted" if report.interrupted else "failed"
        skipped = len(report.of("skipped"))
        parts = [f"{failed} failed"] if failed else []
        parts += [f"{ran} built", f"{cached} cached"] + ([f"{skipped} not run"] if skipped else [])
        return f"{name}{word} after {took}: {', '.join(parts)}"
    if not ran:
        return f"{name}up to date: {tasks(cached)} cached ({took})"
    return f"{name}built {ran} of {tasks(len(report.tasks))} in {took}, {cached} cached"


def causes_line(report: BuildReport) -> str:
    """`1 root cause, 2 followed` (`1 root cause` where nothing did), and how many tasks were never built
    before: `5 new tasks`."""
    changed = [cause for cause in report.causes if not cause.new]
    new = sum(len(cause.tasks) for cause in report.causes if cause.new)
    parts = []
    if changed:
        followed = len({label for cause in changed for label in cause.followed})
        parts = [f"{len(changed)} root cause{'' if len(changed) == 1 else 's'}"]
        parts += [f"{followed} followed"] if followed else []
    return ", ".join(parts + ([f"{new} new task{'' if new == 1 else 's'}"] if new else []))


def cache_line(report: BuildReport) -> str:
    """`3 of 5 tasks from the cache, which once took 1 min 5 s (107.6 MB); 90 of 96 intermediate results of the others`."""
    hits = len(report.of("cached"))
    line = f"{hits} of {tasks(len(report.tasks))} from the cache"
    if hits:
        line = f"{line}, which once took {seconds(report.saved_s)} ({size(report.saved_bytes)})"
    taken, of = report.reused
    return f"{line}; {taken} of {of} intermediate results of the others" if taken else line


def check_line(report: BuildReport) -> str:
    """`3 tasks ran again, all gave the same bytes`, or which did not; empty when none was to be checked."""
    if not report.checked:
        return ""
    ran = f"{tasks(len(report.checked))} ran again"
    if report.different:
        return f"{ran}, {len(report.different)} gave other bytes: {', '.join(report.different)}"
    return f"{ran}, all gave the same bytes"


def build_text(report: BuildReport, style: Style) -> str:
    """The whole report: causes, failures, critical path, slowest tasks, cache, memory; parts with nothing are left out."""
    lines = [headline(report)]
    if report.causes:
        lines += ["", style.paint(causes_line(report), "bold")]
        for cause in report.causes:
            lines += wrapped("; ".join(cause.reasons), 2, style)
            lines += _listed(cause.tasks, "")
            lines += _listed(cause.followed, "then ")
    if failures := report.failures:
        lines += ["", style.paint("failed", "bold")]
        for failure, labels in failures.items():
            lines += wrapped(f"{', '.join(labels)}: {failure}", 2, style)
    if report.critical:
        lines += [
            "",
            f"{style.paint('critical path', 'bold')} {seconds(report.critical_s)} of {seconds(report.wall_s)}",
        ]
        by_label = {task.label: task for task in report.tasks}
        lines += [_timed(by_label[label]) for label in report.critical]
    slowest = report.slowest()
    if slowest:
        lines += ["", style.paint("slowest tasks", "bold"), *(line for task in slowest for line in _told(task, style))]
    lines += ["", f"{style.paint('cache', 'bold')}   {cache_line(report)}"]
    if report.checked:
        lines.append(f"{style.paint('check', 'bold')}   {check_line(report)}")
    hungriest = report.hungriest
    if hungriest is not None:
        lines.append(f"{style.paint('memory', 'bold')}  {size(hungriest.peak_rss or 0)} at most, by {hungriest.label}")
    return "\n".join(lines)


def _listed(labels: Sequence[str], lead: str) -> list[str]:
    more = [f"    {lead}{len(labels) - _LISTED} more"] if len(labels) > _LISTED else []
    return [f"    {lead}{label}" for label in labels[:_LISTED]] + more


def _timed(task: TaskReport) -> str:
    return f"  {'' if task.wall_s is None else seconds(task.wall_s):>12}  {task.label}"


def _told(task: TaskReport, style: Style) -> list[str]:
    """A task with its time, memory and output; on two lines where one is too long."""
    line, facts = _timed(task), f"{size(task.peak_rss or 0)} of memory, {size(task.output_size or 0)}"
    return [f"{line}  {facts}"] if len(line) + 2 + len(facts) <= style.width else [line, f"{'':16}{facts}"]
