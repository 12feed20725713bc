"""The JSON schema of the manifest (draft 2020-12), with which editors complete and check TOML.

A closed set of names is an enum.  Where a project may have names of its own beside those that are known, such as targets and
schemes, both are allowed, and an editor offers the known ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmbuild.manifest.schema import ManifestTable
from llmbuild.version import __version__

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:llmbuild:manifest"
_FILE = r"[/\\]|\.(json|toml)$"


def json_schema() -> dict[str, Any]:
    """The schema.  TOML has no null, so none is offered."""
    schema: dict[str, Any] = _without_null(ManifestTable.model_json_schema(by_alias=True))
    for table in schema["properties"].values():
        if "patternProperties" in table:
            table["additionalProperties"] = False
    schema["$defs"]["ModelTable"]["oneOf"] = [{"required": ["source"]}, {"required": ["preset"]}]
    schema["required"] = ["models"]
    for (table, key), allow in _ALLOWED.items():
        found = schema["$defs"][table]["properties"][key]
        # The entries of a list, or of a value that is a string or a table, are what is named.
        inner = found.get("items") or next(
            (one for one in found.get("oneOf", ()) if one.get("type") == "string"), found
        )
        inner.update(allow())
        if "anyOf" in inner:
            inner.pop("type")
    head = {"$schema": DIALECT, "$id": ID, "$comment": f"made by llmbuild {__version__}", "title": "llmbuild manifest"}
    return {**head, **schema}


def _known(names: Iterable[str], other: Mapping[str, Any]) -> dict[str, Any]:
    """These names, and others of a form."""
    return {"anyOf": [{"enum": list(names)}, {"type": "string", **other}]}


def _presets() -> dict[str, Any]:
    from llmbuild.models.presets import aliases, presets

    return {"enum": [*presets(), *aliases()]}


def _model_types() -> dict[str, Any]:
    from llmbuild.models.registry import families

    return _known(sorted(families()), {})


def _templates() -> dict[str, Any]:
    from llmbuild.conversation.templates import CHECKPOINT, CHECKPOINT_ANYWAY, TEMPLATE_NAMES

    return _known((CHECKPOINT, CHECKPOINT_ANYWAY, *TEMPLATE_NAMES), {"pattern": _FILE})


def _schemes() -> dict[str, Any]:
    from llmbuild.quantization.scheme import SCHEMES

    return {"enum": list(SCHEMES)}


def _scheme_names() -> dict[str, Any]:
    from llmbuild.manifest.schema_table import NAME

    return _known(_schemes()["enum"], {"pattern": NAME})


def _targets() -> dict[str, Any]:
    from llmbuild.manifest.schema_table import NAME
    from llmbuild.targets.names import HOST, TargetNames

    names = TargetNames()
    # `host` is there on every machine, so that the schema is the same on all.
    return _known((*dict.fromkeys((HOST, *sorted(names.aliases))), *names.own), {"pattern": NAME})


def _platforms() -> dict[str, Any]:
    known = _targets()["anyOf"][0]["enum"]
    return _known((*known, "*"), {})


def _package_kinds() -> dict[str, Any]:
    from llmbuild.packages.kinds import kind_names

    return {"enum": list(kind_names())}


def _levels() -> dict[str, Any]:
    from llmbuild.manifest.opt import LEVELS

    return _known(LEVELS, {})


_ALLOWED: Mapping[tuple[str, str], Callable[[], dict[str, Any]]] = {
    ("ModelTable", "preset"): _presets,
    ("ModelTable", "model-type"): _model_types,
    ("ModelTable", "conv-template"): _templates,
    ("QuantizationTable", "base"): _schemes,
    ("PlatformTable", "target"): _targets,
    ("PlatformTable", "opt"): _levels,
    ("BuildTable", "quantizations"): _scheme_names,
    ("BuildTable", "platforms"): _platforms,
    ("ExcludeTable", "quantization"): _scheme_names,
    ("ExcludeTable", "platform"): _platforms,
    ("PackageTable", "kind"): _package_kinds,
}
"""By table and key: what the schema allows of names."""


def _without_null(node: Any) -> Any:
    """Drop `null` alternatives and defaults, and the titles that pydantic makes up from names."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {
        key: _without_null(value)
        for key, value in node.items()
        if not (key == "default" and value is None) and not (key == "title" and isinstance(value, str))
    }
    for union in ("anyOf", "oneOf"):
        options = cleaned.get(union)
        if isinstance(options, list) and {"type": "null"} in options:
            options.remove({"type": "null"})
            if len(options) == 1:
                del cleaned[union]
                cleaned = {**options[0], **cleaned}
    return cleaned
