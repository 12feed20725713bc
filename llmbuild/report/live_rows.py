"""The live part of a build's view for rich: a row for each running task, and one for the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbuild.report.overview import Overview
from llmbuild.report.rate import Progress, amount_text, clock, left_text, rate_text

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

_WIDE = 100
"""From so many columns on, bars are longer."""
_LEAST_LABEL = 24
"""Numbers make room for so many columns of a label."""


def rows(overview: Overview, now: float, options: ConsoleOptions) -> RenderableType:
    """The rows at this moment, one column less than the console's width and fewer than its height.  Safe for threads."""
    from rich.console import Group

    with overview.lock:
        tasks = _tasks(overview, now, options)
        return Group(tasks, _whole(overview, now, options)) if overview.total else tasks


def _tasks(overview: Overview, now: float, options: ConsoleOptions) -> Table:
    labels = list(overview.running)
    clocks = {label: clock(now - overview.running[label].since) for label in labels}
    bar = 16 if options.max_width >= _WIDE else 10
    room = options.max_width - 1 - max(map(len, clocks.values()), default=0) - 1 - bar - 1
    table = _grid()
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(width=bar)
    table.add_column(no_wrap=True)
    most = max(1, options.size.height - 3)
    shown = labels if len(labels) <= most else labels[: most - 1]
    for label in shown:
        progress = overview.running[label]
        text = _text(overview, label, progress, now, room, ascii_only=options.ascii_only)
        table.add_row(clocks[label], "" if progress.share is None else _bar(progress.share, bar), text)
    if len(shown) < len(labels):
        table.add_row("", "", f"and {len(labels) - len(shown)} more")
    return table


def _whole(overview: Overview, now: float, options: ConsoleOptions) -> Table:
    facts = clock(now - overview.began)
    left = left_text(overview.left(now))
    facts += f", about {left}" if left else ""
    facts += f", {overview.failed} failed" if overview.failed else ""
    room = options.max_width - 1 - len(overview.count) - 1 - len(facts) - 1
    bar = min(30 if options.max_width >= _WIDE else 20, room)
    table = _grid()
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(overview.count, _bar(overview.ended / overview.total, bar) if bar > 0 else "", facts)
    return table


def _grid() -> Table:
    from rich.table import Table

    return Table.grid(padding=(0, 1, 0, 0))


def _bar(share: float, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(1.0, share, width, complete_style="green", finished_style="green")


def _text(
    overview: Overview, label: str, progress: Progress, now: float, room: int, *, ascii_only: bool
) -> RenderableType:
    """The label and how far the task is; of the label as much as there is room for."""
    from rich.text import Text

    facts = _facts(overview, label, progress, now, room - min(len(label), max(_LEAST_LABEL, room // 2)) - 1)
    text = Text(label)
    space = room - len(facts) - (1 if facts else 0)
    text.truncate(max(1, space), overflow="crop" if ascii_only else "ellipsis")
    return text.append(f" {facts}") if facts else text


def _facts(overview: Overview, label: str, progress: Progress, now: float, room: int) -> str:
    """How far the task is, how fast, and how long it takes: as much of it as there is room for."""
    amount, rate = amount_text(progress), rate_text(progress, now)
    left = left_text(overview.left_of(label, now))
    if left and progress.left(now) is None:
        left = f"about {left}"
    share = "" if progress.share is None else f"{progress.share:.0%}"
    forms = [(amount, rate, left), (share, rate, left), (amount, left), (share, left), (left,), (share,)]
    texts = [", ".join(filter(None, form)) for form in forms]
    return next((text for text in texts if len(text) <= room), "")
