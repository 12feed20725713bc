"""Run a command of llmbuild as another system would, as far as that can be played: `other_host.py SYSTEM [ARGUMENTS]`.

What the system has not is taken away from the standard library (modules, functions and constants of `os`), and it names itself
as it does there.  Files, processes and packages are those of this machine.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

POSIX_ONLY = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
NOT_ON_WINDOWS = (
    *(
        "fchmod",
        "fchown",
        "fork",
        "forkpty",
        "getpgid",
        "getuid",
        "geteuid",
        "killpg",
        "pread",
        "preadv",
        "pwrite",
        "pwritev",
    ),
    *("register_at_fork", "setsid", "statvfs", "sysconf", "uname", "wait3", "wait4", "waitid", "mkfifo", "openpty"),
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "P_PID", "WEXITED", "WNOWAIT"),
)
NOT_ON_MACOS = (
    *(
        "copy_file_range",
        "eventfd",
        "fdatasync",
        "getresuid",
        "getxattr",
        "listxattr",
        "memfd_create",
        "pidfd_open",
        "pipe2",
    ),
    *(
        "posix_fadvise",
        "posix_fallocate",
        "removexattr",
        "sched_getaffinity",
        "sched_setaffinity",
        "setxattr",
        "splice",
    ),
    *("waitid", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_PATH", "O_RSYNC", "O_TMPFILE", "P_PIDFD", "MFD_CLOEXEC"),
)
"""`waitid` came with Python 3.13."""

SYSTEMS = {
    "macos-arm64": ("darwin", "Darwin", "arm64", (), NOT_ON_MACOS),
    "windows": ("win32", "Windows", "AMD64", POSIX_ONLY, (*NOT_ON_WINDOWS, *NOT_ON_MACOS)),
    "linux-aarch64": ("linux", "Linux", "aarch64", (), ()),
}


class Absent(MetaPathFinder):
    """Finds none of the modules that the system has not."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in self.names:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return None


def become(system: str) -> None:
    """Make this process look like one on the system."""
    # The standard library chooses its own parts by the system when it is imported, and those have to stay this system's.
    import asyncio  # noqa: F401
    import concurrent.futures.process  # noqa: F401
    import multiprocessing  # noqa: F401
    import os
    import platform
    import sqlite3  # noqa: F401
    import subprocess  # noqa: F401
    import sysconfig
    import tempfile  # noqa: F401
    import uuid  # noqa: F401

    sysconfig.get_config_vars()
    name, said, machine, modules, attributes = SYSTEMS[system]
    known = platform.uname()._replace(system=said, machine=machine)
    real = os.uname()
    uname = os.uname_result((said, real.nodename, real.release, real.version, machine))
    sys.platform = name
    platform.uname = lambda: known
    os.uname = lambda: uname
    for attribute in attributes:
        if hasattr(os, attribute):
            delattr(os, attribute)
    for module in modules:
        sys.modules.pop(module, None)
    sys.meta_path.insert(0, Absent(modules))


if __name__ == "__main__":
    become(sys.argv[1])
    from llmbuild.cli.main import main

    sys.exit(main(sys.argv[2:]))
