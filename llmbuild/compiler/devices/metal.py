"""Metal: a library contains source, which the driver compiles; matrix products use simdgroup matrices."""

from __future__ import annotations

from typing import Any

from llmbuild.compiler.devices.gpu import SAMPLING, Gpu


class Metal(Gpu):
    sampling = SAMPLING

    def schedules(self, target: Any, *, stock: bool = False) -> list[Any]:
        from llmbuild.compiler import schedules
        from llmbuild.compiler.intrinsics import import_intrinsics

        import_intrinsics("metal")
        # The rule for matrix products brings views of 32-bit extents into functions of 64-bit ones, which narrowing does
        # not reconcile afterwards.  So these functions are narrowed before: then the views fit.
        return [schedules.narrow(), *super().schedules(target, stock=stock)]


DEVICE = Metal("metal")
