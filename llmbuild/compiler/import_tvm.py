"""Imports TVM without torch.  Import this module before any other that imports TVM, in a process that compiles.

tvm_ffi imports torch wherever it is installed, to take its tensors.  That is half of the time of `import tvm`, and a compiler
has none.  Torch can be imported afterwards; in a process that has either of the two already, nothing is changed.
"""

from __future__ import annotations

import sys


def _import_tvm() -> None:
    alone = not {"torch", "tvm_ffi"} & sys.modules.keys()
    if alone:
        # Python answers an import of a module that stands for None with ImportError.
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm  # noqa: F401
    finally:
        if alone:
            del sys.modules["torch"]


_import_tvm()
