"""A Windows machine for tests: Wine, TVM's Windows wheels, and an application that embeds TVM's runtime.

The application is tests/drivers/greedy.cc, compiled by MinGW.  The wheels are fetched once by pip and unpacked; they bring
TVM's runtime and Microsoft's C++ runtime, which Wine loads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.helpers import wheels
from tests.helpers.checkpoints import cache_root

DRIVER = Path(__file__).parent.parent / "drivers" / "greedy.cc"
WINE = "/usr/lib/wine/wine64"
"""Debian's launcher asks for the 32-bit half too; the program itself does without."""

COMPILER = "x86_64-w64-mingw32-g++-win32"
RUNTIMES = ("tvm_runtime.dll", "tvm_runtime_extra.dll")


def missing() -> str | None:
    """Why there can be no such machine here, for skipping a test; None when there can."""
    absent = [name for name in (WINE, COMPILER) if shutil.which(name) is None]
    if not absent:
        return None
    return f"needs {', '.join(absent)} (Debian: apt install wine64 g++-mingw-w64-x86-64-win32)"


class Machine:
    """A directory with the application, TVM's libraries and Wine's own files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def greedy(
        self, library: Path, weights: Path, parameters: Sequence[str], prompt: Sequence[int], count: int
    ) -> list[int]:
        """`count` tokens after a prompt; `parameters` are the names in the order of the library's metadata."""
        names = library.with_suffix(".parameters")
        names.write_text("".join(f"{name}\n" for name in parameters))
        # A drive letter is not needed: Wine takes paths of the system.
        command = [WINE, str(self.directory / "greedy.exe"), str(library), str(weights), "512", str(count)]
        command += [str(names), *RUNTIMES, "--", *map(str, prompt)]
        environment = {**os.environ, "WINEPREFIX": str(self.directory / "prefix"), "WINEDEBUG": "-all"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"greedy.exe ended with {done.returncode}: {done.stdout}{done.stderr}")
        return [int(word) for word in done.stdout.split()]


def machine() -> Machine:
    """The machine; the first call unpacks it (70 MB of packages) and compiles the application."""
    final = cache_root() / f"windows-tvm-{version('apache-tvm')}"
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            made = Path(scratch) / "machine"
            made.mkdir()
            site = Path(scratch) / "site"
            wheels.unpack(("apache-tvm", "apache-tvm-ffi"), ("win_amd64",), Path(scratch) / "wheels", site)
            for pattern in ("tvm/lib/tvm_runtime*.dll", "tvm_ffi/lib/tvm_ffi.dll", "apache_tvm.libs/*.dll"):
                for path in site.glob(pattern):
                    shutil.copy(path, made)
            command = [COMPILER, "-std=c++17", "-O1", "-static", f"-I{site / 'tvm_ffi/include'}", str(DRIVER)]
            wheels.run([*command, str(site / "tvm_ffi/lib/tvm_ffi.lib"), "-o", str(made / "greedy.exe")])
            try:
                made.rename(final)
            except OSError:
                if not final.is_dir():  # Else another test process was faster.
                    raise
    return Machine(final)
