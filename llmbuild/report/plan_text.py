"""A plan as text: one line a task, root causes first, then what may follow, then what is cached."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from llmbuild.plan.planner import Plan, State, Verdict
from llmbuild.plan.reasons import SOURCES_TOOL, Cascade, NeverBuilt, Reason, sentence
from llmbuild.report.style import STATE_STYLES, Style

_ORDER: Sequence[State] = ("run", "restore", "maybe", "cached")
_SHOWN = 3
"""How many reasons of a task stand in its line; `why` has all of them."""


def plan_text(plan: Plan, style: Style) -> str:
    """The whole plan.  A reason that does not fit beside its label goes below it, never past the width."""
    impact = plan.impact()
    ordered = [verdict for state in _ORDER for verdict in plan.verdicts if verdict.state == state]
    labels = max((len(verdict.task.label) for verdict in ordered), default=0)
    lines = [summary(plan)]
    if ordered:
        lines.append("")
    for verdict in ordered:
        lines += _entry(verdict, impact.get(verdict.task.label, 0), labels, style)
    return "\n".join(lines)


def summary(plan: Plan) -> str:
    """`assistants: 6 tasks: 1 to run, 2 may follow, 3 cached`, or that everything is up to date."""
    count = len(plan.verdicts)
    tasks = f"{count} task{'' if count == 1 else 's'}"
    if not plan.stale:
        return f"{plan.project}: {tasks}, everything is up to date"
    words = {"run": "to run", "restore": "to restore", "maybe": "may follow", "cached": "cached"}
    parts = [f"{plan.count(state)} {words[state]}" for state in _ORDER if plan.count(state)]
    return f"{plan.project}: {tasks}: {', '.join(parts)}"


def reasons_line(reasons: Sequence[Reason], follow: int = 0) -> str:
    """The reasons in one line, the first three of them, and how many tasks may follow."""
    said = [sentence(reason) for reason in reasons if not isinstance(reason, Cascade)]
    parts = said[:_SHOWN] + [
        f"if {reason.root} changes what it reads" for reason in reasons if isinstance(reason, Cascade)
    ]
    if len(said) > _SHOWN:
        parts.append(f"and {len(said) - _SHOWN} more")
    lead = f"{SOURCES_TOOL}: "
    # Several changed files of llmbuild read better as one list.
    line = "; ".join(parts).replace(f"; {lead}", ", ")
    return f"{line} ({follow} may follow)" if follow and not isinstance(reasons[0], NeverBuilt) else line


def _entry(verdict: Verdict, follow: int, labels: int, style: Style) -> list[str]:
    state = style.paint(f"{verdict.state:<7}", STATE_STYLES[verdict.state])
    label = verdict.task.label
    text = reasons_line(verdict.reasons, follow)
    if not text:
        return [f"  {state}  {label}"]
    if 11 + labels + 2 + len(text) <= style.width:
        return [f"  {state}  {label:<{labels}}  {text}"]
    below = textwrap.wrap(text, max(20, style.width - 13), break_long_words=False, break_on_hyphens=False)
    return [f"  {state}  {label}", *(f"{'':13}{line}" for line in below)]


def why_text(plan: Plan, verdict: Verdict, style: Style) -> str:
    """One task: what is to happen to it, every reason in full, and, for a cascade, the reasons of its root."""
    said = {
        "run": "has to run",
        "restore": "is built, its files have to be put back",
        "maybe": "may have to run",
        "cached": "is up to date",
    }
    lines = [f"{style.paint(verdict.task.label, 'bold')} {said[verdict.state]}"]
    for reason in verdict.reasons:
        if isinstance(reason, Cascade):
            root = next(each for each in plan.verdicts if each.task.label == reason.root)
            lines += [
                f"  {line}" for line in textwrap.wrap(f"it reads from {root.task.label}, which runs:", style.width - 2)
            ]
            lines += [line for cause in root.reasons for line in _bullet(sentence(cause), 4, style)]
            lines.append("  where that changes nothing of what this task reads, it stays cached")
        else:
            lines += _bullet(sentence(reason), 2, style)
    if verdict.action is not None:
        lines.append(style.paint(f"  action {verdict.action.digest}", "dim"))
    return "\n".join(lines)


def _bullet(text: str, indent: int, style: Style) -> list[str]:
    pad = " " * indent
    return textwrap.wrap(
        text,
        style.width,
        initial_indent=pad,
        subsequent_indent=pad + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
