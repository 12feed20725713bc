"""Write the module to a file, as TVMScript, and leave it as it is.

The files have the names that `mlc_llm compile --debug-dump` gives to the same places: the library's own functions are there
(phase 0), operators are fused into TIR functions (2), what is not used is gone (3), loops are scheduled (4), memory is planned
and the record added (5).  Its phase 1, fusions on the graph, is nothing here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm

from llmbuild.compiler.passes.own_errors import kept
from llmbuild.errors import StoreError


@tvm.transform.module_pass(opt_level=0, name="Dump")
class Dump:
    """See the module's docstring.  Raises StoreError where the file cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @kept
    def transform_module(self, module: Any, _: Any) -> Any:
        try:
            self.path.write_text(module.script(show_meta=False), encoding="utf-8")
        except OSError as error:
            raise StoreError("the module cannot be dumped", where=str(self.path), why=error.strerror) from error
        return module
