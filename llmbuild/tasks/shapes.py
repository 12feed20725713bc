"""The shape of the parameters and inputs of each kind.

A planned task has it by construction.  A recorded action may come from another machine (`llmbuild exec`), and is compared with
this table before it runs: a kind's own code trusts its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llmbuild.canonical import Json
from llmbuild.conversation.templates import CHECKPOINT, CHECKPOINT_ANYWAY

Shape: TypeAlias = "Callable[[Any], bool]"

_MOST_NUMBER = 1 << 63
_DTYPES = ("float16", "bfloat16", "float32")
_METADATA = (
    "context-window-size",
    "sliding-window-size",
    "prefill-chunk-size",
    "attention-sink-size",
    "max-batch-size",
    "tensor-parallel-shards",
    "pipeline-parallel-stages",
    "disaggregation",
)


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) is int and -_MOST_NUMBER < value <= _MOST_NUMBER


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _one_of(*words: str) -> Shape:
    return lambda value: isinstance(value, str) and value in words


def _optional(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _command(value: Any) -> bool:
    return _text(value) or (_words(value) and bool(value))


def _settings(names: tuple[str, ...]) -> Shape:
    """Some of these names with numbers, and the last one with a truth value."""
    return lambda value: (
        isinstance(value, Mapping)
        and value.keys() <= set(names)
        and all(_optional(_flag if name == names[-1] else _number)(one) for name, one in value.items())
    )


def _table(needed: Mapping[str, Shape], others: Mapping[str, Shape] | None = None) -> Shape:
    known = {**needed, **(others or {})}
    return lambda value: (
        isinstance(value, Mapping)
        and needed.keys() <= value.keys() <= known.keys()
        and all(known[name](one) for name, one in value.items())
    )


def _each(shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and all(map(shape, value))


WIDTHS = (3, 4, 8)
"""The bits that weights may be packed in."""


def _width(value: Mapping[str, Any], widths: tuple[int, ...]) -> bool:
    """Whether a group fills whole words of its bits."""
    bits, group = value["bits"], value["group_size"]
    return group == 0 if bits == 0 else bits in widths and group > 0 and group % (32 // bits) == 0


def _layers(value: Any) -> bool:
    from llmbuild.quantization.overrides import layer_ranges

    try:
        return _text(value) and bool(layer_ranges(value))
    except ValueError:
        return False


_override_table = _table({"match": _text, "bits": _number, "group_size": _number, "layers": _optional(_layers)})


def _override(value: Any) -> bool:
    return _override_table(value) and _width(value, WIDTHS)


_scheme_table = _table(
    {"name": _text, "bits": _number, "dtype": _one_of(*_DTYPES), "group_size": _number}
    | {"layout": _one_of("NK", "KN", "AWQ"), "quantize_embedding": _flag, "quantize_head": _flag},
    {"overrides": _each(_override)},
)


def _scheme(value: Any) -> bool:
    if not _scheme_table(value):
        return False
    packed = value["layout"] == "AWQ"
    if value["bits"] == 0 and packed:
        return False
    return _width(value, (4,) if packed else WIDTHS) and not (packed and value.get("overrides"))


def _tvm_target(value: Any) -> bool:
    # Its other attributes are those of TVM, which refuses unknown ones.
    return isinstance(value, Mapping) and _text(value.get("kind"))


def _conversation(value: Any) -> bool:
    return value in (CHECKPOINT, CHECKPOINT_ANYWAY) if isinstance(value, str) else _mapping(value)


def _device(value: Any) -> bool:
    return _text(value) or _tvm_target(value)


_link = _table(
    {},
    {"flags": _words, "needed": _words, "environment": _words, "compiler": _command}
    | {"triple": _text, "linker": _text, "minimum-os": _text},
)


def _named(shape: Shape) -> Shape:
    """Any names, each with a value of this shape."""
    return lambda value: isinstance(value, Mapping) and all(map(_text, value)) and all(map(shape, value.values()))


def _file_name(value: Any) -> bool:
    return _text(value) and value not in ("", ".", "..") and "/" not in value


_packaged_platform = _table(
    {"name": _file_name, "artifact": _one_of("so", "dylib", "dll", "tar", "wasm")}
    | {"triple": _text, "device": _text, "prefix": _text}
)
_packaged_library = _table({"platform": _packaged_platform, "file": _text, "record": _text})
_packaged_member = _table(
    {"model": _file_name, "scheme": _file_name, "files": _words, "libraries": _each(_packaged_library)}
)
_architecture = _optional(_table({"name": _text, "sha256": _text}))
_PARAMS: Mapping[str, Mapping[str, Shape]] = {
    "inspect": {
        "model-type": _optional(_text),
        "ignore-keys": _words,
        "source-format": _optional(_text),
        "architecture": _architecture,
    },
    "quantize": {
        "scheme": _scheme,
        "method": _one_of("round", "search", "calibrated"),
        "model-type": _optional(_text),
        "ignore-keys": _words,
        "source-format": _optional(_text),
        "float32": _one_of("bf16", "exact"),
        "architecture": _architecture,
    },
    "config": {
        "quantization": _text,
        "model-type": _optional(_text),
        "ignore-keys": _words,
        "conversation": _conversation,
        "system-prompt": _optional(_text),
        "metadata": _settings(_METADATA),
        "generation": _mapping,
        "preset": _optional(_mapping),
        "architecture": _architecture,
    },
    "lower": {
        "scheme": _scheme,
        "overrides": _settings(tuple(name.replace("-", "_") for name in _METADATA)),
        "target": _table({"device": _device, "host": _tvm_target}, {"archs": _words}),
        "opt": _optional(_mapping),
        "activations": _optional(_one_of("int8x2", "int8", "float")),
        "system-lib": _flag,
        "system-lib-prefix": _optional(_text),
        "requires": _words,
        "taps": _flag,
        "architecture": _architecture,
    },
    "link": {
        "artifact": _one_of("so", "dylib", "dll", "tar", "wasm"),
        "link": _link,
        "system-lib-prefix": _optional(_text),
        "name": _optional(lambda value: _text(value) and "/" not in value),
    },
    "join": {"libraries": _named(_text)},
    "package": {
        "kind": _text,
        "options": _mapping,
        "members": _each(_packaged_member),
        "archives": _named(_text),
        "sources": _named(_text),
    },
    "runtime": {"compiler": _optional(_command)},
    "text": {"sha256": _text},
    "calibrate": {"tokens": _number},
}
_INPUTS: Mapping[str, tuple[Mapping[str, bool], Mapping[str, bool]]] = {
    "inspect": ({"checkpoint": True}, {"adapter": True}),
    "quantize": ({"checkpoint": True, "facts": False}, {"adapter": True, "importance": True}),
    "config": ({}, {"checkpoint": True, "facts": False}),
    "lower": ({"config": False}, {}),
    "link": ({"objects": True}, {"runtime": True, "library": False}),
    "runtime": ({}, {}),
    "text": ({}, {}),
    "calibrate": (
        dict.fromkeys(("weights", "library", "tokenizer", "text"), True),
        {},
    ),
}
"""The inputs that a kind has and those that it may have, and whether they are directories."""


def _package_inputs(params: Mapping[str, Any]) -> set[str]:
    members = params["members"]
    libraries = [library for member in members for library in member["libraries"]]
    return {
        *(name for member in members for name in member["files"]),
        *(library[part] for library in libraries for part in ("file", "record")),
        *params["archives"].values(),
        *params["sources"].values(),
    }


_NAMED_INPUTS: Mapping[str, Callable[[Mapping[str, Any]], set[str]]] = {
    "join": lambda params: set(params["libraries"]),
    "package": _package_inputs,
}
"""The inputs of the kinds whose parameters name them; all are directories."""


def wrong_part(kind: str, params: Mapping[str, Json], inputs: Mapping[str, bool]) -> str | None:
    """The first part of an action that is not of its kind's shape; None where all are, or the kind has no table.

    `inputs` maps each to whether it is a directory.
    """
    for name, shape in _PARAMS.get(kind, {}).items():
        if not shape(params.get(name)):
            return f"its {name} is none of a {kind} task"
    named = _NAMED_INPUTS.get(kind)
    needed, others = _INPUTS.get(kind, (inputs, {})) if named is None else (dict.fromkeys(named(params), True), {})
    if not needed.items() <= inputs.items() <= {**needed, **others}.items():
        return f"its inputs are none of a {kind} task"
    if kind == "config" and any((params.get("preset") is None) != (name in inputs) for name in ("checkpoint", "facts")):
        return "it has neither a checkpoint with its facts nor a preset, or both"
    return None
