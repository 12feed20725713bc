#!/usr/bin/env bash
# A call of a function by its C symbol (call_cpacked) finds that function in another object, and misses it in its own module, where
# LLVM renames the declaration: no object defines the name that is called.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install "apache-tvm==0.27.0.post1" "apache-tvm-ffi==0.1.14.post1" "numpy==2.3.5"
cat > "$place/check.py" <<'PY'
import re
from importlib.metadata import version

import tvm
from tvm import tirx
from tvm.script import tirx as T


@T.prim_func(s_tir=True)
def inner(y: T.Buffer((1,), "int32")) -> None:
    T.func_attr({"global_symbol": "inner"})
    y[0] = T.int32(7)


y = tirx.Var("y", "handle")
call = tirx.Evaluate(tirx.call_cpacked("__tvm_ffi_inner", y))
outer = tirx.PrimFunc([y], call).with_attrs({"global_symbol": "outer", "tirx.is_scheduled": True})


def called(functions):
    """The names under which inner is called, and whether the module defines each."""
    code = tvm.tirx.build(tvm.IRModule(functions), target=tvm.target.Target("llvm")).inspect_source("ll")
    names = sorted(set(re.findall(r"call i32 @(__tvm_ffi_inner[.\w]*)\(", code)))
    return [(name, re.search(rf"define .*@{re.escape(name)}\(", code) is not None) for name in names]


print("apache-tvm", version("apache-tvm"))
alone, together = called({"outer": outer}), called({"inner": inner, "outer": outer})
print("alone    expected: the name, from another object  seen:", alone)
print("together expected: the name, from this module     seen:", together)
assert alone == [("__tvm_ffi_inner", False)], "what works differs now"
(name, defined) = together[0]
assert name != "__tvm_ffi_inner" and not defined, "TVM now calls the function that is there"
PY
"$place/venv/bin/python" "$place/check.py"
