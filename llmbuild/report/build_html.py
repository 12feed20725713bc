"""The report on a build as one HTML page that needs nothing else: no script, no font, no image from elsewhere.

The timeline and the graph are inline SVG.  Colours follow the reader's choice of a dark or light page, and nothing is
marked by colour alone: states are words, and the table has what both drawings show.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from llmbuild.printable import several
from llmbuild.report.build_report import BuildReport, TaskReport
from llmbuild.report.build_style import CSS
from llmbuild.report.build_text import cache_line, causes_line, check_line, headline
from llmbuild.report.graph_svg import graph_svg
from llmbuild.report.units import seconds, size, tasks

_DRAWN = 200
"""How many tasks a drawing shows before it is restricted to those that ran, the longest first."""

_WORDS = {"ran": "built", "cached": "cached", "failed": "failed", "skipped": "not run", "unfinished": "not finished"}
_SOURCES = {
    "store": "cached",
    "build": "cached (equal task)",
    "process": "taken from another process",
    "remote": "taken from another cache",
}
_ROW = 38
_TICKS = 4


def build_html(report: BuildReport) -> str:
    """The page."""
    name = report.project or "build"
    ran = [task for task in report.tasks if task.start is not None]
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: build report</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<style>{CSS}</style></head><body><main>",
        f"<header><h1>{escape(headline(report))}</h1>",
        f'<p class="when">{_when(report.began)}, {report.jobs} at a time</p></header>',
        _facts(report),
        _failures(report),
        _causes(report),
        _section("timeline", "Timeline", _timeline(report, ran)) if ran else "",
        _section("critical", "Critical path", _critical(report)) if report.critical else "",
        _section("graph", "Graph", _graph(report)) if report.tasks else "",
        _section("tasks", "Tasks", _table(report)),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _when(began: float) -> str:
    moment = time.gmtime(began)
    return f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)}">{time.strftime("%Y-%m-%d %H:%M UTC", moment)}</time>'


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>\n{body}\n</section>'


def _facts(report: BuildReport) -> str:
    hungriest = report.hungriest
    facts = [
        ("time", seconds(report.wall_s), f"{seconds(report.critical_s)} on the critical path"),
        ("built", str(len(report.of("ran"))), f"of {tasks(len(report.tasks))}"),
        ("cache", f"{len(report.of('cached'))}", cache_line(report)),
    ]
    if hungriest is not None:
        facts.append(("memory", size(hungriest.peak_rss or 0), f"at most, by {hungriest.label}"))
    if report.checked:
        facts.append(("check", str(len(report.checked)), check_line(report)))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong> <span>{escape(note)}</span></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{items}</dl>'


def _failures(report: BuildReport) -> str:
    items = "".join(
        f"<li>{', '.join(f'<code>{escape(label)}</code>' for label in labels)}: {escape(failure)}</li>"
        for failure, labels in report.failures.items()
    )
    if not items:
        return ""
    return _section("failed", "Failed", f'<ul class="failures">{items}</ul>')


def _causes(report: BuildReport) -> str:
    if not report.causes:
        return ""
    items = []
    for cause in report.causes:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in cause.reasons)
        then = f'<p class="then">then {_labels(cause.followed)}</p>' if cause.followed else ""
        items.append(f'<li><ul class="reasons">{reasons}</ul><p>{_labels(cause.tasks)}</p>{then}</li>')
    return _section(
        "causes", causes_line(report)[0].upper() + causes_line(report)[1:], f'<ul class="causes">{"".join(items)}</ul>'
    )


def _labels(labels: Sequence[str]) -> str:
    return several([f"<code>{escape(label)}</code>" for label in labels], _DRAWN)


def _timeline(report: BuildReport, ran: Sequence[TaskReport]) -> str:
    """A bar for each task that ran.  Positions are percentages and text has its own size, so that it fits any width."""
    left_out = max(0, len(ran) - _DRAWN)
    if left_out:
        ran = sorted(ran, key=lambda task: -(task.wall_s or 0))[:_DRAWN]
    ran = sorted(ran, key=lambda task: (task.start or 0, task.label))
    whole = max([report.wall_s, *(task.end or 0 for task in ran)]) or 1.0
    height = _ROW * len(ran) + 26
    critical = frozenset(report.critical)
    parts = [
        f'<svg class="timeline" width="100%" height="{height}" role="img" aria-labelledby="tl-title tl-desc">',
        '<title id="tl-title">When each task ran</title>',
        f'<desc id="tl-desc">{escape(_described(ran))}</desc>',
    ]
    for tick in range(_TICKS + 1):
        share = 100 * tick / _TICKS
        anchor = "start" if tick == 0 else "end" if tick == _TICKS else "middle"
        parts.append(f'<line class="grid" x1="{share:g}%" x2="{share:g}%" y1="0" y2="{height - 22}"/>')
        parts.append(
            f'<text class="tick" x="{share:g}%" y="{height - 6}" text-anchor="{anchor}">{seconds(whole * tick / _TICKS)}</text>'
        )
    for number, task in enumerate(ran):
        start, end = task.start or 0.0, task.end if task.end is not None else whole
        x, width = 100 * start / whole, max(0.4, 100 * (end - start) / whole)
        kind = f"bar {task.status}" + (" critical" if task.label in critical else "")
        top = _ROW * number
        if number:
            parts.append(f'<line class="grid" x1="0" x2="100%" y1="{top}" y2="{top}"/>')
        took = _WORDS[task.status] if task.wall_s is None else seconds(task.wall_s)
        parts.append(
            f"<g><title>{escape(f'{task.label}: {took}')}</title>"
            f'<text x="0" y="{top + 14}">{escape(task.label)}'
            f'<tspan class="took" dx="6">{escape(took)}</tspan></text>'
            f'<rect class="{kind}" x="{min(x, 99.6):.3f}%" width="{width:.3f}%" y="{top + 19}" height="12" rx="2"/></g>'
        )
    parts.append("</svg>")
    keys = [("critical", "on the critical path"), ("ran", "other")]
    keys += [("failed", "failed")] if any(task.status == "failed" for task in ran) else []
    legend = " ".join(f'<span class="key {name}"></span> {words}' for name, words in keys)
    parts.append(f'<p class="legend">{legend}</p>')
    if left_out:
        parts.append(f"<p>The {left_out} shortest tasks are left out; the table has all.</p>")
    return "\n".join(parts)


def _described(ran: Sequence[TaskReport]) -> str:
    first = [f"{task.label} from {seconds(task.start or 0)} to {seconds(task.end or 0)}" for task in ran[:20]]
    return "; ".join(first) + ("; and more in the table" if len(ran) > len(first) else "")


def _critical(report: BuildReport) -> str:
    by_label = {task.label: task for task in report.tasks}
    items = "".join(
        f"<li><code>{escape(label)}</code> <span>{seconds(by_label[label].wall_s or 0)}</span></li>"
        for label in report.critical
    )
    return f'<p>{seconds(report.critical_s)} of {seconds(report.wall_s)}</p><ol class="critical">{items}</ol>'


def _graph(report: BuildReport) -> str:
    drawn = list(report.tasks)
    if len(drawn) > _DRAWN:
        drawn = report.of("ran", "failed", "skipped", "unfinished")[:_DRAWN]
    note = (
        f"<p>{len(report.tasks) - len(drawn)} tasks are left out; the table has all.</p>"
        if len(drawn) < len(report.tasks)
        else ""
    )
    svg = graph_svg(drawn, frozenset(report.critical))
    return (
        f'<div class="scroll" role="region" aria-labelledby="graph-title" tabindex="0">{svg}</div>{note}'
        if drawn
        else note
    )


def _table(report: BuildReport) -> str:
    rows = []
    for task in report.tasks:
        word = _SOURCES.get(task.source, "cached") if task.status == "cached" else _WORDS[task.status]
        took = seconds(task.wall_s) if task.wall_s is not None and task.status != "cached" else ""
        why = task.failure if task.status == "failed" else "; ".join(task.reasons)
        cells = (
            ("took", "time", took),
            ("number", "memory", size(task.peak_rss) if task.peak_rss else ""),
            ("number", "output", size(task.output_size) if task.output_size is not None else ""),
            ("why", "why", why),
        )
        rows.append(
            f'<tr class="{task.status}"><th scope="row"><code>{escape(task.label)}</code></th>'
            f'<td data-name="state"><span class="state">{escape(word)}</span></td>'
            + "".join(f'<td class="{kind}" data-name="{name}">{escape(text)}</td>' for kind, name, text in cells)
            + "</tr>"
        )
    return (
        "<table><caption>Every task of the build, in plan order</caption><thead><tr>"
        '<th scope="col">task</th><th scope="col">state</th><th scope="col" class="number">time</th>'
        '<th scope="col" class="number">memory</th><th scope="col" class="number">output</th><th scope="col">why</th>'
        f"</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table>"
    )
