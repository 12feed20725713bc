"""Optimization flags: those that a manifest requests, and those that a target supports.

The flags and the levels O0 to O3 are those of `mlc_llm compile --opt`.  Every one of them selects a CUDA library or a CUDA
feature (cuBLAS also ROCm), so that a target without CUDA has them off.  A level requests as much as the target supports and is
narrowed silently; a flag that was requested by name and is not supported is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.errors import did_you_mean
from llmbuild.printable import either
from llmbuild.targets.kinds import device_kind, kind_names

STRATEGIES = ("NONE", "ONESHOT", "TWOSHOT", "AUTO")
STRATEGY = "ipc_allreduce_strategy"
SWITCHES = ("flashinfer", "cublas_gemm", "faster_transformer", "cudagraph", "cutlass")
FLAGS = (*SWITCHES, STRATEGY)
DEFAULT_LEVEL = "O2"
BUILT = frozenset({"cudagraph"})
"""The flags that llmbuild acts on; the others select libraries that no TVM on PyPI is built with."""


def _level(switches: str, strategy: str = "NONE") -> Mapping[str, Json]:
    on = switches.split()
    return {**{flag: flag in on for flag in SWITCHES}, STRATEGY: strategy}


LEVELS: Mapping[str, Mapping[str, Json]] = {
    "O0": _level(""),
    "O1": _level("cublas_gemm faster_transformer cutlass"),
    "O2": _level("flashinfer cublas_gemm cudagraph cutlass"),
    "O3": _level("flashinfer cublas_gemm faster_transformer cudagraph cutlass", "AUTO"),
}

# The base of `--opt "flag=1;…"` when it names no level.
_UNNAMED = _level("flashinfer")

# The documentation of 2024 has two flags where there is one today.
_OLDER = {"cutlass_attn": "cutlass", "cutlass_norm": "cutlass"}


@dataclass(frozen=True, slots=True)
class Opt:
    """Flags as requested: `flags` has every flag, `named` those that were requested by name."""

    flags: Mapping[str, Json]
    named: frozenset[str] = frozenset()


def parse_opt(text: str) -> Opt:
    """From `"O2"`, `"cutlass=1;cublas_gemm=0"` or `"O2;cudagraph=0"`.  Raises ValueError with a sentence for the user."""
    level: str | None = None
    named: dict[str, Json] = {}
    for number, part in enumerate(piece.strip() for piece in text.split(";")):
        if not part:
            continue
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals and number == 0:
            level = name
        elif not equals:
            raise ValueError(f"'{part}' is not of the form flag=value")
        else:
            _put(named, name.removeprefix("--"), value)
    if level is None and not named:
        raise ValueError(f"is empty; give a level ({', '.join(LEVELS)}) or flags (cublas_gemm=1;cutlass=0)")
    return make_opt(level, named)


def _put(named: dict[str, Json], name: str, value: str) -> None:
    flag = _OLDER.get(name, name)
    if flag not in FLAGS:
        raise ValueError(unknown_flag(name))
    if flag == STRATEGY:
        if value not in STRATEGIES:
            raise ValueError(f"{name} must be one of {', '.join(STRATEGIES)}, not '{value}'")
        named[flag] = value
        return
    if value not in ("0", "1"):
        raise ValueError(f"{name} must be 0 or 1, not '{value}'")
    on = value == "1"
    # `cutlass_attn=1;cutlass_norm=0` requests a part of what is one switch today: it is on if any part is.
    named[flag] = bool(named.get(flag)) or on if name in _OLDER else on


def unknown_flag(name: str) -> str:
    return f"unknown flag '{name}'; {did_you_mean(name, FLAGS) or 'known are ' + ', '.join(FLAGS)}"


def make_opt(level: str | None, named: Mapping[str, Json]) -> Opt:
    """A level (None: what single flags start from) with flags on top.  Raises ValueError for an unknown level."""
    if level is not None and level not in LEVELS:
        raise ValueError(f"unknown level '{level}'; known are {', '.join(LEVELS)}")
    base = _UNNAMED if level is None else LEVELS[level]
    return Opt({**base, **named}, frozenset(named))


def resolve_opt(opt: Opt, kind: str, scheme: str | None = None) -> tuple[Mapping[str, Json], tuple[str, ...]]:
    """The flags that a device kind (and a scheme, when given) supports, and a sentence for each named one that changes nothing.

    cuBLAS multiplies only unquantized and fp8 weights, as in `mlc_llm compile`.
    """
    flags = dict(opt.flags)
    notes = []
    possible = device_kind(kind).opt_flags
    for flag in FLAGS:
        off: Json = "NONE" if flag == STRATEGY else False
        refused = flag == "cublas_gemm" and scheme is not None and not _cublas_can(scheme)
        if flags[flag] == off or (flag in possible and not refused):
            if flags[flag] != off and flag in opt.named and flag not in BUILT:
                notes.append(f"{flag} was asked for and has no effect: no TVM on PyPI has its library")
            continue
        if flag in opt.named:
            why = f"it multiplies unquantized and fp8 weights only, and the scheme is {scheme}"
            if flag not in possible:
                why = f"it needs {either(_devices(flag))} and the device is {kind}"
            notes.append(f"{flag} was asked for and has no effect: {why}")
        flags[flag] = off
    return flags, tuple(notes)


def _devices(flag: str) -> Iterator[str]:
    """The device kinds that support a flag."""
    return (name for name in kind_names() if flag in device_kind(name).opt_flags)


def _cublas_can(scheme: str) -> bool:
    return scheme.startswith("q0") or "e4m3" in scheme or "e5m2" in scheme
