"""A plan as text: root causes first, then what may follow, then what is cached; one line for a task, or for many of a kind that
have the same reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbuild.engine.labels import split_label
from llmbuild.plan.planner import Plan, State, Verdict
from llmbuild.plan.reasons import Cascade, NeverBuilt, Reason, sentences
from llmbuild.report.style import STATE_STYLES, Style, wrapped
from llmbuild.report.units import seconds, size
from llmbuild.report.units import tasks as counted
from llmbuild.report.wrapping import wrap

if TYPE_CHECKING:
    from llmbuild.plan.estimates import PlanEstimate, Total

_ORDER: Sequence[State] = ("run", "restore", "maybe", "blocked", "cached")
MANY = 4
"""So many tasks of a kind that have the same reason share a line."""
_SHOWN = 3
"""How many reasons of a task its line shows; `why` shows all of them."""


def plan_text(plan: Plan, style: Style, estimate: PlanEstimate | None = None, *, fold: bool = True) -> str:
    """The whole plan.  A reason that does not fit beside its label is printed below it, never past the width.  Without `fold`
    each task has a line of its own."""
    entries = _without_repeats(_folded(_entries(plan)) if fold else _entries(plan))
    labels = max((len(entry.label) for entry in entries), default=0)
    lines = [summary(plan), *_causes(plan, style)]
    if entries:
        lines.append("")
    for entry in entries:
        lines += _lines(entry, labels, style)
    absent = missing_lines(plan)
    if absent:
        lines.append("")
        for line in absent:
            lines += wrapped(line, 0, style)
    if estimate is not None:
        lines.append("")
        for number, line in enumerate(estimate_lines(estimate)):
            lines += wrapped(line, 2 if number else 0, style)
    return "\n".join(lines)


class _Entry(NamedTuple):
    """A line of the plan: a task or several of a kind, and why."""

    state: State
    label: str
    text: str


def _entries(plan: Plan) -> list[_Entry]:
    """A line for each task, in the order of their states."""
    impact = plan.impact()
    return [
        _Entry(state, verdict.task.label, reasons_line(verdict.reasons, impact.get(verdict.task.label, 0)))
        for state in _ORDER
        for verdict in plan.verdicts
        if verdict.state == state
    ]


def _folded(entries: Sequence[_Entry]) -> list[_Entry]:
    """The same with one line for many tasks of a kind that have the same state and reason, where the first of them stood."""
    groups: dict[tuple[State, str, str], list[_Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.state, split_label(entry.label)[0], entry.text), []).append(entry)
    lines: list[_Entry] = []
    for (state, kind, text), group in groups.items():
        lines += group if len(group) < MANY else [_Entry(state, f"{len(group)} x {kind}", text)]
    return lines


def _without_repeats(entries: Sequence[_Entry]) -> list[_Entry]:
    """The same where what blocks tasks, which is long, is said once."""
    said: dict[str, str] = {}
    return [
        entry._replace(text=f"as {said[entry.text]}")
        if entry.state == "blocked" and said.setdefault(entry.text, entry.label) != entry.label
        else entry
        for entry in entries
    ]


def causes_line(plan: Plan) -> str:
    """`1 root cause, 2 follow`, or `1 root cause`; empty when nothing changed."""
    causes = [cause for cause in plan.causes() if not cause.new]
    follow = sum(len(cause.follow) for cause in causes)
    if not causes:
        return ""
    return f"{len(causes)} root cause{'' if len(causes) == 1 else 's'}" + (f", {follow} follow" if follow else "")


def _causes(plan: Plan, style: Style) -> list[str]:
    """The number of root causes, and those that several tasks share: their tasks' lines repeat them."""
    line = causes_line(plan)
    lines = [line] if line else []
    for cause in plan.causes():
        if len(cause.tasks) > 1 and not cause.new:
            follow = f", {len(cause.follow)} may follow" if cause.follow else ""
            lines += wrapped(f"{reasons_line(cause.reasons)}: {counted(len(cause.tasks))}{follow}", 2, style)
    return lines


def missing_lines(plan: Plan) -> list[str]:
    """What tasks need and this machine lacks, except for blocked tasks, whose own lines report it."""
    found: dict[str, dict[str, None]] = {}
    for verdict in plan.verdicts:
        if verdict.state == "blocked":
            continue
        for error in verdict.task.missing:
            named = "".join(f", {tool} as locked: {name}" for tool, name in verdict.as_locked.items())
            fix = f" ({error.fix})" if error.fix else ""
            found.setdefault(f"{error.what}{fix}{named}", {})[verdict.task.platform or verdict.task.label] = None
    return [f"not here: {text}: {', '.join(filter(None, platforms))}" for text, platforms in found.items()]


