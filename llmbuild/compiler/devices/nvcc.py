"""CUDA's own compiler, nvcc: one run makes a fat binary for all architectures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmbuild.errors import ToolchainError

FLAGS = ("-O3", "--use_fast_math", "-std=c++17", "-w")
"""TVM's own flags for its kernels, without those that are only diagnostics."""


@dataclass(frozen=True, slots=True)
class Nvcc:
    """An nvcc on this machine; `version` is "13.0.88"."""

    program: str
    version: str
    archs: tuple[str, ...]
    """The real architectures that it knows; the variants with a letter are not all listed by it."""

    @property
    def identity(self) -> str:
        return f"nvcc {self.version}"

    def compile(self, code: str, archs: Sequence[str], ptx: str) -> bytes:
        """A fat binary with machine code for each of `archs`, and PTX of the architecture `ptx`.

        The same bytes whatever the directory and the number of threads are.  Raises ToolchainError with the compiler's
        words.
        """
        with tempfile.TemporaryDirectory(prefix="nvcc-") as scratch:
            (Path(scratch) / "kernels.cu").write_text(code, encoding="utf-8")
            command = [self.program, *FLAGS, "-fatbin", "--threads", "0"]
            for arch in archs:
                number = arch.removeprefix("sm_")
                command += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
            number = ptx.removeprefix("sm_")
            command += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
            command += ["-o", "kernels.fatbin", "kernels.cu"]
            # Variables that add flags behind the back of a build are left out.
            hidden = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
            environment = {name: value for name, value in os.environ.items() if name not in hidden}
            environment |= {"TMPDIR": scratch, "LC_ALL": "C"}
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode != 0:
                raise ToolchainError(
                    f"nvcc failed with exit code {done.returncode}",
                    why=f"{done.stderr}\n{done.stdout}".strip()[-2000:],
                    fix=f"check that {self.identity} works: it needs a host C++ compiler that it supports, such as g++",
                )
            return (Path(scratch) / "kernels.fatbin").read_bytes()


def find_nvcc() -> Nvcc | None:
    """The nvcc on PATH, else the one of $CUDA_HOME or $CUDA_PATH.  Raises ToolchainError when it does not run."""
    places = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    program = shutil.which("nvcc") or next(
        (path for place in places if (path := shutil.which("nvcc", path=os.path.join(place, "bin")))),  # noqa: PTH118
        None,
    )
    return None if program is None else _asked(program)


@cache
def _asked(program: str) -> Nvcc:
    version = re.search(r"\bV(\d+(?:\.\d+)+)", _said(program, "--version"))
    return Nvcc(
        program, version[1] if version else "of an unknown version", tuple(_said(program, "--list-gpu-code").split())
    )


def _said(program: str, question: str) -> str:
    try:
        return subprocess.run([program, question], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            "nvcc does not run", where=f"{program} {question}", why=str(error), fix="repair it, or take it off PATH"
        ) from error
