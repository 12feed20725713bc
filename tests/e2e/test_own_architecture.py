"""A project's own architecture: the recipe in docs/how-to-add.md, followed; trust, keys, and workers that are somewhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import llmbuild
from llmbuild.cli.main import main
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode
from tests.helpers.checkpoints import write_tokenizer
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.logits import PROMPT, reference_logits
from tests.helpers.recipes import section
from tests.helpers.variants import SHARED, write_checkpoint

LLAMA = {**SHARED, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320}
PARTS = {"model.embed_tokens": "parrot.words", "model.layers": "parrot.branches", "self_attn": "listen", "mlp": "speak"}
PARTS |= {"model.norm": "parrot.rest"}
OTHER = """
[models.other]
source = "other"
conv-template = "LM"
"""
TASKS = ("inspect[polly]", "quantize[polly, q0f32]", "config[polly, q0f32]", "lower[polly, q0f32, x86_64-linux-cpu]")


def blocks() -> dict[str, str]:
    """The files of the recipe."""
    parts = section("An architecture of a project's own").split("```")[1::2]
    files = (part.partition("\n")[2] for part in parts)
    return {text.partition("\n")[0].removeprefix("# "): text.partition("\n")[2] for text in files}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDir:
    """The recipe's project, whose checkpoint is a Llama under Parrot's names, and beside it that Llama."""
    monkeypatch.delenv("LLMBUILD_TRUST", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "300")
    made = make_project(tmp_path)
    other, polly = made.root / "other", made.root / "polly"
    write_checkpoint(other, LLAMA)
    write_tokenizer(other, "byte-level")
    shutil.copytree(other, polly)
    tensors = load_file(polly / "model.safetensors")
    save_file({renamed(name): value for name, value in tensors.items()}, polly / "model.safetensors")
    config = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    config |= {"architectures": ["ParrotForCausalLM"], "model_type": "parrot", "wingspan": LLAMA["intermediate_size"]}
    (polly / "config.json").write_text(json.dumps(config))
    (made.root / "architectures").mkdir()
    files = blocks()
    assert set(files) == {"architectures/parrot.py", "buildfile.toml"}
    for name, text in files.items():
        (made.root / name).write_text(text)
    return made


def renamed(name: str) -> str:
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return name


def states(project: ProjectDir, *arguments: str) -> dict[str, Mapping[str, Any]]:
    done = project.run("plan", "--json", *arguments)
    assert done.code == 0, done.err
    return {task["task"]: task for task in json.loads(done.out)["tasks"]}


def test_a_model_is_built_of_an_architecture_of_the_project(project: ProjectDir, tmp_path: Path) -> None:
    file, manifest = project.root / "architectures/parrot.py", project.root / "buildfile.toml"
    manifest.write_text(manifest.read_text().replace('models = ["polly"]', 'models = ["polly", "other"]') + OTHER)

    # Nothing runs before it is trusted.
    code = file.read_text()
    mark = tmp_path / "mark"
    file.write_text(f"{code}\nopen({str(mark)!r}, 'w').close()\n")
    found = states(project)
    blocked = {name for name, task in found.items() if task["state"] == "blocked"}
    assert blocked == {*TASKS, "fetch[polly]", "link[polly, q0f32, x86_64-linux-cpu]"}
    assert "architectures/parrot.py: not trusted (SHA-256 " in found[TASKS[1]]["reasons"][0]["what"]
    build = project.run("build")
    assert build.code == ExitCode.USAGE and "architectures/parrot.py: not trusted" in build.err, build.text
    assert "run `llmbuild trust`" in build.err
    kept = project.run("init", "polly", "-o", "new.toml")
    assert kept.code == ExitCode.USAGE and "architectures/parrot.py: not trusted" in kept.err
    assert not mark.exists()
    file.write_text(code)
    trust = project.run("trust")
    assert trust.code == 0 and "describes parrot models" in trust.out
    assert project.run("init", "polly", "-o", "new.toml").code == 0
    assert 'model-type = "parrot"' in (project.root / "new.toml").read_text()

    # Its logits are those of the Llama whose weights it has, here and in transformers.
    assert project.build() == dict.fromkeys(("fetch", "inspect", "quantize", "config", "lower", "link"), 2)
    model = write_checkpoint(tmp_path / "again", LLAMA)
    wanted = reference_logits(model, PROMPT)
    both = []
    for name in ("polly", "other"):
        with llmbuild.load(project.root / f"dist/{name}-q0f32-MLC", threads=1) as running:
            both.append(running.logits(PROMPT))
    assert np.abs(both[0] - both[1]).max() == 0
    # The weights were rounded to bfloat16.
    assert np.linalg.norm(both[0] - wanted) / np.linalg.norm(wanted) < 0.02

    # An edit makes its own models stale and no others, and is asked about again.
    assert all(task["state"] == "cached" for task in states(project).values())
    file.write_text(code + "# edited\n")
    assert {name for name, task in states(project).items() if task["state"] == "blocked"} == blocked - {"fetch[polly]"}
    assert project.run("trust").code == 0
    found = states(project)
    assert {name for name, task in found.items() if task["state"] == "run"} == {*TASKS}
    assert all(found[name]["state"] == "cached" for name in found if "other" in name)
    assert found[TASKS[0]]["reasons"][0]["name"] == "architecture/sha256"
    # A comment changes no result, so that nothing is linked; in a process that knows nothing of the project.
    assert project.build("--executor", "inline") == dict.fromkeys(("inspect", "quantize", "config", "lower"), 1)


def test_a_record_with_an_architecture_runs_where_it_is_trusted(
    project: ProjectDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.build("--trust") == dict.fromkeys(("fetch", "inspect", "quantize", "config", "lower", "link"), 1)
    store = Store(project.store)
    [action] = [trace.action for trace in store.traces.all() if trace.kind == "inspect"]
    arguments = ["exec", action, "--cache-dir", str(project.store)]
    assert main(arguments) == ExitCode.USAGE
    assert "architectures/parrot.py: not trusted" in capsys.readouterr().err
    # The file is gone: the record has what it was.
    (project.root / "architectures/parrot.py").unlink()
    assert main([*arguments, "--trust"]) == ExitCode.OK


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FAMILY = (\n", "architectures/parrot.py:1: is no Python"),
        ("\nimport numpy\nFAMILY = 1\n", "architectures/parrot.py:2: imports numpy"),
        ("x = 1\n", "architectures/parrot.py: has no FAMILY"),
        ("\nFAMILY = 1 / 0\n", "architectures/parrot.py:2: the architecture cannot be used\n  why: ZeroDivisionError"),
        ("FAMILY = 1\n", "architectures/parrot.py: its FAMILY is no DecoderFamily"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_by_a_build(project: ProjectDir, text: str, said: str) -> None:
    (project.root / "architectures/parrot.py").write_text(text)
    build = project.run("build", "--trust")
    assert build.code == ExitCode.INPUT and said.partition("\n")[0].partition(": ")[2] in build.err, build.text
