"""Add the functions that are another one under a name of their own.

Before: of methods that compute the same, the module has one.
After: it has all.  What comes before this pass is done once for them; memory is planned, and code written, for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm.relax.utils import copy_with_new_vars


@tvm.transform.module_pass(opt_level=0, name="CopyFunctions")
class CopyFunctions:
    """See the module's docstring.  `copies` names the function that each is a copy of."""

    def __init__(self, copies: Mapping[str, str]) -> None:
        self.copies = dict(copies)

    def transform_module(self, module: Any, _: Any) -> Any:
        present = {variable.name_hint for variable in module.get_global_vars()}
        for name, original in self.copies.items():
            if original in present:
                module[name] = copy_with_new_vars(module[original]).with_attr("global_symbol", name)
        return module
