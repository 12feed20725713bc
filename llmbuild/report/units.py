"""Numbers as people read them."""

from __future__ import annotations


def seconds(value: float) -> str:
    """`0.03 s`, `1.2 s`, `75 s` becomes `1 min 15 s`, and hours likewise."""
    if value < 0.1:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(value: float) -> str:
    """Bytes in decimal units: `512 B`, `1.5 kB`, `105.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def amount(done: int, total: int, unit: str) -> str:
    """How far a task is: `52.1 MB of 105.5 MB`, `3 of 30 layers`, `1 of 1 library`, `3 files`."""
    if unit == "bytes":
        return f"{size(done)} of {size(total)}" if total else size(done)
    words = f"{done} of {total}" if total else str(done)
    return f"{words} {_one(unit) if (total or done) == 1 else unit}".rstrip()


def _one(unit: str) -> str:
    """A unit in the singular: a layer, a library."""
    return f"{unit[:-3]}y" if unit.endswith("ies") else unit.removesuffix("s")


def files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"
