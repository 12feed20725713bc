"""CUDA's own compiler, nvcc: one run makes a fat binary for all architectures."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.compiler.device_code.fatbin import number_of
from llmbuild.programs.parts import FileTree, Parts, beside, launched
from llmbuild.programs.run import Tool, ask_tool, run_tool

FLAGS = ("-O3", "--use_fast_math", "-std=c++17", "-w")
"""TVM's own flags for its kernels, without those that are only diagnostics."""

_ALIKE = (range(80, 100), range(100, 1000))
"""Architectures for which kernels over float16, float32 and integers have the same PTX, but for the line that names them and,
rarely, how far a loop is unrolled.  From sm_100 on nvcc 13 has another generation of its compiler."""

_OWN_INSTRUCTIONS = re.compile(r"#\s*include\s*<cuda_(?:bf16|fp[468])\.h>")
"""Headers of types for which a later architecture has instructions that an earlier one lacks."""

_PROGRAMS = ("cudafe++", "ptxas", "fatbinary", "nvlink", "bin2c", "../nvvm/bin/cicc", "cicc")
"""The programs that nvcc runs, from its own directory."""

_TREES = ("include", "nvvm/libdevice", "targets/x86_64-linux/include", "targets/sbsa-linux/include")
"""The parts of a toolkit that affect compiled code."""

UNUSED = ("cccl/thrust", "cccl/cub", "thrust", "cub", "nvtx3", "Openacc", "Openmp")
"""Headers for other libraries and for the host's side, a quarter of them or more: no kernel of TVM's includes one."""


@dataclass(frozen=True, slots=True)
class Nvcc:
    """An nvcc on this machine.  Its methods raise ToolchainError when it does not run."""

    tool: Tool

    @property
    def version(self) -> str:
        """Such as "13.0.88"."""
        found = re.search(r"\bV(\d+(?:\.\d+)+)", ask_tool(self.tool, "--version"))
        return found[1] if found else "of an unknown version"

    @property
    def archs(self) -> tuple[str, ...]:
        """The real architectures that it supports; it does not list all variants with a letter."""
        return tuple(ask_tool(self.tool, "--list-gpu-code").split())

    @property
    def identity(self) -> str:
        return f"nvcc {self.version}"

    @property
    def parts(self) -> Parts:
        """nvcc with the programs that it runs, the host's preprocessor, and the headers and device libraries of its toolkit."""
        # A launcher on PATH may start the nvcc of a toolkit that lies elsewhere.
        launchers = launched(Path(self.tool.command[0]))
        program = next((path for path in reversed(launchers) if path.name == "nvcc"), launchers[0])
        host = shutil.which("g++")
        programs = [*launchers, *beside(program, _PROGRAMS), *([Path(host)] if host is not None else [])]
        toolkit = program.resolve().parent.parent
        # A toolkit's include may be a link to that of its target.
        places = {(toolkit / part).resolve(): part for part in reversed(_TREES) if (toolkit / part).is_dir()}
        trees = tuple(
            FileTree(toolkit, (part,), tuple(f"{part}/{name}" for name in UNUSED)) for part in sorted(places.values())
        )
        return Parts(
            tuple(programs), tuple(beside(program, ("nvcc.profile",))), () if toolkit == Path("/usr") else trees
        )

    def compile(self, code: str, archs: Sequence[str]) -> bytes:
        """A fat binary with machine code for each of `archs`, and PTX that later ones compile.

        The same bytes whatever the directory and the number of threads are.  Raises ToolchainError with the compiler's output.
        """
        import tempfile

        with tempfile.TemporaryDirectory(prefix="nvcc-") as scratch:
            (Path(scratch) / "kernels.cu").write_text(code, encoding="utf-8")
            arguments = [*FLAGS, "-fatbin", "--threads", "0"]
            for front, codes in front_ends(code, archs).items():
                arguments += ["-gencode", f"arch=compute_{front},code=[{','.join(codes)}]"]
            arguments += ["-o", "kernels.fatbin", "kernels.cu"]
            run_tool(
                self.tool,
                arguments,
                Path(scratch),
                makes="kernels.fatbin",
                fix=f"check that {self.identity} works: it needs a host C++ compiler that it supports, such as g++",
            )
            return (Path(scratch) / "kernels.fatbin").read_bytes()


def front_ends(code: str, archs: Sequence[str]) -> dict[str, list[str]]:
    """The virtual architectures that the code is compiled for, each with what its PTX becomes: machine code, or PTX as it is.

    The way to PTX takes four fifths of the time: architectures with the same PTX share it.  What is kept as PTX has no letter:
    code for sm_90a runs on no other architecture.
    """
    spans = () if _OWN_INSTRUCTIONS.search(code) is not None else _ALIKE
    numbers = [number_of(arch) for arch in archs]
    oldest = {
        number: min(one for one in numbers if one in span) for span in spans for number in numbers if number in span
    }
    found: dict[str, list[str]] = {}
    for arch, number in zip(archs, numbers, strict=True):
        found.setdefault(str(oldest.get(number, arch.removeprefix("sm_"))), []).append(arch)
    kept = str(oldest.get(max(numbers), max(numbers)))
    found.setdefault(kept, []).append(f"compute_{kept}")
    return found


def find_nvcc() -> Nvcc | None:
    """The nvcc on PATH, else the one of $CUDA_HOME or $CUDA_PATH; it is not run yet."""
    places = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    program = shutil.which("nvcc") or next(
        (path for place in places if (path := shutil.which("nvcc", path=os.path.join(place, "bin")))),  # noqa: PTH118
        None,
    )
    return None if program is None else Nvcc(Tool((program,), "nvcc"))
