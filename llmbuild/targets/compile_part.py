"""The compile part of a resolved target, as `lower` and the planner read it: {"device": …, "host": …}."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json

CPU = "llvm"
"""TVM's kind of every host, and of a device that is its own host."""


def device_kind(compile_part: Mapping[str, Json]) -> str:
    """The device's kind of TVM target.  A part that was not made from a target file may name a CPU "cpu"."""
    device = compile_part.get("device")
    return str(device["kind"]) if isinstance(device, Mapping) else CPU


def is_cpu(compile_part: Mapping[str, Json]) -> bool:
    """Whether the library is for a CPU, which is its own host: its caller runs on the device itself."""
    return device_kind(compile_part) == CPU
