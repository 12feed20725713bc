#!/usr/bin/env bash
# The pipeline that TVM has as the default of Adreno GPUs cannot be used: it is one pass, and build takes it apart as three.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install "apache-tvm==0.27.0.post1" "apache-tvm-ffi==0.1.14.post1" "numpy==2.3.5"
cat > "$place/check.py" <<'PY'
from importlib.metadata import version

import tvm
from tvm import te


def kernel():
    a = te.placeholder((64,), "float32", name="a")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([a, te.compute((64,), lambda i: a[i] + 1.0, name="b")]))
    (loop,) = schedule.get_loops(schedule.get_sblock("b"))
    schedule.bind(loop, "threadIdx.x")
    return schedule.mod


def built(pipeline, **device):
    host = {"kind": "llvm", "mtriple": "aarch64-linux-android"}
    target = tvm.target.Target({"kind": "opencl", "max_num_threads": 256, "host": host, **device})
    try:
        module = tvm.tirx.build(kernel(), target=target, pipeline=pipeline)
        return f"a module of kind {module.imports[0].kind}"
    except TypeError as error:
        return f"TypeError: {error}"


print("apache-tvm", version("apache-tvm"))
print("expected   a module of kind opencl in each case: pipeline=None asks for the target's default")
seen = {
    "opencl, pipeline=None": built(None),
    "opencl for Adreno, pipeline='default'": built("default", device="adreno"),
    "opencl for Adreno, pipeline=None": built(None, device="adreno"),
}
for case, result in seen.items():
    print(f"seen       {case}: {result}")
*others, adreno = seen.values()
assert others == ["a module of kind opencl"] * 2, "what works differs now"
assert "unpack" in adreno, "TVM now gives what one expects"
PY
"$place/venv/bin/python" "$place/check.py"
