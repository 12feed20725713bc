"""Pre-defined architectures: a model that is named instead of fetched builds its library without weights.

The data is `presets.json`: the content of each model's public config.json, as far as it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import InputError, did_you_mean


@cache
def _table() -> tuple[Mapping[str, Mapping[str, Json]], Mapping[str, str]]:
    """(name -> config, alias -> name)."""
    entries = json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    aliases = {alias: name for name, entry in entries.items() for alias in entry["aliases"]}
    return {name: entry["config"] for name, entry in entries.items()}, aliases


def presets() -> Mapping[str, Mapping[str, Json]]:
    """Every preset's config.json content by its own name, aliases left out."""
    return _table()[0]


def preset(name: str) -> Mapping[str, Json]:
    """The config.json content of a preset, by its name or an alias (MLC's names are aliases); raises InputError."""
    configs, aliases = _table()
    try:
        return configs[aliases.get(name, name)]
    except KeyError:
        raise InputError(
            f"unknown preset '{name}'",
            why=did_you_mean(name, [*configs, *aliases]),
            fix=f"one of: {', '.join(configs)}",
        ) from None
