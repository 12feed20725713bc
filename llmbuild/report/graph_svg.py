"""The graph of a build as SVG: a column for each distance from the sources, a box for each task, an arc for each input."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from llmbuild.engine.labels import split_label
from llmbuild.report.build_report import TaskReport

_BOX_W, _BOX_H, _GAP_X, _GAP_Y = 256, 44, 40, 14
_LETTERS = 34
"""How many letters of a box's second line fit."""

_WORDS = {"ran": "built", "cached": "cached", "failed": "failed", "skipped": "not run", "unfinished": "not finished"}


def graph_svg(tasks: Sequence[TaskReport], critical: Collection[str] = ()) -> str:
    """The drawing.  Tasks come in plan order; dependencies that are not among them are left out."""
    columns = _columns(tasks)
    places: dict[str, tuple[int, int]] = {}
    for number, column in enumerate(columns):
        for row, task in enumerate(column):
            places[task.label] = (number * (_BOX_W + _GAP_X) + 2, row * (_BOX_H + _GAP_Y) + 2)
    width = len(columns) * (_BOX_W + _GAP_X) - _GAP_X + 4
    height = max(map(len, columns), default=0) * (_BOX_H + _GAP_Y) - _GAP_Y + 4
    parts = [
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="g-title g-desc">',
        '<title id="g-title">What each task reads from</title>',
        f'<desc id="g-desc">{escape(_described(tasks))}</desc>',
    ]
    for task in tasks:
        parts += [
            _arc(places[need], places[task.label], need in critical and task.label in critical)
            for need in task.needs
            if need in places
        ]
    parts += [_box(task, *places[task.label], task.label in critical) for task in tasks]
    return "\n".join([*parts, "</svg>"])


def _columns(tasks: Sequence[TaskReport]) -> list[list[TaskReport]]:
    """Each task is one column after the last task it needs, and within the column near what it needs, so that few arcs cross."""
    import networkx as nx

    by_label = {task.label: task for task in tasks}
    graph = nx.DiGraph((need, task.label) for task in tasks for need in task.needs if need in by_label)
    graph.add_nodes_from(by_label)
    order = {label: place for place, label in enumerate(by_label)}
    columns = [
        [by_label[label] for label in sorted(generation, key=order.__getitem__)]
        for generation in nx.topological_generations(graph)
    ]
    rows: dict[str, int] = {}
    for column in columns:
        column.sort(key=lambda task: _middle([rows[need] for need in task.needs if need in rows]))
        rows |= {task.label: row for row, task in enumerate(column)}
    return columns


def _middle(rows: Sequence[int]) -> float:
    return sum(rows) / len(rows) if rows else 0.0


def _arc(start: tuple[int, int], end: tuple[int, int], critical: bool) -> str:
    x1, y1, x2, y2 = start[0] + _BOX_W, start[1] + _BOX_H // 2, end[0], end[1] + _BOX_H // 2
    bend = max(20, (x2 - x1) // 2)
    kind = "arc critical" if critical else "arc"
    return f'<path class="{kind}" d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"/>'


def _box(task: TaskReport, x: int, y: int, critical: bool) -> str:
    kind, parts = split_label(task.label)
    of = ", ".join(parts)
    of = of if len(of) <= _LETTERS else f"{of[: _LETTERS - 1]}…"
    names = f"node {task.status}" + (" critical" if critical else "")
    return (
        f'<g class="{names}"><title>{escape(task.label)}: {_WORDS[task.status]}</title>'
        f'<rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" rx="4"/>'
        f'<text x="{x + 10}" y="{y + 18}" class="kind">{escape(kind)}</text>'
        f'<text x="{x + _BOX_W - 10}" y="{y + 18}" class="word" text-anchor="end">{_WORDS[task.status]}</text>'
        f'<text x="{x + 10}" y="{y + 35}">{escape(of)}</text></g>'
    )


def _described(tasks: Sequence[TaskReport]) -> str:
    told = [f"{task.label} reads from {', '.join(task.needs)}" for task in tasks if task.needs]
    return "; ".join(told[:20]) + ("; and so on" if len(told) > 20 else "")
