"""TVM's tensor intrinsics of one device, which its schedules for matrix units look up by name.

The package `tvm.s_tir.tensor_intrin` parses those of every device when it is imported, which takes two seconds and more.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

from llmbuild.compiler.frames import quick_stacks

_PACKAGE = "tvm.s_tir.tensor_intrin"


def import_intrinsics(device: str) -> None:
    """Import the module that registers the intrinsics of a device ("cuda", "metal"), and no other's."""
    if _PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(_PACKAGE)
        assert spec is not None
        # The package without what its own file would import.
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    with quick_stacks():
        importlib.import_module(f"{_PACKAGE}.{device}")
