"""What publishing changes at a destination, as text."""

from __future__ import annotations

from llmbuild.publishing.kind import Difference
from llmbuild.report.style import Style, wrapped
from llmbuild.report.units import files, size

_SIGNS = (("new", "+", "green"), ("changed", "~", "yellow"), ("removed", "-", "red"))


def difference_text(name: str, difference: Difference, style: Style) -> str:
    """A heading and a line for each file that is new, changed or removed."""
    if difference.empty:
        return f"{name}: nothing changed ({files(len(difference.same))})"
    lines = [f"{name}: {_summary(difference)}"]
    for field, sign, color in _SIGNS:
        for file in getattr(difference, field):
            first, *rest = wrapped(file, 4, style)
            lines += [f"  {style.paint(sign, color)} {first[4:]}", *rest]
    return "\n".join(lines)


def _summary(difference: Difference) -> str:
    counts = [
        f"{len(getattr(difference, field))} {field}"
        for field in ("new", "changed", "removed", "same")
        if getattr(difference, field)
    ]
    return f"{', '.join(counts)}, {size(difference.size)} to send" if counts else "nothing to send but its name"
