"""Differences of a lock file as lines: `+` is needed and missing in it, `-` is only in it, `~` changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmbuild.manifest.lockdiff import TOOLCHAIN, LockDifference
from llmbuild.report.style import Style
from llmbuild.report.units import files as counted
from llmbuild.report.units import size
from llmbuild.report.wrapping import wrap

_LONG_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "incomplete": "~"}
_COLORS = {"+": "green", "-": "red", "~": "yellow"}


def difference_line(difference: LockDifference, models: Mapping[str, Sequence[str]] | None = None) -> str:
    """One difference on one line; `models` names the models of a source."""
    subject = difference.section
    users = (models or {}).get(difference.section, ())
    if users and not difference.item:
        subject += f" ({', '.join(users)})"
    if difference.item:
        subject += f": {difference.item}"
    return f"{_SIGNS[difference.how]} {subject}: {_said(difference)}"


def _said(difference: LockDifference) -> str:
    match difference.how:
        case "added":
            about = _about(difference.pin) if difference.pin else ""
            if "" in difference.values:
                about = short(difference.values[""][1])
            return "not in the lock" + (f" ({about})" if about else "")
        case "removed":
            if difference.item and difference.section != TOOLCHAIN:
                return "only in the lock"
            return "only in the lock, nothing uses it"
        case "incomplete":
            return "its files are not in the lock yet"
        case _:
            return ", ".join(_change(field, old, new) for field, (old, new) in difference.values.items())


def _change(field: str, old: Any, new: Any) -> str:
    if field == "size":
        return f"size {old} -> {new} bytes"
    return f"{field} {'none' if old is None else short(old)} -> {short(new)}".lstrip()


def _about(pin: Mapping[str, Any]) -> str:
    """`commit 0123456789ab, 4 files, 269.1 MB`."""
    parts = [f"commit {short(pin['commit'])}"] if "commit" in pin else []
    files = pin.get("files", {})
    if files:
        parts.append(counted(len(files)))
        if all("size" in entry for entry in files.values()):
            parts.append(size(sum(entry["size"] for entry in files.values())))
    return ", ".join(parts)


def short(text: str) -> str:
    """Digests and commits cut to 12 digits."""
    return _LONG_HEX.sub(r"\1", str(text))


def difference_lines(lines: Sequence[str], style: Style) -> str:
    """The lines as a block below a heading, wrapped to the width, their signs coloured."""
    block = []
    for line in lines:
        wrapped = wrap(line, style.width, "  ", "      ")
        wrapped[0] = f"  {style.paint(line[0], _COLORS[line[0]])}{wrapped[0][3:]}"
        block += wrapped
    return "\n".join(block)
