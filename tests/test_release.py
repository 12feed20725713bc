"""What a release consists of: the version, and an sdist and a wheel that have everything and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest

import llmbuild
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.workspace.imports import Imports
from tests.helpers.wheel import install

ROOT = Path(__file__).parent.parent
DIRECTORIES = ("benchmarks", "docs", "examples", "llmbuild", "targets", "tests")
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "buildfile.example.toml", "pyproject.toml")

Distributions = tuple[Path, Path]


def sources(*directories: str) -> set[str]:
    """The files of directories of this tree, but what Python and tools leave there."""
    return {
        path.relative_to(ROOT).as_posix()
        for directory in directories
        for path in (ROOT / directory).rglob("*")
        if path.is_file()
        and not any(part == "__pycache__" or part.startswith(".") for part in path.parts[len(ROOT.parts) :])
    }


def test_code_changelog_and_lock_have_one_version(tmp_path: Path) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[0] == llmbuild.__version__
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in headings), headings
    manifest = tmp_path / "buildfile.toml"
    manifest.write_text(
        '[models.m]\npreset = "SmolLM2-135M"\n[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["wasm32-webgpu"]\n'
    )
    with llmbuild.open(manifest, cache=tmp_path / "store", offline=True) as workspace:
        lock = tomllib.loads(workspace.lock().path.read_text(encoding="utf-8"))
    assert lock["toolchain"]["llmbuild"] == llmbuild.__version__
    example = (ROOT / "docs/lock.md").read_text(encoding="utf-8")
    assert re.findall(r'^    llmbuild = "(.+)"$', example, re.MULTILINE) == [llmbuild.__version__]


def test_a_release_makes_nothing_stale_by_its_number() -> None:
    package = ROOT / "llmbuild"
    imports = Imports(package, [path.relative_to(package).as_posix() for path in sorted(package.rglob("*.py"))])
    files = {kind: imports.closure(load_kind(kind).sources) for kind in KIND_NAMES}
    assert all("canonical.py" in found for found in files.values())
    assert [kind for kind, found in files.items() if "version.py" in found] == []


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(distributions: Distributions) -> None:
    wheel = distributions[1]
    assert wheel.name == f"llmbuild-{llmbuild.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"llmbuild-{llmbuild.__version__}.dist-info"
        metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    targets = {f"llmbuild/_targets/{PurePosixPath(name).name}" for name in sources("targets")}
    own = {name for name in names if not name.startswith(f"{info}/")}
    assert own == sources("llmbuild") | targets
    assert {
        f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    } == names - own
    assert (metadata["Name"], metadata["Version"]) == ("llmbuild", llmbuild.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"cross", "cuda", "serve", "sentencepiece", "transformers"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sdist_has_what_a_package_is_built_and_tested_from(distributions: Distributions) -> None:
    root = f"llmbuild-{llmbuild.__version__}"
    with tarfile.open(distributions[0]) as archive:
        members = archive.getmembers()
    assert all(member.isfile() and member.mtime == members[0].mtime for member in members)
    found = {member.name.removeprefix(f"{root}/") for member in members}
    # The backend adds its own metadata, and the file that tells it what to leave out.
    assert found == sources(*DIRECTORIES) | {*FILES, "PKG-INFO", ".gitignore"}


def test_an_index_would_take_both(distributions: Distributions) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("PASSED") == 2


def test_the_wheel_works_in_a_new_environment(distributions: Distributions, tmp_path: Path) -> None:
    """With what the wheel requires and nothing else of this environment; the packages themselves are linked, not downloaded."""
    python = install(distributions[1], tmp_path / "environment")
    works(python.parent / "llmbuild", tmp_path)


@pytest.mark.full
def test_a_clean_environment_installs_it_from_the_index(distributions: Distributions, tmp_path: Path) -> None:
    """Everything comes from the package index, the sdist's build too, and the two wheels are one to the last bit."""
    environment = tmp_path / "environment"
    run = [str(environment / "bin/python"), "-m", "pip"]
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([*run, "install", "--quiet", f"{distributions[1]}[serve]"], check=True)
    subprocess.run([*run, "check"], check=True)
    works(environment / "bin/llmbuild", tmp_path)
    subprocess.run([*run, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    assert (tmp_path / distributions[1].name).read_bytes() == distributions[1].read_bytes()


def works(program: Path, work: Path) -> None:
    """Run what needs no network and each kind of the data that comes with the package."""

    def said(*arguments: str) -> str:
        result = subprocess.run(
            [program, *arguments],
            cwd=work,
            env={"HOME": str(work), "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert said("--version") == f"llmbuild {llmbuild.__version__}\n"
    targets = said("targets")
    assert all(path.stem in targets for path in (ROOT / "targets").glob("[!_]*.toml"))
    said("init", "SmolLM2-135M", "-o", "started.toml")
    assert "lower[" in said("plan", "-f", "started.toml", "--offline")
