"""Queries that grow with the logarithm of their position, by a number in the object of RoPE (`llama_4_scaling_beta`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmbuild.canonical import Json
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import ORIGINAL
from llmbuild.models.rows import Reading, Row
from llmbuild.models.scaling import read_scaling
from llmbuild.models.spec import TemperatureSpec
from llmbuild.models.values import ConfigValues

BETA = "llama_4_scaling_beta"


def with_beta_beside(source: ConfigValues) -> Mapping[str, Json]:
    """The content of a config.json with the number beside the object, which then has RoPE's own keys.

    Raises InputError where it is missing, as transformers needs it.
    """
    values = dict(source.values)
    place = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    found = values.get(place)
    if isinstance(found, Mapping):
        beta = found.get(BETA)
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not math.isfinite(beta):
            what = "is missing" if beta is None else "must be a number"
            raise source.error(f"{place}.{BETA}", what, why="queries of this model grow by it with their position")
        values |= {place: {name: value for name, value in found.items() if name != BETA}, "query_beta": beta}
    return values


def _rope(c: Reading) -> Mapping[str, Any] | None:
    """MLC's name of the scaling, with the number by which queries grow."""
    source, written = c.source, c.source.values.get("rope_parameters")
    found = written if isinstance(written, Mapping) else source.values.get("rope_scaling")
    scaling = read_scaling(
        source.but({**source.values, "rope_scaling": found}),
        c.position_embedding_base,
        c.head_dim,
        c.context_window_size,
        rolling=c.sliding_window_size != -1,
    )
    return scaling if scaling is None else {BETA: source.values.get("query_beta"), **scaling}


def temperature_of(c: ModelConfig) -> TemperatureSpec | None:
    """By how much queries grow; None where the context has no position at which they do."""
    scaling: Mapping[str, Any] = c.rope_parameters or {BETA: None}
    if not scaling[BETA] or c.context_window_size <= scaling[ORIGINAL]:
        return None
    return TemperatureSpec(scaling[BETA], int(scaling[ORIGINAL]))


ROPE_PARAMETERS = Row("rope_parameters", _rope)
