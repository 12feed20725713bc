"""An aarch64 Linux machine for tests: QEMU's user emulation, Debian's Python and C library, and aarch64 wheels.

The packages are fetched once by apt and pip from what they are configured to use, and unpacked, not installed.  TVM comes
without its compiler (TVM_USE_RUNTIME_LIB), as on a device.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.helpers import wheels
from tests.helpers.checkpoints import cache_root
from tests.helpers.cli import Result

EMULATOR = "qemu-aarch64-static"
NEEDED = (EMULATOR, "apt-get", "dpkg")
REPOSITORY = Path(__file__).parent.parent.parent

DEBS = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
    *("zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1"),
    # What applications are compiled and linked with.
    *("libc6-dev", "linux-libc-dev", "libgcc-12-dev", "libstdc++-12-dev"),
)
WHEELS = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "ml_dtypes",
    "psutil",
    "typing_extensions",
    "tokenizers",
    # What a plan takes besides.
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_inspection",
    "diskcache",
    "gguf",
    "jinja2",
    "MarkupSafe",
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def missing() -> str | None:
    """Why there can be no such machine here, for skipping a test; None when there can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: apt install qemu-user-static)"
    if sys.version_info[:2] != (3, 11):
        return "the aarch64 Python of Debian 12 is 3.11, and the tests run on another"
    return None


class Machine:
    """The unpacked packages: `root` of Debian, `site` of the wheels."""

    def __init__(self, directory: Path) -> None:
        self.root, self.site = directory / "root", directory / "site"

    @property
    def compiler(self) -> tuple[str, ...]:
        """clang++ for this machine, with Debian's headers and C++ library."""
        return ("clang++", "--target=aarch64-linux-gnu", f"--sysroot={self.root}", "-fuse-ld=lld")

    @property
    def emulator(self) -> tuple[str, ...]:
        """What starts a program of this machine."""
        return (EMULATOR, "-L", str(self.root))

    def llmbuild(self, *arguments: str, cwd: Path, timeout: float = 400) -> Result:
        """`python -m llmbuild ARGUMENTS`, emulated."""
        environment = {
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{self.site}",
            "TVM_USE_RUNTIME_LIB": "1",
            "TVM_BIND_THREADS": "0",
        }
        command = [*self.emulator, str(self.root / "usr/bin/python3.11"), "-m", "llmbuild", *arguments]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)


def machine() -> Machine:
    """The machine; the first call unpacks it (some 160 MB of packages)."""
    packages = hashlib.sha256(repr((DEBS, WHEELS)).encode()).hexdigest()[:12]
    final = cache_root() / f"aarch64-tvm-{version('apache-tvm')}-{packages}"
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            made = Path(scratch) / "machine"
            _unpack_debs(Path(scratch) / "apt", made / "root")
            wheels.unpack(WHEELS, PLATFORMS, Path(scratch) / "wheels", made / "site")
            try:
                made.rename(final)
            except OSError:
                if not final.is_dir():  # Else another test process was faster.
                    raise
    return Machine(final)


def _unpack_debs(work: Path, root: Path) -> None:
    """A package state of its own for apt, so that nothing of this system's is touched."""
    for name in ("lists/partial", "archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": work,
        "Dir::State::status": work / "status",
        "Dir::Cache": work,
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    wheels.run(["apt-get", *options, "-qq", "update"], work)
    wheels.run(["apt-get", *options, "-qq", "download", *DEBS], work / "debs")
    root.mkdir(parents=True)
    for package in sorted((work / "debs").glob("*.deb")):
        wheels.run(["dpkg", "-x", str(package), str(root)], work)
