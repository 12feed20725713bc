#!/usr/bin/env bash
# TVM's SiLU in float16 on a CPU is 0 where the sigmoid's exponential has no float16, although the result has one.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install "apache-tvm==0.27.0.post1" "apache-tvm-ffi==0.1.14.post1" "numpy==2.3.5"
cat > "$place/check.py" <<'PY'
import math
from importlib.metadata import version

import numpy as np
import tvm
from tvm import relax

values = np.array([-10.0, -11.0, -12.0, -14.0], "float16")
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType([len(values)], "float16"))
with builder.function("main", [x]):
    with builder.dataflow():
        result = builder.emit_output(relax.op.nn.silu(x))
    builder.emit_func_output(result)
machine = relax.VirtualMachine(relax.build(builder.finalize(), "llvm"), tvm.cpu())
seen = machine["main"](tvm.runtime.tensor(values)).numpy()
right = np.array([v / (1 + math.exp(-v)) for v in values.astype("float64")]).astype("float16")
print("apache-tvm", version("apache-tvm"), "numpy", np.__version__)
print("x         ", values)
print("expected  ", right, "(x * sigmoid(x), rounded to float16: all are numbers that float16 has)")
print("seen      ", seen)
assert np.allclose(seen[:2], right[:2], rtol=0.02), "the values that fit differ now"
assert (right[2:] != 0).all() and (seen[2:] == 0).all(), "TVM now gives what one expects"
PY
"$place/venv/bin/python" "$place/check.py"
