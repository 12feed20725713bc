"""The families by model type, and how a checkpoint's configuration names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where, did_you_mean
from llmbuild.models import families as _package
from llmbuild.models.architecture import DecoderFamily

_LISTED = "choose another checkpoint: docs/models.md lists the architectures that llmbuild builds"


@cache
def families() -> Mapping[str, DecoderFamily]:
    """Every supported family, by MLC's name of its model type: those of the files in `llmbuild.models.families`."""
    names = sorted(info.name for info in iter_modules(_package.__path__))
    found = [import_module(f"llmbuild.models.families.{name}").FAMILY for name in names]
    remote = frozenset(name for item in found for name, one in item.classes.items() if one.remote)
    return {item.model_type: replace(item, others=remote) for item in found}


def family(model_type: str) -> DecoderFamily:
    """The family of this model type; raises InputError with the nearest names."""
    try:
        return families()[model_type]
    except KeyError:
        raise InputError(
            f"unknown model type '{model_type}'",
            why=did_you_mean(model_type, families()),
            fix="docs/models.md lists the model types",
        ) from None


def infer_model_type(config: Mapping[str, Json]) -> str:
    """The model type of a config.json's content, from its `architectures` and `model_type`; raises InputError.

    `architectures` decides where it is present: a model_type of "llama" does not exclude a classifier's head.
    """
    by_architecture = {name: item.model_type for item in families().values() for name in item.architectures}
    by_class = {name: item.model_type for item in families().values() for name in item.classes}
    names = config.get("architectures")
    model_type = config.get("model_type")
    if isinstance(names, (list, tuple)) and names:
        found = {by_architecture[name]: name for name in names if isinstance(name, str) and name in by_architecture}
        if len(found) > 1:
            raise InputError(
                f"architectures of two families: {', '.join(found.values())}",
                where=Where("config.json", key="architectures"),
                why="they compute differently",
                fix="keep the one that the weights are of",
            )
        if found:
            return next(iter(found))
        raise InputError(
            f"architecture {', '.join(repr(name) for name in names)} is not supported",
            where=Where("config.json", key="architectures"),
            fix=_LISTED,
        )
    if isinstance(model_type, str) and model_type in by_class:
        return by_class[model_type]
    if model_type is None:
        raise InputError(
            "the configuration names neither 'architectures' nor 'model_type'",
            where="config.json",
            fix="set the model's model-type in the manifest",
        )
    raise InputError(
        f"model type {model_type!r} is not supported",
        where=Where("config.json", key="model_type"),
        why=did_you_mean(str(model_type), by_class),
        fix=_LISTED,
    )
