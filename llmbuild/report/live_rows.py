"""The live part of a build's view as rows of text: one for each running task, and one for the whole."""

from __future__ import annotations

from llmbuild.report.overview import Overview
from llmbuild.report.rate import Progress, amount_text, clock, left_text, rate_text
from llmbuild.report.style import Style

_WIDE = 100
"""From so many columns on, bars are longer."""
_LEAST_LABEL = 24
"""Numbers make room for so many columns of a label."""
_HALVES = ("━", "╸", " ")
_PLAIN = ("=", ">", " ")


def rows(overview: Overview, now: float, style: Style, height: int, *, unicode: bool = True) -> list[str]:
    """The rows at this moment, each less than the width and all together less than the `height` of the terminal.  `unicode`
    says whether it shows more than ASCII."""
    letters = _HALVES if unicode else _PLAIN
    labels = list(overview.running)
    clocks = {label: clock(now - overview.running[label].since) for label in labels}
    wide = max(map(len, clocks.values()), default=0)
    room = max(1, height - 3)
    shown = labels if len(labels) <= room else labels[: room - 1]
    found = [_task(overview, label, f"{clocks[label]:>{wide}}", now, style, letters) for label in shown]
    if len(shown) < len(labels):
        found.append(f"{'':{wide}} and {len(labels) - len(shown)} more"[: style.width - 1])
    return [*found, _whole(overview, now, style, letters)] if overview.total else found


def _whole(overview: Overview, now: float, style: Style, letters: tuple[str, ...]) -> str:
    facts = clock(now - overview.began)
    left = left_text(overview.left(now))
    facts += f", about {left}" if left else ""
    facts += f", {overview.failed} failed" if overview.failed else ""
    room = style.width - 1 - len(overview.count) - 1 - len(facts) - 1
    width = min(30 if style.width >= _WIDE else 20, room)
    bar = f"{_bar(overview.ended / overview.total, width, style, letters)} " if width > 0 else ""
    return f"{style.paint(overview.count, 'bold')} {bar}{facts}"


def _task(overview: Overview, label: str, time: str, now: float, style: Style, letters: tuple[str, ...]) -> str:
    progress = overview.running[label]
    width = 16 if style.width >= _WIDE else 10
    bar = " " * width if progress.share is None else _bar(progress.share, width, style, letters)
    room = style.width - 1 - len(time) - 1 - width - 1
    facts = _facts(overview, label, progress, now, room - min(len(label), max(_LEAST_LABEL, room // 2)) - 1)
    space = room - len(facts) - (1 if facts else 0)
    if len(label) > space:
        label = f"{label[: space - 1]}…" if letters is _HALVES else f"{label[: space - 3]}..."
    return f"{style.paint(time, 'dim')} {bar} {label} {facts}".rstrip()


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


def _bar(share: float, width: int, style: Style, letters: tuple[str, ...]) -> str:
    """A bar of a width that is as full as the share of 0 to 1 that is done, to half a column."""
    halves = int(share * width * 2)
    done = letters[0] * (halves // 2) + (letters[1] if halves % 2 else "")
    rest = width - len(done)
    return style.paint(done, "green") + (style.paint(letters[0] * rest, "dim") if style.color else letters[2] * rest)
