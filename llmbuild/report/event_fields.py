"""The fields of events that a reader relies on: a file of events may come from anywhere (docs/events.md).

Every reader ignores types and fields that are not listed here, so they may have any value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from llmbuild.printable import printable

_Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e12


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _reason(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(_text(value.get(name, "")) for name in ("reason", "text", "task"))
        and ("reason" in value and "text" in value)
    )


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_count, value))


_TEXTS = _list_of(_text)
_REQUIRED: Mapping[str, Mapping[str, _Check]] = {
    "plan-made": {"tasks": _TEXTS, "jobs": _count},
    "explained": {"label": _text, "reasons": _list_of(_reason)},
    "started": {"label": _text},
    "finished": {"label": _text, "wall-s": _seconds, "cpu-s": _seconds, "peak-rss": _count, "output-size": _count},
    "cached-task": {"label": _text, "source": _text},
    "failed": {"label": _text, "failure": lambda value: isinstance(value, Mapping) and _text(value.get("what"))},
    "skipped": {"label": _text},
    "checked": {"label": _text, "differences": lambda value: isinstance(value, list)},
    "installed": {"outputs": _TEXTS, "restored": _TEXTS},
    "corrupt-blob": {"path": _text},
    "summary": dict.fromkeys(("ran", "cached", "failed", "skipped"), _count) | {"wall-s": _seconds},
}
_OPTIONAL: Mapping[str, Mapping[str, _Check]] = {
    "plan-made": {"project": _text, "needs": _list_of(_list_of(_count))},
    "finished": {"reused": lambda value: value is None or _pair(value)},
    "cached-task": {"wall-s": _seconds, "output-size": _count},
    "summary": {"interrupted": lambda value: isinstance(value, bool), "failures": _TEXTS},
}


def checked_event(value: Any) -> dict[str, Any]:
    """An event as a reader may take it, its texts printable.  Raises ValueError, with what is wrong, for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("the line has no event")
    kind = value["type"]
    if not _seconds(value.get("time", 0.0)):
        raise ValueError("the event's time is no number of seconds")
    for name, check in _REQUIRED.get(kind, {}).items():
        if not check(value.get(name)):
            raise ValueError(f"'{name}' of the event '{kind}' is missing or of another type")
    for name, check in _OPTIONAL.get(kind, {}).items():
        if name in value and not check(value[name]):
            raise ValueError(f"'{name}' of the event '{kind}' is of another type")
    if kind == "plan-made" and not _in_order(value):
        raise ValueError("the plan's tasks are not each after those that they need")
    printed: dict[str, Any] = _printable(value)
    return printed


def _in_order(plan: Mapping[str, Any]) -> bool:
    tasks, needs = plan["tasks"], plan.get("needs") or []
    if len(set(tasks)) != len(tasks) or (needs and len(needs) != len(tasks)):
        return False
    return all(position < number for number, positions in enumerate(needs) for position in positions)


def _printable(value: Any) -> Any:
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable(name): _printable(item) for name, item in value.items()}
        case list():
            return [_printable(item) for item in value]
    return value
