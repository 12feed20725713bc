"""A Windows machine for tests: Wine, TVM's Windows wheels, and an application that embeds TVM's runtime.

The application is tests/drivers/greedy.cc, compiled by MinGW, alone or with the objects of libraries.  The wheels are fetched
once by pip and unpacked; they bring TVM's runtime and Microsoft's C++ runtime, which Wine loads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.helpers import applications, wheels
from tests.helpers.applications import DRIVER
from tests.helpers.checkpoints import cache_root

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

    @property
    def application(self) -> Path:
        return self.directory / "greedy.exe"

    def link_application(self, objects: Sequence[Path], out: Path) -> None:
        """Link the application together with the objects of system libraries."""
        # Both of them touch the pages of a large stack frame and keep all registers; each compiler has its name for it.
        same = "-Wl,--defsym=__chkstk=___chkstk_ms"
        command = [COMPILER, "-std=c++17", "-O1", "-static", f"-I{self.directory / 'include'}", str(DRIVER)]
        command += [*map(str, objects), *(str(self.directory / name) for name in ("tvm_ffi.lib", "tvm_runtime.dll"))]
        wheels.run([*command, same, "-o", str(out)])

    def greedy(
        self,
        library: Path | str,
        weights: Path,
        parameters: Sequence[str],
        prompt: Sequence[int],
        count: int,
        application: Path | None = None,
    ) -> list[int]:
        """`count` tokens after a prompt; `parameters` are the names in the order of the library's metadata.

        `library` is a .dll, or "system:<prefix>" for a library that is linked into the application.
        """
        environment = {**os.environ, "WINEPREFIX": str(self.directory / "prefix"), "WINEDEBUG": "-all"}
        environment["WINEPATH"] = str(self.directory)
        # A drive letter is not needed: Wine takes paths of the system.
        command = [WINE, application or self.application]
        return applications.greedy(command, RUNTIMES, library, weights, parameters, prompt, count, environment)


def machine() -> Machine:
    """The machine; the first call unpacks it (70 MB of packages) and compiles the application."""
    driver = hashlib.sha256(DRIVER.read_bytes()).hexdigest()[:12]
    final = cache_root() / f"windows-tvm-{version('apache-tvm')}-{driver}"
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
            shutil.copytree(site / "tvm_ffi/include", made / "include")
            shutil.copy(site / "tvm_ffi/lib/tvm_ffi.lib", made)
            Machine(made).link_application([], Machine(made).application)
            try:
                made.rename(final)
            except OSError:
                if not final.is_dir():  # Else another test process was faster.
                    raise
    return Machine(final)
