"""Failures name the files of a source as the user wrote the source, and one cause is one message."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

import llmbuild
from llmbuild.engine.events import Failed, Summary
from llmbuild.engine.executor import TaskFailure
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from llmbuild.sources.kind import Observation, Source
from llmbuild.sources.kinds import source_kind
from llmbuild.workspace.outcome import BuildError
from llmbuild.workspace.spelling import reworded, written
from tests.helpers import plans
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.plans import edit_model

SHA = "a" * 64


@pytest.mark.parametrize(
    ("source", "file", "name"),
    [
        (Source("path", {"path": "../models/x/"}), "config.json", "../models/x/config.json"),
        (Source("path", {"path": "x"}), "", "x"),
        (Source("gguf", {"path": "x/y.gguf"}), "model.gguf", "x/y.gguf"),
        (Source("path", {"path": "x"}), "model.gguf", "x/mine.gguf"),
        (Source("hf", {"repo": "a/b", "revision": "main"}), "config.json", "hf:a/b: config.json"),
        (Source("hf", {"repo": "a/b", "revision": "v1"}), "", "hf:a/b@v1"),
        (Source("hf", {"repo": "a/b", "revision": "main", "path": "c.gguf"}), "model.gguf", "hf:a/b/c.gguf"),
        (Source("https", {"url": "https://host/c.gguf", "sha256": SHA}), "model.gguf", "https://host/c.gguf"),
        (Source("pypi", {"name": "a", "version": "1", "path": "b/"}), "config.json", "pypi:a==1/b/: config.json"),
    ],
)
def test_names_of_files(source: Source, file: str, name: str) -> None:
    remote = source_kind(source.kind).remote
    observation = Observation({}, {} if remote else {"path": "/home/x/mine.gguf"})
    assert written(source, observation, file) == name


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("checkpoint/config.json: rope_theta", "hf:a/b: config.json: rope_theta"),
        ("checkpoint", "hf:a/b"),
        ("config.json: rope_theta", "hf:a/b: config.json: rope_theta"),
        ("merges.txt:2", "hf:a/b: merges.txt:2"),
        ("my/checkpoint/config.json", "my/checkpoint/config.json"),
        ("manifest: eos_token_id", "manifest: eos_token_id"),
        (None, None),
    ],
)
def test_places_in_failures(where: str | None, shown: str | None) -> None:
    project = edit_model(plans.project(), source=Source("hf", {"repo": "a/b", "revision": "main"}))
    observed = plans.observed(project)
    task = next(one for one in plans.tasks_of(project, observed) if one.kind == "quantize")
    failure = TaskFailure("no tensor in 'checkpoint/model.safetensors'", where, fix="look at checkpoint/config.json")
    found = reworded(project, observed, task, failure)
    assert found.where == shown
    assert (found.what, found.fix) == ("no tensor in 'hf:a/b: model.safetensors'", "look at hf:a/b: config.json")


@pytest.mark.parametrize("where", ["checkpoint/vocab.json", "vocab.json", None])
@pytest.mark.parametrize("source", [Source("hf", {"repo": "a/b", "revision": "main"}), Source("path", {"path": "a"})])
def test_a_place_says_the_name_of_a_file_once(where: str | None, source: Source) -> None:
    project = edit_model(plans.project(), source=source)
    observed = plans.observed(project)
    task = next(one for one in plans.tasks_of(project, observed) if one.kind == "quantize")
    found = reworded(project, observed, task, TaskFailure("vocab.json is not valid JSON", where))
    assert (found.where or "").endswith("vocab.json") and found.what == "is not valid JSON"


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (Source("path", {"path": "x"}), "get the file again from where you have it from, or name the format"),
        (
            Source("hf", {"repo": "a/b", "revision": "main"}),
            "name another source: the file is damaged where this one has it",
        ),
    ],
)
def test_what_was_checked_on_its_way_is_not_fetched_again(source: Source, advice: str) -> None:
    project = edit_model(plans.project(), source=source)
    observed = plans.observed(project)
    task = next(one for one in plans.tasks_of(project, observed) if one.kind == "quantize")
    failure = TaskFailure("is damaged", fix="fetch the file again, or name the format")
    assert str(reworded(project, observed, task, failure).fix).startswith(advice)


def test_a_build_names_the_users_files(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST.replace('"checkpoint"', '"./sub/mine"'))
    shutil.copytree(cached_checkpoint("llama"), project.root / "sub/mine")
    (project.root / "sub/mine/tokenizer.json").write_text("[")
    with llmbuild.open(str(project.root), cache=str(project.store)) as workspace, pytest.raises(BuildError) as caught:
        workspace.build("config")
    assert "checkpoint/" not in str(caught.value) and "sub/mine/tokenizer.json" in str(caught.value)


def failed(label: str, what: str, why: str | None = None) -> Failed:
    return Failed(time=0, label=label, action=None, failure=TaskFailure(what, "a file", why, log_tail=label))


def test_equal_failures_are_one_message() -> None:
    stream = io.StringIO()
    view = View(stream, Style(200))
    known = "supported: " + ", ".join(f"name{number}" for number in range(40))
    for label, what in (("config[a]", "bad"), ("quantize[a]", "bad"), ("config[b]", "worse"), ("config[c]", "bad")):
        view(failed(label, what, known))
    view(Summary(time=1, ran=0, cached=0, failed=4, skipped=0, wall_s=1))
    text = stream.getvalue()
    assert (text.count("a file: bad"), text.count("a file: worse"), text.count("name39")) == (1, 1, 1)
    assert "\nconfig[a] failed, and for the same reason quantize[a], config[c]\nfailed after" in text
