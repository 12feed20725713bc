"""`clean` removes what llmbuild put into a project, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from llmbuild.engine.store import Store
from llmbuild.errors import UsageError
from llmbuild.workspace.cleaning import clean
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project

ASKED = ("quantize", "config")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was built, and its store."""
    directory = tmp_path_factory.mktemp("built")
    done = make_project(directory, TINY_MANIFEST, cached_checkpoint("llama-gqa")).run("build", *ASKED)
    assert done.code == 0, done.text
    return directory


@pytest.fixture
def project(built: Path, tmp_path: Path) -> ProjectDir:
    """A copy of it."""
    shutil.copytree(built, tmp_path / "copy")
    return ProjectDir(tmp_path / "copy/project", tmp_path / "copy/store")


def files(project: ProjectDir) -> set[str]:
    return {path.relative_to(project.root).as_posix() for path in project.root.rglob("*") if path.is_file()}


def ours(project: ProjectDir) -> set[str]:
    return {path for path in files(project) if path.startswith(("dist/", ".llmbuild/"))}


def test_a_build_puts_all_of_it_back_from_the_cache(project: ProjectDir) -> None:
    built, all_files = project.snapshot(), files(project)
    tried = project.run("clean", "--dry-run")
    assert tried.code == 0
    assert tried.out.startswith("would remove dist/tiny-q4f32_1-MLC: ")
    assert files(project) == all_files
    done = project.run("clean")
    assert done.out.splitlines()[0] == tried.out.splitlines()[0].replace("would remove", "removed")
    assert "`llmbuild build` puts it back from the cache" in done.out
    assert ours(project) == set()
    assert not (project.root / "dist").exists()
    assert not (project.root / ".llmbuild").exists()
    assert files(project) == {path for path in all_files if not path.startswith(("dist/", ".llmbuild/"))}
    assert project.run("clean").out == "there is nothing to remove\n"
    assert sum(project.build(*ASKED).values()) == 0, "nothing runs again"
    assert project.snapshot() == built


def test_the_user_s_files_stay(project: ProjectDir) -> None:
    own = project.root / "dist/notes.txt"
    own.write_text("mine")
    edited = project.root / "dist/tiny-q4f32_1-MLC/mlc-chat-config.json"
    text = edited.read_text() + "\n"
    edited.unlink()
    edited.write_text(text)
    kept = project.root / ".llmbuild/mine.txt"
    kept.write_text("mine")
    said = json.loads(project.run("clean", "--json").out)
    assert said["kept"] == ["dist/tiny-q4f32_1-MLC/mlc-chat-config.json"]
    assert said["size"] > 0
    assert ".llmbuild/last-build.ndjson" in said["records"]
    assert ours(project) == {
        ".llmbuild/installed.json",
        ".llmbuild/lock",
        *(path.relative_to(project.root).as_posix() for path in (own, edited, kept)),
    }
    assert edited.read_text() == text
    # The edited one is a result still, which a build puts back.
    assert sum(project.build(*ASKED).values()) == 0
    assert edited.read_text() == text[:-1]
    assert project.run("clean").code == 0
    assert ours(project) == {path.relative_to(project.root).as_posix() for path in (own, kept)}


def test_results_of_a_manifest_that_was_renamed_go_too(project: ProjectDir) -> None:
    (project.root / "buildfile.toml").rename(project.root / "new.toml")
    tried = json.loads(project.run("clean", "-f", "new.toml", "--dry-run", "--json").out)
    assert len(tried["removed"]) > 3
    done = json.loads(project.run("clean", "-f", "new.toml", "--json").out)
    assert done["removed"] == tried["removed"]
    assert not (project.root / "dist").exists()
    assert not (project.root / ".llmbuild/installed.json").exists()
    assert sum(project.build("-f", "new.toml", *ASKED).values()) == 0


def test_a_build_that_runs_keeps_its_records(project: ProjectDir) -> None:
    before = files(project)
    running = project.root / f".llmbuild/last-build-{os.getpid()}.partial.ndjson"
    running.touch()
    with pytest.raises(UsageError, match="a build of this manifest is running"):
        clean(project.root / "buildfile.toml", Store(project.store))
    running.unlink()
    assert files(project) == before


def test_another_manifest_keeps_its_results_and_records(project: ProjectDir) -> None:
    second = TINY_MANIFEST.replace("tiny]", "other]").replace('["tiny"]', '["other"]')
    (project.root / "second.toml").write_text(second)
    assert project.run("build", "-f", "second.toml", *ASKED).code == 0
    project.run("clean")
    assert {path.name for path in (project.root / "dist").iterdir()} == {"other-q4f32_1-MLC"}
    assert sum(project.build("-f", "second.toml", *ASKED).values()) == 0
    assert (project.root / ".llmbuild/manifests/second.toml/last-build.ndjson").is_file()
    project.run("clean", "-f", "second.toml")
    assert not (project.root / "dist").exists()


def test_a_manifest_that_is_wrong_can_be_cleaned(project: ProjectDir) -> None:
    project.write("[models.tiny\n")
    assert project.run("clean").code == 0
    assert ours(project) == set()


def test_a_link_in_place_of_the_records_is_not_followed(project: ProjectDir, tmp_path: Path) -> None:
    away = tmp_path / "logs"
    (project.root / ".llmbuild/logs").rename(away)
    (project.root / ".llmbuild/logs").symlink_to(away)
    before = set(away.iterdir())
    assert before
    project.run("clean")
    assert set(away.iterdir()) == before
