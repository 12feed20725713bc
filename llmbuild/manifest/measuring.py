"""What measures and calibrates weights: libraries for one fixed CPU target, whatever platforms a manifest builds for.

The target is this machine's baseline CPU (x86-64-v3 on x86-64), not its own: the same library on every machine of a kind.
Activations stay floats, so that what is measured is the loss of the weights; without rounded ones there is also nothing for a
library to choose at run time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llmbuild.manifest.opt import DEFAULT_LEVEL, parse_opt, resolve_opt
from llmbuild.manifest.project import Platform
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.targets.files import load_target
from llmbuild.targets.names import TargetNames, host_target

MEASURING = "measuring"
"""The platform in the labels of these libraries; no platform of a manifest may have this name."""

REFERENCE = "reference"
"""The scheme in the labels of what quantized weights are compared with; no scheme of a manifest may have this name."""

REFERENCE_SCHEME = SCHEMES["q0f32"]
"""Exact for every checkpoint: float16 and bfloat16 are float32 numbers, and so are the values of weights that come quantized."""

CALIBRATING = "calibrating"
"""The platform in the labels of libraries with taps; no platform of a manifest may have this name."""

CALIBRATING_TARGET = "x86_64-linux-cpu"
"""One for all machines, so that statistics are the same result everywhere: machines of other kinds take them from a cache."""

CHUNK = 256
"""The tokens of a step: logits of so many positions are in memory at a time."""


def measuring_platform() -> tuple[Platform | None, tuple[Path, ...]]:
    """The platform, None where llmbuild has no target for this machine's CPU; and the files that it was read from."""
    name = host_target()
    return (None, ()) if name not in TargetNames().own else _platform(MEASURING, name)


def calibrating_platform() -> tuple[Platform, tuple[Path, ...]]:
    """The platform of libraries with taps, and the files that it was read from."""
    platform, files = _platform(CALIBRATING, CALIBRATING_TARGET)
    return replace(platform, by_machine=False, taps=True), files


def calibrates_here() -> bool:
    """Whether this machine runs these libraries."""
    return host_target() == CALIBRATING_TARGET


def _platform(name: str, target_name: str) -> tuple[Platform, tuple[Path, ...]]:
    target = load_target(target_name)
    flags, _ = resolve_opt(parse_opt(target.opt or DEFAULT_LEVEL), target.kind.name)
    platform = Platform(
        name=name,
        target=target_name,
        compile=target.compile_part(),
        link=target.link_part(),
        artifact=target.artifact,
        metadata={"prefill-chunk-size": CHUNK},
        opt=flags,
        system_lib_prefix=None,
        activations="float",
        tools=[{"command": tool.command, "install": tool.install} for tool in target.tools],
        by_machine=True,
    )
    return platform, target.files
