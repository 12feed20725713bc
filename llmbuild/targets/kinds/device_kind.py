"""A device kind as targets use it: its attributes, number types, architectures and optimization flags.

The attributes are those that TVM 0.27 accepts for the kind (`Target` refuses others); a test compares the two lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmbuild.errors import did_you_mean

_COMMON: Mapping[str, type] = {
    "keys": list,
    "tag": str,
    "device": str,
    "model": str,
    "libs": list,
    "target_device_type": int,
}
LIMITS = "max_num_threads max_threads_per_block max_shared_memory_per_block thread_warp_size"
"""The attributes of most GPUs: a block's threads and memory, and how many threads run in step."""


def attributes(integers: str = "", booleans: str = "", strings: str = "", lists: str = "") -> Mapping[str, type]:
    """The attributes that every kind has, and those of these names by type."""
    return {
        "kind": str,
        **_COMMON,
        **dict.fromkeys(integers.split(), int),
        **dict.fromkeys(booleans.split(), bool),
        **dict.fromkeys(strings.split(), str),
        **dict.fromkeys(lists.split(), list),
    }


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One of TVM's target kinds; each field but the first two has a default that suits most GPUs."""

    name: str
    attributes: Mapping[str, type]
    dtypes: tuple[str, ...] = ("float32", "float16")
    """The number types that its kernels can compute in."""
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a library in such a type requires of the device that runs it, in the terms of the device's own interface."""
    attribute_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a library requires of the device besides, where an attribute is true."""
    runtime_limits: Mapping[str, int] = field(default_factory=dict)
    """The largest values of attributes that the runtimes of the kind ask a device for."""
    archs: tuple[str, ...] = ()
    """The architectures that `[device] archs` may name; empty where code is generated for the kind as a whole."""
    one_arch: bool = False
    """Whether a library contains code for one architecture only."""
    arch_attribute: str = "mcpu"
    """TVM's attribute for the architecture that schedules are chosen for."""
    warps: Mapping[str, int] = field(default_factory=dict)
    """Lanes of a warp by the beginning of an architecture's name, where they differ."""
    several: bool = False
    """Whether several devices can share a model."""
    opt_flags: frozenset[str] = frozenset()
    """The optimization flags that can have an effect."""
    extra: str = ""
    """The extra of llmbuild that installs a compiler for the kind where no other is installed."""
    spoken: str = ""
    """The kind's name in messages, where that is another one."""
    generator_from: str = ""
    """The TVM that has a code generator for the kind, where building with the kind enabled is not enough."""

    def unknown_attribute(self, name: str) -> str | None:
        """None for an attribute that the kind has, else a sentence that lists near or known ones."""
        if name in self.attributes:
            return None
        return did_you_mean(name, self.attributes) or f"known: {', '.join(sorted(self.attributes))}"

    def wrong_type(self, name: str, value: object) -> str | None:
        """`a whole number` and the like, when the value is not of the attribute's type."""
        kind = self.attributes[name]
        if kind is int:
            return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
        spoken = {bool: "true or false", str: "a string", list: "a list of strings"}[kind]
        return None if isinstance(value, kind) else spoken


def arch_order(arch: str) -> tuple[str, int, str]:
    """A natural sort key for architectures: sm_80, sm_90, sm_90a, sm_100."""
    found = re.fullmatch(r"([a-z_]+)([0-9]+)(.*)", arch)
    return (arch, 0, "") if found is None else (found[1], int(found[2]), found[3])


def unknown_arch(kind: DeviceKind, arch: str) -> str | None:
    """None for an architecture of the kind, else a sentence that lists near or known ones."""
    if arch in kind.archs:
        return None
    return did_you_mean(arch, kind.archs) or f"known: {', '.join(kind.archs)}"
