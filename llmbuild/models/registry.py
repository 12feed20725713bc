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
from llmbuild.models.wrappers import TEXT_OF, text_config

_LISTED = "choose another checkpoint: docs/models.md lists the architectures that llmbuild builds"


@cache
def families() -> Mapping[str, DecoderFamily]:
    """Every supported family, by MLC's name of its model type: those of the files in `llmbuild.models.families`."""
    found = map(_family_in, _modules())
    return {item.model_type: item for item in found}


def family(model_type: str) -> DecoderFamily:
    """The family of this model type, without a look at the others; raises InputError with the nearest names."""
    name = model_type.replace("-", "_")
    if name in _modules():
        found = _family_in(name)
        if found.model_type == model_type:
            return found
    raise InputError(
        f"unknown model type '{model_type}'",
        why=did_you_mean(model_type, families()),
        fix="docs/models.md lists the model types",
    )


@cache
def _family_in(module: str) -> DecoderFamily:
    family: DecoderFamily = import_module(f"llmbuild.models.families.{module}").FAMILY
    return replace(family, others=_remote_types)


@cache
def _remote_types() -> frozenset[str]:
    """The model types of all families of which transformers has no class."""
    return frozenset(name for item in families().values() for name, one in item.classes.items() if one.remote)


def has_module(name: str) -> bool:
    """Whether llmbuild has a family in a module of this name."""
    return name in _modules()


@cache
def _modules() -> tuple[str, ...]:
    """The names of the modules, which are the model types with "_" for "-"."""
    return tuple(sorted(info.name for info in iter_modules(_package.__path__)))


@cache
def _by_architecture() -> Mapping[str, list[str]]:
    """The model types of each class's name, those first of which it is the first name."""
    names = [
        (item.architectures.index(name), name, item) for item in families().values() for name in item.architectures
    ]
    found: dict[str, list[str]] = {}
    for _, name, item in sorted(names, key=lambda one: one[0]):
        found.setdefault(name, []).append(item.model_type)
    return found


def infer_model_type(config: Mapping[str, Json]) -> str:
    """The model type of a config.json's content, from its `architectures` and `model_type`; raises InputError.

    `architectures` decides where it is present: a model_type of "llama" does not exclude a classifier's head.  Of two families
    with classes of one name it is the one of the model_type, or else the one whose first it is, and of a model with images that
    of its text.
    """
    config = text_config(config)
    by_architecture = _by_architecture()
    by_class = {name: item.model_type for item in families().values() for name in item.classes}
    names = config.get("architectures")
    model_type = config.get("model_type")
    if isinstance(names, (list, tuple)) and names:
        own = by_class.get(model_type) if isinstance(model_type, str) else None
        found = {
            own if own in by_architecture[name] else by_architecture[name][0]: name
            for name in names
            if isinstance(name, str) and name in by_architecture
        }
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
        where=Where("config.json", key="text_config.model_type" if TEXT_OF in config else "model_type"),
        why=did_you_mean(str(model_type), by_class),
        fix=_LISTED,
    )
