"""The families by model type, and how a checkpoint's configuration names one."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where, did_you_mean
from llmbuild.models import gpt_neox, llama, mistral, qwen2, qwen3
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.config_classes import CONFIG_CLASSES

FAMILIES: Mapping[str, DecoderFamily] = {
    module.FAMILY.model_type: module.FAMILY for module in (llama, mistral, gpt_neox, qwen2, qwen3)
}
"""Every supported family, by MLC's name of its model type."""


def family(model_type: str) -> DecoderFamily:
    """The family of this model type; raises InputError with the nearest names."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise InputError(
            f"unknown model type '{model_type}'",
            why=did_you_mean(model_type, FAMILIES),
            fix=f"one of: {', '.join(FAMILIES)}",
        ) from None


def infer_model_type(config: Mapping[str, Json]) -> str:
    """The model type of a config.json's content, from its `architectures` and `model_type`; raises InputError.

    `architectures` decides where it is present: a model_type of "llama" does not exclude a classifier's head.
    """
    by_architecture = {name: item.model_type for item in FAMILIES.values() for name in item.architectures}
    supported = f"supported architectures: {', '.join(by_architecture)}"
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
        what = f"architecture {', '.join(repr(name) for name in names)} is not supported"
        raise InputError(what, where=Where("config.json", key="architectures"), why=supported)
    if isinstance(model_type, str) and model_type in CONFIG_CLASSES:
        return CONFIG_CLASSES[model_type].family
    if model_type is None:
        raise InputError(
            "the configuration names neither 'architectures' nor 'model_type'",
            where="config.json",
            why=supported,
            fix="set the model's model-type in the manifest",
        )
    raise InputError(
        f"model type {model_type!r} is not supported",
        where=Where("config.json", key="model_type"),
        why=supported,
        fix=did_you_mean(str(model_type), FAMILIES),
    )