def estimate_lines(estimate: PlanEstimate) -> list[str]:
    """The estimate of the plan, as lines; what is not known yet is marked so."""
    known = [label for label in estimate.tasks if estimate.tasks[label].runs]
    certain, most = estimate.certain, estimate.most
    download = _download(certain)
    if not known:
        return [f"estimate: no earlier runs, so time and memory are unknown; {download}"]
    about = "about " if estimate.others else ""
    total = certain.disk or certain.wall_s or certain.unknown_outputs
    lines = [f"estimate: {about}{_total(certain)}, {download}" if total else f"estimate: {download}"]
    if most != certain:
        lines.append(f"if all follow: {about}{_total(most)}")
    few, many = estimate.fewest, estimate.most_runs
    if many:
        runs = f"{few}" if few == many else f"{few} to {many}"
        own = dict.fromkeys(split_label(label)[0] for label in known if estimate.tasks[label].of == "task")
        which = f": {', '.join(own)}" if estimate.others else ""
        lines.append(f"from {runs} earlier run{'' if many == 1 else 's'} of each task{which}")
    # Kinds with as many runs of the same things share a line.
    for one in dict.fromkeys(estimate.others.values()):
        kinds = ", ".join(kind for kind, other in estimate.others.items() if other == one)
        what = "other models" if one.of == "others" else "other tasks of the model"
        lines.append(f"about, from {one.runs} run{'' if one.runs == 1 else 's'} of {what}: {kinds}")
    if estimate.guessed:
        lines.append(f"no earlier runs of {', '.join(estimate.guessed)}: what {_these(estimate.guessed)} is a guess")
    return lines


def _these(kinds: Sequence[str]) -> str:
    return "it takes" if len(kinds) == 1 else "they take"


def _total(total: Total) -> str:
    disk = f"{size(total.disk)} of new disk"
    if total.unknown_outputs:
        disk = f"at least {disk}" if total.disk else "new disk of unknown size"
    return f"{seconds(total.wall_s)}, {size(total.peak_rss)} of memory, {disk}"


def _download(total: Total) -> str:
    """`900.0 MB to download`, `nothing to download`, and how many downloads have an unknown size."""
    unknown = total.unknown_downloads
    if not unknown:
        return f"{size(total.download) if total.download else 'nothing'} to download"
    known = f"{size(total.download)} and " if total.download else ""
    return f"{known}{unknown} download{'' if unknown == 1 else 's'} of unknown size"


def summary(plan: Plan) -> str:
    """`assistants: 6 tasks: 1 to run, 2 may follow, 3 cached`, or that everything is up to date."""
    tasks = counted(len(plan.verdicts))
    if not plan.stale:
        return f"{plan.project}: {tasks}, everything is up to date"
    words = {"run": "to run", "restore": "to restore", "maybe": "may follow", "blocked": "blocked", "cached": "cached"}
    parts = [f"{plan.count(state)} {words[state]}" for state in _ORDER if plan.count(state)]
    return f"{plan.project}: {tasks}: {', '.join(parts)}"


def reasons_line(reasons: Sequence[Reason], follow: int = 0) -> str:
    """The reasons in one line, the first three of them, and how many tasks may follow."""
    said = sentences((reason for reason in reasons if not isinstance(reason, Cascade)), _SHOWN)
    parts = said[:_SHOWN] + [
        f"if {reason.root} changes what it reads" for reason in reasons if isinstance(reason, Cascade)
    ]
    if len(said) > _SHOWN:
        parts.append(f"and {len(said) - _SHOWN} more")
    line = "; ".join(parts)
    return f"{line} ({follow} may follow)" if follow and not isinstance(reasons[0], NeverBuilt) else line


def _lines(entry: _Entry, labels: int, style: Style) -> list[str]:
    state = style.paint(f"{entry.state:<7}", STATE_STYLES[entry.state])
    if not entry.text:
        return [f"  {state}  {entry.label}"]
    if 11 + labels + 2 + len(entry.text) <= style.width:
        return [f"  {state}  {entry.label:<{labels}}  {entry.text}"]
    pad = " " * 13
    return [f"  {state}  {entry.label}", *wrap(entry.text, style.width, pad, pad)]


def why_text(plan: Plan, verdict: Verdict, style: Style) -> str:
    """One task: its verdict, every reason in full, and, for a cascade, the reasons of its root."""
    said = {
        "run": "has to run",
        "restore": "is built, its files have to be put in place",
        "maybe": "may have to run",
        "blocked": "is blocked",
        "cached": "is up to date",
    }
    lines = [f"{style.paint(verdict.task.label, 'bold')} {said[verdict.state]}"]
    for text in sentences(reason for reason in verdict.reasons if not isinstance(reason, Cascade)):
        lines += wrapped(text, 2, style)
    for reason in verdict.reasons:
        if isinstance(reason, Cascade):
            root = next(each for each in plan.verdicts if each.task.label == reason.root)
            lines += wrap(f"it reads from {root.task.label}, which runs:", style.width, "  ", "  ")
            lines += [line for text in sentences(root.reasons) for line in wrapped(text, 4, style)]
            lines.append("  where that changes nothing of what this task reads, it stays cached")
    if verdict.state != "blocked":
        for error in verdict.task.missing:
            lines += wrapped(f"not here: {error.what}" + (f" ({error.fix})" if error.fix else ""), 2, style)
        for tool, name in verdict.as_locked.items():
            lines += wrapped(f"the {tool} is taken as locked: {name}", 2, style)
    if verdict.action is not None:
        lines.append(style.paint(f"  action {verdict.action.digest}", "dim"))
    return "\n".join(lines)
