"""Metadata: the seed's override string, and the constraints between sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmbuild.errors import did_you_mean
from llmbuild.targets.kinds.device_kind import DeviceKind
from llmbuild.tomlfile import KeyPath, dotted

SIZES = (
    "context-window-size",
    "sliding-window-size",
    "prefill-chunk-size",
    "attention-sink-size",
    "max-batch-size",
    "tensor-parallel-shards",
    "pipeline-parallel-stages",
)
DISAGGREGATION = "disaggregation"
METADATA_KEYS = (*SIZES, DISAGGREGATION)

# The seed document calls one of the overrides `sliding_window`, and one option `--tensor-parallel-shard`.
_OLDER = {"sliding-window": "sliding-window-size", "tensor-parallel-shard": "tensor-parallel-shards"}
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def parse_overrides(text: str) -> Mapping[str, int]:
    """From `"context_window_size=1024;prefill_chunk_size=128"`, with kebab-case keys.  Raises ValueError with a sentence."""
    values: dict[str, int] = {}
    for part in (piece.strip() for piece in text.split(";")):
        if not part:
            continue
        written, equals, value = (word.strip() for word in part.partition("="))
        key = written.removeprefix("--").replace("_", "-")
        key = _OLDER.get(key, key)
        if not equals:
            raise ValueError(f"'{part}' is not of the form name=value")
        if key not in METADATA_KEYS:
            known = [name.replace("-", "_") for name in METADATA_KEYS]
            hint = did_you_mean(written, known) or f"known are {', '.join(known)}"
            raise ValueError(f"unknown name '{written}'; {hint}")
        if key in values:
            raise ValueError(f"{written} is given twice")
        values[key] = _number(written, key, value)
    if not values:
        raise ValueError("is empty; write for example context_window_size=1024")
    return values


def _number(written: str, key: str, value: str) -> int:
    if key == DISAGGREGATION:
        if value.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(f"{written} must be true or false, not '{value}'")
        return value.lower() in _TRUE
    try:
        number = int(value)
    except ValueError:
        raise ValueError(f"{written} must be a whole number, not '{value}'") from None
    least = 0 if key == "attention-sink-size" else 1
    if number < least and not (key == "sliding-window-size" and number == -1):
        raise ValueError(f"{written} must be at least {least}, not {number}")
    return number


@dataclass(frozen=True, slots=True)
class PrecedenceLevel:
    """Values of one precedence level, and the key path where each of them was written.

    `from_target` marks the target's defaults, which are not in the manifest; their paths are the platform's.
    """

    values: Mapping[str, int]
    paths: Mapping[str, KeyPath]
    from_target: bool = False


Complain = Callable[[KeyPath, str, str], None]
"""Called with a key path, the error there, and the fix."""


def check_sizes(layers: Sequence[PrecedenceLevel], kind: DeviceKind, complain: Complain, *, several: bool) -> None:
    """Check the effective values of one library; `layers` come with the lowest precedence first.

    Only values that the manifest or the target sets are compared: a checkpoint's values are checked when it is read.  `several`
    is true where devices of this kind can share a model.
    """
    origin: dict[str, PrecedenceLevel] = {key: layer for layer in layers for key in layer.values}
    values = {key: layer.values[key] for key, layer in origin.items()}

    def spoken(key: str, seen_from: str) -> str:
        layer, other = origin[key], origin[seen_from]
        if layer.from_target:
            return f"the target's {key} {values[key]}"
        same_table = layer.paths[key][:-1] == other.paths[seen_from][:-1]
        return f"{key if same_table else dotted(layer.paths[key])} {values[key]}"

    def compare(key: str, other: str, *, strict: bool) -> None:
        # A target's own value is a default: it is cut to what the manifest sets.
        if key not in values or values.get(other, 0) <= 0 or origin[key].from_target:
            return
        if values[key] > values[other] or (strict and values[key] == values[other]):
            relation = "must be less than" if strict else "is more than"
            what = f"{key} {values[key]} {relation} {spoken(other, key)}"
            complain(origin[key].paths[key], what, f"lower {key} or raise {other}")

    if values.get("sliding-window-size", 0) <= 0:
        compare("prefill-chunk-size", "context-window-size", strict=False)
    compare("attention-sink-size", "sliding-window-size", strict=True)
    spoken_kind = kind.spoken or kind.name
    for key in ("tensor-parallel-shards", "pipeline-parallel-stages"):
        if values.get(key, 1) <= 1:
            continue
        what = f"{key} {values[key]} is not built yet: a library computes on one device"
        if not several:
            what = f"{key} {values[key]} needs several GPUs, and the build has a {spoken_kind} platform"
        # No platform can have another value for now, so that nothing is gained by excluding this one.
        complain(origin[key].paths[key], what, f"set {key} = 1, or remove it")
