"""A plan for machines: JSON, and the graph as DOT or Mermaid.  The JSON's layout is versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.errors import LlmbuildError
from llmbuild.plan.planner import Plan, Verdict
from llmbuild.plan.reasons import reason_to_json
from llmbuild.report.plan_text import reasons_line

if TYPE_CHECKING:
    from llmbuild.plan.estimates import PlanEstimate, TaskEstimate, Total

FORMAT = 1
_COLORS = {"run": "#f2c14e", "restore": "#f2c14e", "maybe": "#9ad1d4", "cached": "#e8e8e8", "blocked": "#e58a7b"}


def plan_json(plan: Plan, estimate: PlanEstimate | None = None) -> dict[str, Json]:
    """The plan as a JSON object: `format`, `project`, `stale`, `counts` by state, the root `causes` with what may follow
    each, the `estimate` (null when nothing has to run), and `tasks` in graph order."""
    return {
        "format": FORMAT,
        "project": plan.project,
        "stale": plan.stale,
        "counts": {"run": plan.count("run"), "maybe": plan.count("maybe"), "restore": plan.count("restore")}
        | {"blocked": plan.count("blocked"), "cached": plan.count("cached")},
        "causes": [
            {
                "reasons": [reason_to_json(reason) for reason in cause.reasons],
                "tasks": list(cause.tasks),
                "follow": list(cause.follow),
            }
            for cause in plan.causes()
        ],
        "estimate": None if estimate is None else _estimate_json(estimate),
        "tasks": [
            verdict_json(verdict, None if estimate is None else estimate.tasks.get(verdict.task.label))
            for verdict in plan.verdicts
        ],
    }


def _estimate_json(estimate: PlanEstimate) -> dict[str, Json]:
    def total(of: Total) -> dict[str, Json]:
        return {
            "wall-s": of.wall_s,
            "peak-rss": of.peak_rss,
            "disk": None if of.unknown_outputs else of.disk,
            "download": None if of.unknown_downloads else of.download,
        }

    return {
        "run": total(estimate.certain),
        "all": total(estimate.most),
        "runs": [estimate.fewest, estimate.most_runs],
        "runs-of-others": {kind: {"runs": one.runs, "of": one.of} for kind, one in estimate.others.items()},
        "no-runs-of": list(estimate.guessed),
        "unknown-downloads": list(estimate.unknown),
    }


def verdict_json(verdict: Verdict, estimate: TaskEstimate | None = None) -> dict[str, Json]:
    """One task; `action` is null where its inputs are unknown before others have run, `estimate` where it will not run.

    `missing` is what the task needs and this machine lacks, `as-locked` the tools among it whose entries in the key are the
    lock file's.

    An estimate has seconds (`wall-s`), bytes (`peak-rss`, `output-size`, `download`: the last two null where unknown),
    the number of earlier `runs` that it is made from (0: a guess), and what they were runs `of`: the "task", other tasks of
    its "model", or "others".
    """
    task = verdict.task
    return {
        "task": task.label,
        "kind": task.kind,
        "state": verdict.state,
        "reasons": [reason_to_json(reason) for reason in verdict.reasons],
        "needs": sorted({ref.task for ref in task.inputs.values()}),
        "model": task.model,
        "quantization": task.scheme,
        "platform": task.platform,
        "as-locked": dict(verdict.as_locked),
        "missing": [_missing(error) for error in task.missing],
        "action": None if verdict.action is None else verdict.action.digest,
        "outputs": [install.dest for install in task.installs],
        "estimate": None
        if estimate is None
        else {
            "wall-s": estimate.wall_s,
            "peak-rss": estimate.peak_rss,
            "output-size": estimate.output_size,
            "download": estimate.download,
            "runs": estimate.runs,
            "of": estimate.of if estimate.runs else None,
        },
    }


def _missing(error: LlmbuildError) -> dict[str, Json]:
    return {"what": error.what, "why": error.why, "fix": error.fix}


def plan_dot(plan: Plan) -> str:
    """The graph for Graphviz, coloured by state."""
    lines = ["digraph plan {", "  rankdir=LR;", '  node [shape=box, style=filled, fontname="sans-serif"];']
    for verdict in plan.verdicts:
        tooltip = _quote(reasons_line(verdict.reasons) or verdict.state)
        color = _COLORS[verdict.state]
        lines.append(f'  {_quote(verdict.task.label)} [fillcolor="{color}", tooltip={tooltip}];')
    for need, label in _edges(plan):
        lines.append(f"  {_quote(need)} -> {_quote(label)};")
    return "\n".join([*lines, "}"])


def plan_mermaid(plan: Plan) -> str:
    """The graph as a Mermaid flow chart, which GitHub shows in Markdown."""
    names = {verdict.task.label: f"t{number}" for number, verdict in enumerate(plan.verdicts)}
    lines = ["flowchart LR"]
    for verdict in plan.verdicts:
        label = verdict.task.label.replace('"', "#quot;")
        lines.append(f'  {names[verdict.task.label]}["{label}"]:::{verdict.state}')
    lines += [f"  {names[need]} --> {names[label]}" for need, label in _edges(plan)]
    lines += [f"  classDef {state} fill:{color}" for state, color in _COLORS.items()]
    return "\n".join(lines)


def _edges(plan: Plan) -> list[tuple[str, str]]:
    """Each task that the plan shows, with each that it reads from."""
    known = {verdict.task.label for verdict in plan.verdicts}
    return [
        (need, verdict.task.label)
        for verdict in plan.verdicts
        for need in sorted({ref.task for ref in verdict.task.inputs.values()} & known)
    ]


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
