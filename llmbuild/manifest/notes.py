"""Notes: remarks on a manifest that are not errors."""

from __future__ import annotations

from collections.abc import Iterable


def told(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """(place, text) to a line for each text with all its places: `platforms.a, platforms.b: text`.

    A matrix has many platforms, and a note on one of them often applies to most.
    """
    places: dict[str, dict[str, None]] = {}
    for place, text in notes:
        places.setdefault(text, {})[place] = None
    return tuple(f"{', '.join(found)}: {text}" for text, found in places.items())
