#!/usr/bin/env bash
# A number below the normal range of float64 goes into the JSON of tvm-ffi with all of its digits, and does not come out again.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install "apache-tvm-ffi==0.1.14.post1"
cat > "$place/check.py" <<'PY'
import json
from importlib.metadata import version

import tvm_ffi
from tvm_ffi.serialization import from_json_graph_str, to_json_graph_str


def returned(value):
    text = to_json_graph_str(tvm_ffi.convert([value]))
    json.loads(text)
    try:
        return list(from_json_graph_str(text))[0]
    except ValueError as error:
        return f"ValueError: {error}"


smallest = 5e-324
values = [2.2250738585072014e-308, float("-inf"), 1e300, smallest]
print("apache-tvm-ffi", version("apache-tvm-ffi"))
print("written       ", values)
print("expected       the same: Python's json reads each of the texts, numbers of this size included")
seen = [returned(value) for value in values]
print("seen          ", seen)
assert seen[:3] == values[:3], "what works differs now"
assert str(seen[3]).startswith("ValueError"), "tvm-ffi now gives what one expects"
PY
"$place/venv/bin/python" "$place/check.py"
