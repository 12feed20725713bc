"""OpenCL C inside of a library or an object, and what clang's front end says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CLANG = ("clang", "-x", "cl", "-cl-std=CL1.2", "-Xclang", "-finclude-default-header", "-fsyntax-only")


def opencl_sources(data: bytes) -> list[str]:
    """The texts of OpenCL C in an object, from the first kernel's comment to the last brace."""
    found = [match.decode() for match in re.findall(rb"// Function: [\n\r\t\x20-\x7e]+", data)]
    return [text[: text.rindex("}") + 1] for text in found]


def require_clang() -> None:
    """Skip the test where there is no clang."""
    if shutil.which("clang") is None:
        pytest.skip("needs clang (Debian: apt install clang)")


def front_end_errors(text: str, where: Path) -> str:
    """What clang finds wrong in a text, which is written to the file `where`; "" for nothing."""
    where.write_text(text)
    done = subprocess.run([*CLANG, str(where)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr[:2000] or f"exit code {done.returncode}"
