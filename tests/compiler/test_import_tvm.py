"""TVM is imported without torch, and with the intrinsics of one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FAKE = "raise AssertionError('torch was imported')\n"


def told(program: str, path: Path | None = None) -> Any:
    """What a new process prints as JSON; `path` is a directory of modules that it finds first."""
    begin = "import json, sys\n" + (f"sys.path.insert(0, {str(path)!r})\n" if path is not None else "")
    done = subprocess.run([sys.executable, "-c", begin + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compiling_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(FAKE)
    program = "import llmbuild.compiler.import_tvm, llmbuild.compiler.lower, tvm_ffi\n"
    assert told(program + "print(json.dumps(['tvm' in sys.modules, 'torch' in sys.modules]))", tmp_path) == [
        True,
        False,
    ]


def test_torch_is_still_to_be_had() -> None:
    program = "import llmbuild.compiler.import_tvm\nimport torch\nimport tvm\n"
    give = "print(json.dumps(tvm.runtime.from_dlpack(torch.arange(3)).numpy().tolist()))"
    assert told(program + give) == [0, 1, 2]


def test_intrinsics_are_those_of_one_device() -> None:
    program = (
        "import llmbuild.compiler.import_tvm\n"
        "from llmbuild.compiler.intrinsics import import_intrinsics\n"
        "import_intrinsics('metal')\n"
        "first = sorted(name for name in sys.modules if 'tensor_intrin.' in name)\n"
        "import_intrinsics('cuda')\n"
        "from tvm.s_tir import TensorIntrin\n"
        "from tvm.s_tir.tensor_intrin import metal, cuda\n"
        "group = metal.get_simdgroup_intrin_group('shared', 'global', 'float16')\n"
        "found = all(TensorIntrin.get(name) is not None for name in group.values())\n"
        "print(json.dumps([first, found, 'tvm.s_tir.tensor_intrin.x86' in sys.modules]))\n"
    )
    assert told(program) == [["tvm.s_tir.tensor_intrin.metal"], True, False]


def test_functions_are_all_there() -> None:
    program = (
        "import llmbuild.compiler.import_tvm\n"
        "from tvm_ffi import registry\n"
        "names = registry.list_global_func_names()\n"
        "import tvm\n"
        "parts = {'relax.transform.': tvm.relax.transform._ffi_api, 'tirx.transform.': tvm.tirx.transform._ffi_api}\n"
        "missing = [name for part, module in parts.items() for name in names\n"
        "           if name.startswith(part) and '.' not in name[len(part):] and not hasattr(module, name[len(part):])]\n"
        "print(json.dumps([len(names) > 1000, missing]))\n"
    )
    assert told(program) == [True, []]


def test_compiling_starts_no_threads() -> None:
    program = (
        "import os\n"
        "import llmbuild.compiler.import_tvm\n"
        "import numpy\n"
        "threads = len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1\n"
        "print(json.dumps([threads, 'OPENBLAS_NUM_THREADS' in os.environ]))\n"
    )
    assert told(program) == [1, "OPENBLAS_NUM_THREADS" in os.environ]


def test_more_of_tvm_is_imported_later() -> None:
    program = (
        "import llmbuild.compiler.import_tvm\n"
        "from tvm_ffi import register_global_func, registry\n"
        "register_global_func('late.one', lambda: 1)\n"
        "import tvm.runtime.disco\n"
        "print(json.dumps([hasattr(tvm.runtime.disco, 'ProcessSession'), 'late.one' in registry.list_global_func_names()]))\n"
    )
    assert told(program) == [True, True]
