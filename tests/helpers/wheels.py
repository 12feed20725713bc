"""Wheels for another system, fetched by pip and unpacked, not installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def unpack(names: Sequence[str], platforms: Sequence[str], work: Path, site: Path) -> None:
    """The releases that are installed here, for CPython 3.11 on one of the platforms, downloaded to `work`."""
    pinned = [f"{name}=={version(name)}" for name in names]
    tags = [word for name in platforms for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), *tags]
    run([*command, "--python-version", "3.11", "--only-binary", ":all:", *pinned])
    for wheel in sorted(work.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def run(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a command; its words are in the RuntimeError when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
