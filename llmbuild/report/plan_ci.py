"""A plan for CI: the matrix of a GitHub Actions job, and the summary of a job in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.manifest.project import Platform
from llmbuild.plan.estimates import PlanEstimate
from llmbuild.plan.planner import Plan, Verdict
from llmbuild.report.build_markdown import markdown_text
from llmbuild.report.plan_text import estimate_lines, reasons_line, summary
from llmbuild.targets.needs import needs

_ROWS = 100


def github_matrix(plan: Plan, platforms: Mapping[str, Platform], *, stale_only: bool = False) -> dict[str, Json]:
    """`{"include": [{"model", "quantization", "platform", "label", "library", "install", "stale"}]}`, an entry for each
    library that the plan links, or for each stale one.

    `label` is the library's task and `library` its file; `install` is the result of `targets.needs`.  `stale` is true where
    a build of the entry (its library and, where it has some, its weights and configuration) would or might run anything;
    files that only need to be installed into the output directory do not count, because a fresh checkout has none.
    """
    include: list[Json] = []
    for verdict in plan.verdicts:
        task = verdict.task
        if task.kind != "link":
            # A library's record belongs to another task, and is no library.
            continue
        stale = any(one.unbuilt for one in plan.verdicts if _serves(one, verdict))
        if stale or not stale_only:
            platform = platforms[task.platform]
            install = needs(platform.compile, platform.link, platform.artifact, platform.tools)
            include.append(
                {
                    "model": task.model,
                    "quantization": task.scheme,
                    "platform": task.platform,
                    "label": task.label,
                    "library": task.installs[0].dest,
                    "install": install.to_json(),
                    "stale": stale,
                }
            )
    return {"include": include}


def _serves(one: Verdict, library: Verdict) -> bool:
    """Whether a task belongs to the library's cell of the matrix, or is shared by it."""
    task, of = one.task, library.task
    return task.model == of.model and task.scheme in ("", of.scheme) and task.platform in ("", of.platform)


def plan_markdown(plan: Plan, estimate: PlanEstimate | None = None) -> str:
    """A headline, a table of what is not cached with the reasons, and the estimate."""
    lines = [f"### {markdown_text(summary(plan))}"]
    stale = [verdict for verdict in plan.verdicts if verdict.state != "cached"]
    if stale:
        impact = plan.impact()
        lines += ["", "| task | state | why |", "|---|---|---|"]
        for verdict in stale[:_ROWS]:
            why = markdown_text(reasons_line(verdict.reasons, impact.get(verdict.task.label, 0)))
            lines.append(f"| `{verdict.task.label}` | {verdict.state} | {why} |")
        if len(stale) > _ROWS:
            lines.append(f"| and {len(stale) - _ROWS} more | | |")
    if estimate is not None:
        lines += ["", *(f"{markdown_text(line)}  " for line in estimate_lines(estimate))]
    return "\n".join(lines)
