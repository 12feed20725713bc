"""What runs after an edit: counted over real builds of a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint, make_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project

TWO_PLATFORMS = (
    TINY_MANIFEST.replace('["x86_64-linux-cpu"]', '["generic", "archive"]')
    + """
[platforms.generic]
target = "x86_64-linux-cpu"

[platforms.archive]
target = "x86_64-linux-cpu"
artifact = "tar"
system-lib-prefix = "tiny_"
"""
)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    return make_project(tmp_path, TWO_PLATFORMS, cached_checkpoint("llama-gqa"))


def edit(project: ProjectDir, old: str, new: str) -> None:
    text = (project.root / "buildfile.toml").read_text()
    assert text.count(old) == 1
    project.write(text.replace(old, new))


def test_each_edit_runs_what_depends_on_it_and_nothing_else(project: ProjectDir) -> None:
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 2, "link": 2}
    first = project.snapshot()
    assert sorted(name for name in first if name.startswith("libs/")) == [
        "libs/tiny-q4f32_1-archive.tar",
        "libs/tiny-q4f32_1-generic.so",
    ]
    assert {
        "mlc-chat-config.json",
        "tensor-cache.json",
        "ndarray-cache.json",
        "params_shard_0.bin",
        "tokenizer.json",
    } <= {name.split("/")[1] for name in first if name.startswith("tiny-q4f32_1-MLC/")}

    # A second build runs nothing.
    assert project.build() == {}
    assert project.snapshot() == first

    # A changed temperature: config only; early cutoff keeps the compiler away.
    edit(project, 'conv-template = "chatml"', 'conv-template = "chatml"\ngeneration = { temperature = 0.3 }')
    assert project.build() == {"config": 1}
    config = json.loads(project.snapshot()["tiny-q4f32_1-MLC/mlc-chat-config.json"])
    assert config["temperature"] == 0.3

    # A changed window on one platform: that platform's lower and link only.
    edit(
        project,
        '[platforms.generic]\ntarget = "x86_64-linux-cpu"\n',
        '[platforms.generic]\ntarget = "x86_64-linux-cpu"\nmetadata = { context-window-size = 48 }\n',
    )
    assert project.build() == {"lower": 1, "link": 1}

    # Other weights of the same architecture: fetch and quantize; the configuration reads no weights.
    before = project.snapshot()
    shutil.rmtree(project.root / "checkpoint")
    make_checkpoint(project.root / "checkpoint", "llama-gqa", seed=1)
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1}
    after = project.snapshot()
    changed = {name for name in before if before[name] != after[name]}
    assert {name.split("/")[1] for name in changed} <= {
        "params_shard_0.bin",
        "tensor-cache.json",
        "ndarray-cache.json",
        "tensor-cache-b16.json",
    }

    # Taking an edit back is a cache hit.
    edit(project, "generation = { temperature = 0.3 }", "")
    assert project.build() == {}


def test_a_fine_tune_of_the_same_architecture_compiles_nothing(project: ProjectDir) -> None:
    project.build()
    tuned = make_checkpoint(project.root / "tuned", "llama-gqa", seed=5)
    (tuned / "generation_config.json").write_text('{"temperature": 0.2}')
    text = (project.root / "buildfile.toml").read_text()
    project.write(
        # One archive is enough for both: a program that links it runs either's weights.
        text.replace('models = ["tiny"]', 'models = ["tiny", "tuned"]').replace('["generic", "archive"]', '["generic"]')
        + '\n[models.tuned]\nsource = "tuned"\nconv-template = "chatml"\n'
    )
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1}
    files = project.snapshot()
    assert files["libs/tuned-q4f32_1-generic.so"] == files["libs/tiny-q4f32_1-generic.so"]


def test_a_changed_or_deleted_output_is_noticed_and_restored(project: ProjectDir) -> None:
    project.build()
    first = project.snapshot()
    library = project.root / "dist/libs/tiny-q4f32_1-generic.so"
    library.unlink()
    assert project.build() == {}
    assert project.snapshot() == first
    library.unlink()
    library.write_bytes(b"edited")
    assert project.build() == {}
    assert project.snapshot() == first


def test_editing_the_linkers_relinks_and_nothing_else(project: ProjectDir, tmp_path: Path) -> None:
    source = Path(__file__).parent.parent.parent
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("llmbuild", "targets"):
        shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"PYTHONPATH": str(copy)}
    project.build(env=env)
    linker = copy / "llmbuild/linkers/elf.py"
    linker.write_text(linker.read_text() + "\n# An edit that changes nothing but the bytes.\n")
    assert project.build(env=env) == {"link": 2}


def test_selection_builds_the_named_platform_only(project: ProjectDir) -> None:
    assert project.build("--platform", "archive") == {
        "fetch": 1,
        "inspect": 1,
        "quantize": 1,
        "config": 1,
        "lower": 1,
        "link": 1,
    }
    assert project.build("link[tiny, q4f32_1, generic]") == {"lower": 1, "link": 1}
