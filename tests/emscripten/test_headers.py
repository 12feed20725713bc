"""The headers that stand in for those which TVM's wheel lacks, compiled for this machine and used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import tvm_ffi

from llmbuild.emscripten.runtime import HEADERS

DRIVER = Path(__file__).parent.parent / "drivers" / "web_headers.cc"


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_formats_and_buffers(tmp_path: Path) -> None:
    package = Path(tvm_ffi.__file__).parent
    includes = [f"-I{place}" for place in (HEADERS, HEADERS / "include", package / "include")]
    libraries = [f"-L{package / 'lib'}", "-ltvm_ffi", f"-Wl,-rpath,{package / 'lib'}"]
    program = tmp_path / "headers"
    command = ["c++", "-std=c++17", "-Wall", *includes, "-o", str(program), str(DRIVER), *libraries]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
