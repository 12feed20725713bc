"""llmbuild as a user has it: its wheel, and an environment that holds what the wheel asks for and nothing else."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.wheels import run

ROOT = Path(__file__).parent.parent.parent


def build_wheel(directory: Path) -> Path:
    """The wheel of this tree, made in the directory by pip and the build backend that it fetches."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)])
    (wheel,) = directory.glob("llmbuild-*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> Path:
    """A new environment with the wheel, installed by pip; returns its interpreter.

    What the wheel requires, and what that requires in turn, is linked from the packages of this interpreter: they are not
    downloaded again, and a package that only tests or developers have is not there.
    """
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)])
    python = directory / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)])
    (site,) = directory.glob("lib/python*/site-packages")
    (own,) = site.glob("llmbuild-*.dist-info")
    for required in _required(PathDistribution(own)).values():
        for top in {PurePosixPath(file).parts[0] for file in required.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(required.locate_file(top))).resolve())
    return python


def _required(root: Distribution) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    waiting = [root]
    while waiting:
        for text in waiting.pop().requires or ():
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found[name] = distribution(name)
                waiting.append(found[name])
    return found
