"""The output of the `cache` commands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmbuild.engine.hit_counts import Use
from llmbuild.report.style import Style
from llmbuild.report.units import size

if TYPE_CHECKING:
    from llmbuild.canonical import Json
    from llmbuild.engine.upkeep.archive import Packed
    from llmbuild.engine.upkeep.audit import Audit
    from llmbuild.engine.upkeep.gc import Collected
    from llmbuild.engine.upkeep.survey import Survey, TraceFacts

_LARGEST = 5
_SHOWN = 20

FAULTS = {
    "corrupt-blob": "corrupt blob",
    "stray-file": "stray file",
    "damaged-trace": "damaged trace",
    "incomplete-trace": "incomplete result",
    "damaged-action": "damaged action record",
    "damaged-history": "damaged history of a project",
    "damaged-intermediate": "damaged intermediate result",
}


_PATHS = frozenset({"stray-file", "damaged-history", "damaged-intermediate"})
"""The faults of files that are named by their paths, and not by a digest."""


def age(seconds: float) -> str:
    """`now`, `5 min`, `3 h`, `12 d`: an age in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def stats_json(root: str, found: Survey, uses: Mapping[str, Use] = MappingProxyType({})) -> dict[str, Json]:
    """What `cache stats --json` prints; sizes in bytes, times in seconds since the epoch."""
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: {"traces": 0, "output": 0, "hits": 0, "misses": 0})
    for kind, use in uses.items():
        kinds[kind] |= {"hits": use.hits, "misses": use.misses}
    for trace in found.traces.values():
        kinds[trace.kind]["traces"] += 1
        kinds[trace.kind]["output"] += trace.output_size
    linked = [blob.size for blob in found.blobs.values() if blob.links > 1]
    unused = _unused(found)
    return {
        "cache": root,
        "blobs": len(found.blobs),
        "bytes": found.size,
        "linked-blobs": len(linked),
        "linked-bytes": sum(linked),
        "unused-blobs": len(unused),
        "unused-bytes": sum(unused),
        "intermediates": len(found.intermediates),
        "intermediates-bytes": found.intermediates_size,
        "traces": len(found.traces),
        "roots": len(set(found.roots) & set(found.traces)),
        "running": len(found.running),
        "kinds": {kind: dict(values) for kind, values in sorted(kinds.items())},
        "largest": [
            {"label": trace.label, "action": trace.action, "output": trace.output_size, "used": trace.used}
            for trace in _largest(found)
        ],
    }


def stats_text(
    root: str, found: Survey, now: float, style: Style, uses: Mapping[str, Use] = MappingProxyType({})
) -> str:
    """A page about a store; `uses` are those of all builds by kind."""
    linked = [blob.size for blob in found.blobs.values() if blob.links > 1]
    unused = _unused(found)
    roots = len(set(found.roots) & set(found.traces))
    lines = [
        f"cache    {root}",
        f"blobs    {len(found.blobs)}, {size(found.size)}",
        f"linked   {len(linked)}, {size(sum(linked))}: the same bytes as files of projects",
        f"unused   {len(unused)}, {size(sum(unused))}: nothing refers to them, `llmbuild cache gc` removes them",
        f"interim  {len(found.intermediates)}, {size(found.intermediates_size)}: intermediate results, for later tasks",
        f"traces   {len(found.traces)}, {roots} of them the last results of projects",
    ]
    outputs: Counter[str] = Counter()
    for trace in found.traces.values():
        outputs[trace.kind] += trace.output_size
    numbers = Counter(trace.kind for trace in found.traces.values())
    for kind in sorted(numbers):
        lines.append(f"  {kind:<10} {numbers[kind]:>5}  {size(outputs[kind]):>9}")
    if uses:
        total = sum(uses.values(), Use())
        lines.append(f"uses     {_hits(total)}, in all builds")
        lines += [f"  {kind:<10} {_hits(use)}" for kind, use in sorted(uses.items())]
    largest = _largest(found)
    if largest:
        lines.append("largest results")
        for trace in largest:
            used = age(now - trace.used)
            words = "used just now" if used == "now" else f"used {used} ago"
            lines.append(_cut(f"  {size(trace.output_size):>9}  {words:<16}  {trace.label}", style))
    if found.running:
        lines.append(f"running  {count(len(found.running), 'action')}")
    return "\n".join(lines)


def _hits(use: Use) -> str:
    """`3 hits, 1 miss (75 %)`."""
    misses = "1 miss" if use.misses == 1 else f"{use.misses} misses"
    return f"{count(use.hits, 'hit')}, {misses} ({100 * use.hits // max(1, use.hits + use.misses)} %)"


