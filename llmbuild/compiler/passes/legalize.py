"""Turn operators into calls of TIR functions.

Before: operators of Relax.
After: what TVM's `LegalizeOps` makes of them, in about half of the time for a model of 16 layers: TVM's rule for an operator is
asked once for each kind of call (`llmbuild.compiler.calls`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tvm
from tvm import relax

from llmbuild.compiler.calls import Calls


@tvm.transform.module_pass(opt_level=0, name="LegalizeOnce")
class LegalizeOnce:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        calls = Calls()
        rules = {name: _once(calls, name, rule) for name, rule in _rules(module)}
        return relax.transform.LegalizeOps(rules)(module)


def _once(calls: Calls, name: str, rule: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def legalize(builder: Any, call: Any) -> Any:
        return calls.call([name, call.attrs, call.ty_args], call.args, lambda: rule(builder, call))

    return legalize


def _rules(module: Any) -> Iterator[tuple[str, Any]]:
    """The names of the operators that the module's functions call and that have a rule, each once, with their rules.

    Operators of a function inside of another are not among them: TVM asks for their rules itself.
    """
    found: dict[str, Any] = {}
    for _, function in module.functions_items():
        if isinstance(function, relax.Function):
            for block in function.body.blocks:
                for binding in block.bindings:
                    value = getattr(binding, "value", None)
                    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
                        found.setdefault(value.op.name, value.op.get_attr("FLegalize"))
    yield from ((name, rule) for name, rule in found.items() if rule is not None)
