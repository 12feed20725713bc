"""llmbuild as a user has it: its wheel, and an environment that holds what the wheel asks for and nothing else."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.wheels import run

ROOT = Path(__file__).parent.parent.parent


def build_distributions(directory: Path) -> tuple[Path, Path]:
    """The sdist of this tree, and the wheel that is built from the sdist: by `build` and the backend that it fetches."""
    run([sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT)])
    (sdist,) = directory.glob("llmbuild-*.tar.gz")
    (wheel,) = directory.glob("llmbuild-*.whl")
    return sdist, wheel


def install(wheel: Path, directory: Path) -> Path:
    """A new environment with the wheel, installed by pip; returns its interpreter."""
    python = _environment(directory)
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)])
    _link_required(directory, ())
    return python


def unpack(wheel: Path, directory: Path, extras: Sequence[str] = ()) -> Path:
    """As `install`, with extras too, in a fraction of the time: without what pip writes beside a wheel's own files."""
    python = _environment(directory)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(_site(directory))
    _link_required(directory, extras)
    return python


def _environment(directory: Path) -> Path:
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)])
    return directory / "bin" / "python"


def _site(directory: Path) -> Path:
    (site,) = directory.glob("lib/python*/site-packages")
    return site


def _link_required(directory: Path, extras: Sequence[str]) -> None:
    """Link what the wheel requires, and what that requires in turn, from the packages of this interpreter: they are not
    downloaded again, and a package that only tests or developers have is not there."""
    site = _site(directory)
    (own,) = site.glob("llmbuild-*.dist-info")
    for required in _required(PathDistribution(own), extras).values():
        for top in {PurePosixPath(file).parts[0] for file in required.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():  # The packages of CUDA share a directory.
                (site / top).symlink_to(Path(str(required.locate_file(top))).resolve())


def _required(root: Distribution, extras: Sequence[str]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    waiting = [(text, name) for text in root.requires or () for name in ("", *extras)]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            found[name] = distribution(name)
            waiting += [(one, "") for one in found[name].requires or ()]
    return found
