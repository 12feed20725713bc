"""TVM's runtime for the browser, compiled from the sources in its wheel.

The wheel of apache-tvm brings the runtime's sources and that of apache-tvm-ffi its own, but not all that they include:
headers of TVM's support library and of compiler-rt are missing.  `headers/` has the declarations of those that the sources use;
a header that a wheel brings itself is taken from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from llmbuild.emscripten import toolchain
from llmbuild.errors import ToolchainError

UNITS = ("wasm_runtime", "tvmjs_support", "webgpu_runtime")
"""The translation units of tvm/web/emcc: the runtime and its virtual machine, calls from JavaScript, the WebGPU device."""

HEADERS = Path(__file__).parent / "headers"
INCLUDE = (".", "include", "3rdparty/tvm-ffi/include", "3rdparty/compiler-rt")
FLAGS = ("-Os", "-std=c++17", "-Wno-ignored-attributes")
"""For size: the work is done by the GPU, and the browser compiles all of it before the first answer."""


def objects() -> tuple[str, ...]:
    """The files that `compile_runtime` writes."""
    return tuple(f"{unit}.o" for unit in UNITS)


def compile_runtime(
    out: Path,
    scratch: Path,
    compiler: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write the objects into `out`, working in the empty directory `scratch`.

    File names on the command line are relative, so that the objects do not depend on where they were compiled.  Raises
    ToolchainError when there is no emcc, when the wheels lack the sources, and with emcc's output when it fails.
    """
    emcc = toolchain.find(compiler)
    prepare_sources(scratch)
    for done, unit in enumerate(UNITS):
        progress(done, len(UNITS))
        arguments = [*(f"-I{place}" for place in INCLUDE), *FLAGS, "-c", "-o", f"{unit}.o", f"web/emcc/{unit}.cc"]
        said = toolchain.run(emcc, arguments, scratch, f"{unit}.o")
        if said:
            print(said)
        shutil.copyfile(scratch / f"{unit}.o", out / f"{unit}.o")
    progress(len(UNITS), len(UNITS))


def prepare_sources(directory: Path) -> None:
    """Lay the sources out as in TVM's own tree: they include each other by relative paths across the two packages."""
    tvm, ffi = _package("tvm"), _package("tvm_ffi")
    copies = (
        (tvm / "web/emcc", "web/emcc", ("*.cc",)),
        (tvm / "src/runtime", "src/runtime", ("*.cc", "*.h")),
        (tvm / "include", "include", ("*.h",)),
        (ffi / "src", "3rdparty/tvm-ffi/src", ("*.cc", "*.h")),
        (ffi / "include", "3rdparty/tvm-ffi/include", ("*.h",)),
    )
    shutil.copytree(HEADERS, directory, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for source, place, patterns in copies:
        found = [path for pattern in patterns for path in source.rglob(pattern)]
        if not found:
            raise ToolchainError(
                "TVM's sources for the browser are missing",
                where=f"{source.parent.name}/{source.name} of the installed package",
                why="the wheels of apache-tvm and apache-tvm-ffi bring them; this installation has none",
                fix="reinstall them: `pip install --force-reinstall apache-tvm apache-tvm-ffi`",
            )
        for path in found:
            target = directory / place / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _package(name: str) -> Path:
    """The directory of an installed package, which is not imported."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    for place in (spec and spec.submodule_search_locations) or ():
        return Path(place)
    raise ToolchainError(
        f"the Python package {name} is not installed",
        why="it brings the sources of TVM's runtime",
        fix="install llmbuild with its dependencies: `pip install llmbuild`",
    )
