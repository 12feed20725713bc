"""Two manifests in one directory: results, history, last build and pins belong to one of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.workspace.manifests import project_file
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project, read_events

ASKED = ("quantize", "config")
SECOND = TINY_MANIFEST.replace("[models.tiny]", "[models.other]").replace('["tiny"]', '["other"]')


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    (project.root / "second.toml").write_text(SECOND)
    return project


def add_second(project: ProjectDir, text: str) -> None:
    (project.root / "second.toml").write_text(text)


def build(project: ProjectDir, *arguments: str) -> str:
    done = project.run("build", *ASKED, *arguments)
    assert done.code == 0, done.text
    return done.text


def models(project: ProjectDir, directory: str = "dist") -> set[str]:
    return {path.name for path in (project.root / directory).iterdir() if any(path.iterdir())}


def test_the_results_of_one_stay_when_the_other_is_built(project: ProjectDir) -> None:
    build(project)
    first = project.snapshot()
    said = build(project, "-f", "second.toml")
    assert "remove" not in said
    assert models(project) == {"tiny-q4f32_1-MLC", "other-q4f32_1-MLC"}
    assert {path: data for path, data in project.snapshot().items() if path in first} == first
    assert "up to date" in project.run("plan", *ASKED).out
    # A model that one manifest no longer has goes, and the build says so; the other's stays.
    add_second(project, SECOND.replace("other", "third"))
    said = build(project, "-f", "second.toml")
    assert "remove" in said and "dist/other-q4f32_1-MLC" in said
    assert models(project) == {"tiny-q4f32_1-MLC", "third-q4f32_1-MLC"}


def test_an_output_inside_the_other_s_is_left_alone(project: ProjectDir) -> None:
    add_second(project, SECOND.replace("[project]", '[project]\noutput = "dist/inner"'))
    build(project, "-f", "second.toml")
    inner = project.snapshot("dist/inner")
    build(project)
    assert project.snapshot("dist/inner") == inner
    assert models(project) == {"tiny-q4f32_1-MLC", "inner"}


def test_two_that_claim_one_place_are_an_error_before_anything_is_written(project: ProjectDir) -> None:
    build(project)
    before = project.snapshot()
    add_second(project, TINY_MANIFEST + "\n[models.tiny.generation]\ntemperature = 0.125\n")
    done = project.run("build", *ASKED, "-f", "second.toml", env={"COLUMNS": "200"})
    assert done.code == 2
    assert "two manifests claim the same output" in done.err
    assert all(word in done.err for word in ("buildfile.toml", "second.toml", "dist/tiny-q4f32_1-MLC"))
    assert "run" not in done.out
    assert project.snapshot() == before
    planned = project.run("plan", *ASKED, "-f", "second.toml", env={"COLUMNS": "200"})
    assert (planned.code, planned.err) == (2, done.err)
    # A manifest that was renamed takes its results along.
    (project.root / "buildfile.toml").unlink()
    build(project, "-f", "second.toml")
    assert json.loads(project.snapshot()["tiny-q4f32_1-MLC/mlc-chat-config.json"])["temperature"] == 0.125


def test_history_and_last_build_belong_to_a_manifest(project: ProjectDir) -> None:
    add_second(project, TINY_MANIFEST.replace("[project]", '[project]\noutput = "out"'))
    build(project)
    build(project, "-f", "second.toml")
    add_second(
        project, (project.root / "second.toml").read_text() + "\n[models.tiny.generation]\ntemperature = 0.125\n"
    )
    build(project, "-f", "second.toml")
    why = project.run("why", "config[tiny, q4f32_1]")
    assert (why.code, "up to date" in why.out) == (0, True), why.text
    project.write(TINY_MANIFEST + "\n[models.tiny.generation]\ntemperature = 0.5\n")
    why = project.run("why", "config[tiny, q4f32_1]", "--json")
    changes = [str(reason) for reason in json.loads(why.out)["reasons"]]
    assert why.code == 1
    assert "0.5" in changes[0] and "0.125" not in changes[0]
    events = project.root / ".llmbuild/last-build.ndjson"
    assert [event["label"] for event in read_events(events) if event["type"] == "started"]
    other = project.run("report", "-f", "second.toml", "--json")
    ran = [task["label"] for task in json.loads(other.out)["tasks"] if task["status"] == "ran"]
    assert ran == ["config[tiny, q4f32_1]"]


def test_why_remembers_what_was_built_before_each_had_a_history(project: ProjectDir) -> None:
    build(project)
    build(project, "-f", "second.toml")
    # As it was when a directory had one history.
    histories = [(json.loads(path.read_bytes()), path) for path in (project.store / "projects").glob("*.json")]
    both = {label: action for record, _ in histories for label, action in record["last"].items()}
    for record, path in histories:
        if record["project"] == str(project.root):
            path.write_text(json.dumps({**record, "last": both}))
        else:
            path.unlink()
    add_second(project, SECOND + "\n[models.other.generation]\ntemperature = 0.125\n")
    why = project.run("why", "config[other, q4f32_1]", "-f", "second.toml", "--json")
    assert why.code == 1
    assert "0.125" in str(json.loads(why.out)["reasons"])
    assert "up to date" in project.run("why", "config[tiny, q4f32_1]").out


def locked(project: ProjectDir, *arguments: str) -> str:
    """What `lock` says, and the lock file after it."""
    done = project.run("lock", *arguments)
    assert done.code == 0, done.text
    return (project.root / "llmbuild.lock").read_text()


def test_a_lock_keeps_what_another_manifest_uses(project: ProjectDir) -> None:
    shutil.copytree(project.root / "checkpoint", project.root / "another")
    second = SECOND.replace('"checkpoint"', '"another"').replace("x86_64-linux-cpu", "x86_64-linux-cpu-native")
    add_second(project, second)
    locked(project)
    both = locked(project, "-f", "second.toml")
    for part in (
        '"path:checkpoint"',
        '"path:another"',
        '"linker x86_64-linux-cpu"',
        '"linker x86_64-linux-cpu-native"',
    ):
        assert part in both
    for name in ("buildfile.toml", "second.toml"):
        assert locked(project, "-f", name) == both
        assert "up to date" in project.run("lock", "--check", "-f", name).out
    # In a fresh clone no command has seen the other manifest.
    shutil.rmtree(project.root / ".llmbuild")
    assert locked(project) == both
    # One that cannot be read now keeps what it had, and so does one of which nothing is known.
    add_second(project, second + "models = 3\n")
    assert locked(project) == both
    shutil.rmtree(project.root / ".llmbuild")
    assert locked(project) == both
    # With the last manifest that uses it, a pin goes.
    (project.root / "second.toml").unlink()
    alone = locked(project)
    assert '"path:another"' not in alone and "native" not in alone
    assert '"path:checkpoint"' in alone


def test_builds_of_both_at_the_same_time(project: ProjectDir) -> None:
    environment = {**os.environ, "LLMBUILD_CACHE": str(project.store), "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "llmbuild", "build", *ASKED, "-f", name],
            cwd=project.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name in ("buildfile.toml", "second.toml", "buildfile.toml", "second.toml")
    ]
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    assert models(project) == {"tiny-q4f32_1-MLC", "other-q4f32_1-MLC"}
    for name in ("buildfile.toml", "second.toml"):
        assert "up to date" in project.run("plan", *ASKED, "-f", name).out


def test_what_a_repository_says_of_another_manifest_is_not_believed(project: ProjectDir) -> None:
    """Only what this store's user left in `.llmbuild/` counts; a manifest that cannot be read now keeps its pins."""
    assert project.run("plan").code == 0
    assert project.run("plan", "-f", "second.toml").code == 0
    add_second(project, "[models.\n")
    place = project_file(project.root, "second.toml")
    value = json.loads(place.read_bytes())
    (other,) = value["project"]["models"]
    other["source"]["spec"] = {}
    for forged in (json.dumps(value).encode(), b"[" * 100_000, b'{"project": 7}'):
        place.write_bytes(forged)
        for command in (("lock",), ("plan",), ("cache", "gc", "-n"), ("build", "config")):
            done = project.run(*command)
            assert done.code == 0, done.text
    assert '"path:checkpoint"' in (project.root / "llmbuild.lock").read_text()
