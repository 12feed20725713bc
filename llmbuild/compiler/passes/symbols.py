"""Give every function the name under which it is found.

Before: functions with the names of their global variables.
After: the attribute "global_symbol" on each: the variable's name, on PrimFuncs with the system library's prefix before it,
since those become symbols of the binary that several libraries may be linked into.

TVM's AttachGlobalSymbol renames the variables too, which fails inside of schedules with intrinsics (this release takes every
call for a number there).  Nothing reads the variables' names afterwards: code generators take the symbol.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx


@tvm.transform.module_pass(opt_level=0, name="AttachSymbols")
class AttachSymbols:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        prefix = str((module.attrs or {}).get("system_lib_prefix") or "")
        for variable, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc):
                module[variable] = function.with_attr("global_symbol", prefix + variable.name_hint)
            elif isinstance(function, relax.Function):
                module[variable] = function.with_attr("global_symbol", variable.name_hint)
        return module