def collected_text(done: Collected, style: Style) -> str:
    """What a collection removed, or would."""
    lines = []
    shown = done.choice.traces[:_SHOWN] if done.dry_run else ()
    for trace in shown:
        lines.append(_cut(f"  {size(trace.output_size):>9}  {trace.label}", style))
    if len(done.choice.traces) > len(shown) > 0:
        lines.append(f"  and {len(done.choice.traces) - len(shown)} more")
    verb = "would remove" if done.dry_run else "removed"
    what = f"{count(done.traces, 'trace')} and {count(done.blobs, 'blob')}"
    if done.intermediates:
        what = f"{what}, and {count(done.intermediates, 'intermediate result')}"
    lines.append(f"{verb} {what}: {size(done.freed)} freed, {size(done.left)} left")
    if done.choice.forced:
        lines.append(f"{count(done.choice.forced, 'trace')} of recent projects went too, to come down to the size")
    if done.choice.over:
        lines.append(f"{size(done.choice.over)} above the size: the rest was used just now, or a build is using it")
    if done.leftovers:
        were = "would go" if done.dry_run else "removed"
        lines.append(f"{count(done.leftovers, 'leftover')} of failed or killed tasks {were}")
    return "\n".join(lines)


def collected_json(done: Collected) -> dict[str, Json]:
    return {
        "dry-run": done.dry_run,
        "traces": done.traces,
        "blobs": done.blobs,
        "intermediates": done.intermediates,
        "freed": done.freed,
        "left": done.left,
        "over": done.choice.over,
        "forced": done.choice.forced,
        "leftovers": done.leftovers,
        "removed": [{"label": trace.label, "action": trace.action} for trace in done.choice.traces],
    }


def audit_text(result: Audit, style: Style) -> str:
    """What an audit found: one line a fault, and the sum."""
    lines = []
    for finding in result.findings:
        name = finding.name if finding.fault in _PATHS else finding.name[:16]
        label = f" {finding.label}" if finding.label else ""
        lines.append(f"{style.paint(FAULTS[finding.fault], 'red')} {name}{label}")
        lines.append(f"  {finding.detail}")
    sums = f"{count(result.blobs, 'blob')} ({size(result.size)} right), {count(result.traces, 'trace')}, "
    sums += count(result.actions, "action record")
    faults = count(len(result.findings), "fault")
    if not result.findings:
        lines.append(f"ok: {sums}, nothing is wrong")
    elif result.repaired:
        lines += [f"repaired: {sums}", f"{faults} removed, to be built again when needed"]
    else:
        lines += [f"wrong: {sums}", f"{faults}; `llmbuild cache verify --repair` removes them"]
    if result.leftovers:
        lines.append(
            f"{count(result.leftovers, 'leftover')} of failed or killed tasks: harmless, and removed by and by"
        )
    return "\n".join(lines)


def audit_json(result: Audit) -> dict[str, Json]:
    return {
        "blobs": result.blobs,
        "bytes": result.size,
        "traces": result.traces,
        "actions": result.actions,
        "leftovers": result.leftovers,
        "repaired": result.repaired,
        "findings": [
            {"fault": one.fault, "name": one.name, "label": one.label, "detail": one.detail} for one in result.findings
        ],
    }


def packed_text(
    packed: Packed, file: str, *, imported: bool, unbuilt: Sequence[str] = (), away: Sequence[str] = ()
) -> str:
    """What an export wrote or an import read.  `away` are tasks whose output is no longer where it was left."""
    parts = f"{count(packed.traces, 'trace')}, {count(packed.blobs, 'blob')}, {size(packed.size)}"
    if imported:
        return f"imported {file}: {parts}; {packed.new_traces} and {packed.new_blobs} of them new"
    lines = [f"exported {parts} to {file}"]
    if away:
        lines.append(f"left out, because files of theirs are gone or changed: {', '.join(away)}")
    left_out = len(unbuilt) or (0 if away else len(packed.missing))
    if left_out:
        lines.append(f"left out, because not built: {', '.join(unbuilt) or count(left_out, 'action')}")
    return "\n".join(lines)


def packed_json(packed: Packed, unbuilt: Sequence[str] = ()) -> dict[str, Json]:
    return {
        "traces": packed.traces,
        "actions": packed.actions,
        "blobs": packed.blobs,
        "bytes": packed.size,
        "new-traces": packed.new_traces,
        "new-blobs": packed.new_blobs,
        "left-out": list(unbuilt) or list(packed.missing),
    }


def _largest(found: Survey) -> list[TraceFacts]:
    ordered = sorted(found.traces.values(), key=lambda trace: (-trace.output_size, trace.label, trace.action))
    return ordered[:_LARGEST]


def _unused(found: Survey) -> list[int]:
    referred = {ref for trace in found.traces.values() for ref in trace.refs}
    return [blob.size for digest, blob in found.blobs.items() if digest not in referred]


def _cut(line: str, style: Style) -> str:
    return line if len(line) <= style.width else f"{line[: style.width - 1]}…"
