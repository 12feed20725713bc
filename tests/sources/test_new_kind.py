"""The recipe for a source kind in docs/how-to-add.md, followed: one file is dropped in, and everything knows the kind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.imports import PACKAGE

PAGE = PACKAGE.parent / "docs" / "how-to-add.md"
MANIFEST = TINY_MANIFEST.replace('"checkpoint"', '"shelf:tiny@2"')


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """An environment with a copy of llmbuild that has one more file, and with a model on the shelf."""
    section = PAGE.read_text(encoding="utf-8").split("\n## A source kind\n")[1].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code) == 1
    place = tmp_path / "python"
    shutil.copytree(PACKAGE, place / "llmbuild", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "targets", place / "targets")
    (place / "llmbuild/sources/kinds/shelf.py").write_text(code[0], encoding="utf-8")
    make_checkpoint(tmp_path / "shelf/tiny/2", "llama")
    return {"PYTHONPATH": str(place), "SHELF": str(tmp_path / "shelf")}


def run(project: ProjectDir, env: Mapping[str, str], *arguments: str, code: int = 0) -> str:
    result = project.run(*arguments, env=env)
    assert result.code == code, result.text
    return result.text if code else result.out


def test_the_kind_is_known_everywhere(tmp_path: Path, env: Mapping[str, str]) -> None:
    project = make_project(tmp_path, MANIFEST)
    wanted = ["fetch*", "quantize*", "config*"]

    planned = json.loads(run(project, env, "plan", "--json"))
    assert "fetch[tiny]" in {task["task"] for task in planned["tasks"]}
    run(project, env, "lock")
    lock = (project.root / "llmbuild.lock").read_text()
    assert '[sources."shelf:tiny@2".files]' in lock
    assert run(project, env, "lock", "--check").startswith("llmbuild.lock is up to date")

    assert set(project.build("--locked", "--provenance", *wanted, env=env)) == {"inspect", "quantize", "config"}
    assert project.build("--locked", "--provenance", *wanted, env=env) == {}
    (statement,) = (json.loads(path.read_text()) for path in project.root.glob("dist/provenance/*"))
    uris = {one.get("uri") for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert "pkg:generic/tiny@2" in uris
    assert (project.root / "llmbuild.lock").read_text() == lock

    # Another machine, with an empty cache: the kind's own name in the error, then the promise of the lock file.
    other = make_project(tmp_path / "other", MANIFEST)
    shutil.copy(project.root / "llmbuild.lock", other.root)
    assert "shelf:tiny@2" in run(other, env, "build", "--offline", *wanted, code=4)
    config = tmp_path / "shelf/tiny/2/config.json"
    config.write_text(config.read_text() + "\n")
    assert "is not what was locked" in " ".join(run(other, env, "build", *wanted, code=4).split())
    run(other, env, "lock", "--upgrade")
    other.build("--locked", *wanted, env=env)


def test_a_wrong_source_names_the_kind(tmp_path: Path, env: Mapping[str, str]) -> None:
    for source, said in (
        ("shelff:tiny@2", "did you mean 'shelf'"),
        ("ftp:tiny", "or shelf:title@edition"),
        ("shelf:../tiny@2", "write shelf:title@edition"),
        ('shelf:tiny@2"\nrevision = "main', "only an hf: source has a revision"),
    ):
        project = make_project(
            tmp_path / said.replace(" ", "-").replace("/", "-"), MANIFEST.replace("shelf:tiny@2", source)
        )
        assert said in " ".join(run(project, env, "plan", code=2).split())
