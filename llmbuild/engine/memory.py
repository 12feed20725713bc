"""How much memory a build may use, and whether the kernel ended a process for want of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmbuild.engine.limits import parse_memory

SHARE = 0.8
"""The part of the available memory that running tasks may take by default."""


def budget(asked: str | None = None) -> int | None:
    """The bytes that running tasks may take together: as requested ("8G"), else by $LLMBUILD_MEMORY, else a share of what is
    free.  None where the machine does not report it.  Raises UsageError."""
    asked = asked or os.environ.get("LLMBUILD_MEMORY")
    if asked:
        return parse_memory(asked)
    free = available()
    return None if free is None else int(free * SHARE)


def available(root: Path = Path("/")) -> int | None:
    """Bytes that new processes can use: what the kernel reports as available, or what is left of this control group's limit
    where that is less.  None where the machine does not report it.  `root` is where /proc and /sys are."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            group = root / "sys/fs/cgroup"
            found.append(max(0, int((group / limit).read_text()) - int((group / used).read_text())))
    return min(found, default=None)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for want of memory so far (proc_vmstat(5): `oom_kill`)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
