"""Pre-defined architectures: a model that is named instead of fetched builds its library without weights.

The data is in `data/`, a file for models of one kind: the content of each one's public config.json, as far as it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import InputError, did_you_mean

_DATA = Path(__file__).parent / "data"


@cache
def _table() -> tuple[Mapping[str, Mapping[str, Json]], Mapping[str, str]]:
    """(name -> config, alias -> name)."""
    entries: dict[str, Any] = {}
    for path in sorted(_DATA.glob("*.json")):
        entries |= json.loads(path.read_text(encoding="utf-8"))
    aliases = {alias: name for name, entry in entries.items() for alias in entry["aliases"]}
    return {name: entry["config"] for name, entry in entries.items()}, aliases


def presets() -> Mapping[str, Mapping[str, Json]]:
    """Every preset's config.json content by its own name, aliases left out."""
    return _table()[0]


def aliases() -> Mapping[str, str]:
    """Every other name of a preset, and the preset's own."""
    return _table()[1]


def preset(name: str) -> Mapping[str, Json]:
    """The config.json content of a preset, by its name or an alias (MLC's names are aliases); raises InputError."""
    configs, others = _table()
    try:
        return configs[others.get(name, name)]
    except KeyError:
        raise InputError(
            f"unknown preset '{name}'",
            why=did_you_mean(name, [*configs, *others]),
            fix="docs/models.md lists the presets",
        ) from None
