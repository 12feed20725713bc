"""Calls of TIR functions, each kind of call made once.

To make a TIR function from an operator or from tensor expressions takes milliseconds, and a builder then finds that it has an
equal one: the layers of a model are equal.  A call on arguments of the same types is the first one's with other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

_CALL_TIR = "relax.call_tir"


class Calls:
    """The calls that were made in one module, which is still being built."""

    def __init__(self) -> None:
        self._made: dict[int, list[tuple[Any, Any, list[int]]]] = {}
        """By hash: the kind of call, the first one, and which of the arguments its function gets."""

    def call(self, kind: Sequence[Any], arguments: Sequence[Any], make: Callable[[], Any]) -> Any:
        """The expression that `make` makes of the arguments: `kind` has whatever else it depends on."""
        # Sizes that are symbols belong to one function of the module, and are equal only to themselves.
        types = [argument.ty if isinstance(argument, relax.Var) else argument for argument in arguments]
        kind = tvm_ffi.convert([*kind, types])
        known = self._made.setdefault(tvm_ffi.structural_hash(kind), [])
        for other, made, places in known:
            if tvm_ffi.structural_equal(kind, other):
                given = relax.Tuple([arguments[place] for place in places])
                return relax.Call(made.op, [made.args[0], given, *made.args[2:]], made.attrs, made.ty_args)
        made = make()
        taken = _places(arguments, made)
        if taken is not None:
            known.append((kind, made, taken))
        return made


def _places(arguments: Sequence[Any], made: Any) -> list[int] | None:
    """Which of the arguments the function of a call gets, or None where it gets anything else, or is no TIR function."""
    if not (isinstance(made, relax.Call) and isinstance(made.op, tvm.ir.Op) and made.op.name == _CALL_TIR):
        return None
    found = []
    for given in made.args[1].fields:
        places = [place for place, argument in enumerate(arguments) if given.same_as(argument)]
        if len(places) != 1:
            return None
        found += places
    return found
