"""Kernels for several levels of a CPU: a function for each, and one that chooses.

A kernel comes with the digests of those for its levels as an attribute (`with_levels`), which are stand-ins like itself.
AttachLevels makes them functions of the module, so that the passes reach them; nothing calls them.  DispatchLevels, after all
passes, puts a function in the kernel's place that asks what the CPU has and jumps to the best: by symbol, since code generation
makes an object of each level's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx

from llmbuild.canonical import parse_digest
from llmbuild.compiler.levels import LEVELS
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.stand_ins import digest_of, stand_in

LEVEL = "llmbuild.level"
"""The attribute of a kernel for one level: its name."""

CHOICE = "llmbuild.choice"
"""The attribute of a function that chooses.  It calls the others by symbol, so that none may be in its own object."""

_LEVELS = "llmbuild.levels"
"""The attribute of a kernel that exists for others: the digests of those by the level's name."""


def with_levels(kernel: Any, others: Mapping[Level, Any]) -> Any:
    """The stand-in of a kernel, with those of the same kernel for other levels."""
    return kernel.with_attr(_LEVELS, {level.name: digest_of(other) for level, other in others.items()})


def level_of(attributes: Any) -> Level | None:
    """The level of a function with these attributes."""
    return LEVELS[str(attributes[LEVEL])] if LEVEL in attributes else None


@tvm.transform.module_pass(opt_level=0, name="AttachLevels")
class AttachLevels:
    """See the module's docstring.  The functions' symbols keep them in the module."""

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in _with(module, _LEVELS):
            base = function.without_attr(_LEVELS)
            for level, digest in sorted(function.attrs[_LEVELS].items()):
                other = stand_in(base, parse_digest(str(digest))).with_attr(LEVEL, level)
                module[f"{name.name_hint}_{level}"] = other.with_attr("global_symbol", f"{name.name_hint}_{level}")
        return module


@tvm.transform.module_pass(opt_level=0, name="DispatchLevels")
class DispatchLevels:
    """See the module's docstring.  All functions have their symbols."""

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in _with(module, _LEVELS):
            symbol = str(function.attrs["global_symbol"])
            base = function.without_attr(_LEVELS).with_attr("global_symbol", f"{symbol}_base")
            chosen = [level for level in LEVELS.values() if level.name in function.attrs[_LEVELS]]
            module[f"{name.name_hint}_base"] = base
            module[name] = _dispatcher(symbol, chosen, len(function.params))
        return module


def _with(module: Any, attribute: str) -> list[tuple[Any, Any]]:
    """The functions of a module that have the attribute, with their variables."""
    found = [
        (name, function)
        for name, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) and attribute in (function.attrs or {})
    ]
    return sorted(found, key=lambda one: one[0].name_hint)


def _dispatcher(symbol: str, levels: Sequence[Level], count: int) -> Any:
    """The function `symbol` of so many tensors, which calls that of the first level that the CPU has."""
    tensors = [tirx.Var(f"tensor{index}", "handle") for index in range(count)]

    def jump(name: str) -> Any:
        return tirx.Evaluate(tirx.call_cpacked(f"__tvm_ffi_{symbol}_{name}", *tensors))

    body = jump("base")
    for level in reversed(levels):
        asked = tirx.call_extern("int32", level.symbol)
        body = tirx.IfThenElse(asked != 0, jump(level.name), body)
    for level in levels:
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", tvm.ir.StringImm(level.text), body)
    attributes = {CHOICE: True, "global_symbol": symbol, "tirx.noalias": True, "tirx.is_scheduled": True}
    return tirx.PrimFunc(tensors, body).with_attrs(attributes)
