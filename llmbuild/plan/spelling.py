"""The field's words for the paths and values of a key: `overrides/context_window_size` reads `context-window-size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmbuild.canonical import Json

_SILENT = ("options/", "overrides/", "metadata/", "generation/", "scheme/", "files/")
"""Tables whose members are shown by their own name."""

_SPACED = {"group_size", "quantize_embedding", "quantize_head"}
"""Parts of a scheme, which people write as words; everything else is a manifest key in kebab-case."""

_PREFIXES = {
    "conversation/": "conversation template ",
    "target/": "target ",
    "link/": "link ",
    "opt/": "opt ",
    "source/": "source ",
    "model_config/": "",
}


def words(path: str) -> str:
    """How a person names the leaf at this path."""
    if path == "conversation":
        return "conversation template"
    for prefix in _SILENT:
        path = path.removeprefix(prefix)
    lead = ""
    for prefix, said in _PREFIXES.items():
        if path.startswith(prefix):
            path, lead = path.removeprefix(prefix), said
            break
    if path in _SPACED:
        return lead + path.replace("_", " ")
    return lead + " ".join(part.replace("_", "-") for part in path.removeprefix("spec/").split("/"))


def spell(value: Json, limit: int = 40) -> str:
    """A value on one line, as a manifest would write it, cut to `limit` characters with an ellipsis."""
    match value:
        case None:
            text = "none"
        case bool():
            text = "true" if value else "false"
        case str():
            text = value if value and not any(mark in value for mark in " \n\t\"'") else _quoted(value)
        case {"name": str(name), "roles": _}:
            text = name  # A conversation template.
        case Mapping() | Sequence():
            import json

            text = json.dumps(value, ensure_ascii=False)
        case _:
            text = str(value)
    if len(text) == 64 and all(mark in "0123456789abcdef" for mark in text):
        return text[:12]
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quoted(value: str) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
