"""Notes: what is worth saying of a manifest although it is not wrong."""

from __future__ import annotations

from collections.abc import Iterable


def told(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """(place, text) to a line for each text with all its places: `platforms.a, platforms.b: text`.

    A matrix has many platforms, and what is said of one of them is often true of most.
    """
    places: dict[str, dict[str, None]] = {}
    for place, text in notes:
        places.setdefault(text, {})[place] = None
    return tuple(f"{', '.join(found)}: {text}" for text, found in places.items())
