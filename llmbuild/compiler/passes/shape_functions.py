"""Give the host's shape functions one order of statements.

Before: VMShapeLower writes the stores of each `shape_func*` PrimFunc in the order of a hash of addresses, so that two
runs make different objects.
After: where a function is nothing but stores H[i] = f(H[j], …) with distinct i, none of which is also read, the stores
are sorted by i.  Such stores are independent, so their order has no meaning.  Other functions are left alone.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx


@tvm.transform.module_pass(opt_level=0, name="OrderShapeFunctions")
class OrderShapeFunctions:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in list(module.functions.items()):
            if isinstance(function, tirx.PrimFunc) and name.name_hint.startswith("shape_func"):
                stores = _independent_stores(function.body)
                if stores is not None:
                    module[name] = function.with_body(tirx.SeqStmt(stores))
        return module


def _independent_stores(body: Any) -> list[Any] | None:
    """The statements of `body` sorted by the slot that they write, or None where their order may matter."""
    if not isinstance(body, tirx.SeqStmt):
        return None
    stores = list(body.seq)
    if not all(isinstance(s, tirx.BufferStore) and isinstance(s.indices[0], tirx.IntImm) for s in stores):
        return None
    slots = [int(store.indices[0]) for store in stores]
    read: set[int | None] = set()
    for store in stores:
        read |= _slots_read(store.value)
    if len(set(slots)) != len(slots) or None in read or read & set(slots):
        return None
    return [store for _, store in sorted(zip(slots, stores, strict=True), key=lambda pair: pair[0])]


def _slots_read(value: Any) -> set[int | None]:
    """The slots that an expression loads; None stands for one that is not a constant."""
    slots: set[int | None] = set()

    def note(load: Any) -> None:
        index = load.indices[0]
        slots.add(int(index) if isinstance(index, tirx.IntImm) else None)

    tvm_ffi.structural_walk(value, (tvm.ir.TensorLoad, note))
    return slots
