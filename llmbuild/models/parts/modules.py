"""Modules below dotted names, as a description's `Names` have them, and the scaling of a tensor."""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend import nn


def place(module: nn.Module, name: str, child: nn.Module | nn.ModuleList) -> None:
    """Declare a child of a module at a dotted name, with empty modules on the way."""
    first, _, rest = name.partition(".")
    if not rest:
        setattr(module, first, child)
        return
    if not hasattr(module, first):
        setattr(module, first, nn.Module())
    place(getattr(module, first), rest, child)


def at(module: nn.Module, name: str) -> Any:
    """The module at a dotted name."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


def scaled(x: nn.Tensor, factor: float) -> nn.Tensor:
    """The tensor times a number; a factor of 1 adds nothing to the program."""
    return x if factor == 1 else x * factor
