"""The recipe for a device kind in docs/how-to-add.md, followed: two files, and a target of that kind."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.recipes import copy_of_llmbuild, follow


def test_a_device_kind_is_two_files(tmp_path: Path) -> None:
    manifest = TINY_MANIFEST.replace('"x86_64-linux-cpu"', '"nvptx"')
    project = make_project(tmp_path, manifest, cached_checkpoint("llama"))
    env = {"PYTHONPATH": str(tmp_path / "python")}
    copy_of_llmbuild(tmp_path / "python")
    made = follow("A device kind", tmp_path / "python", project.root)
    assert made == ["llmbuild/targets/kinds/nvptx.py", "llmbuild/compiler/devices/nvptx.py", "targets/nvptx.toml"]

    (shown,) = json.loads(project.run("targets", "nvptx", "--json", env=env).out)
    assert (shown["compile"]["device"]["kind"], shown["compile"]["device"]["mcpu"]) == ("nvptx", "sm_80")
    # TVM has a code generator for the kind, and nothing else is asked for.
    assert (shown["missing"], shown["device-compiler"], shown["dtypes"]) == ([], None, ["float32", "float16"])
    planned = project.run("plan", "--json", env=env)
    assert planned.code == 0, planned.text
    labels = {task["task"] for task in json.loads(planned.out)["tasks"]}
    assert {"lower[tiny, q4f32_1, nvptx]", "link[tiny, q4f32_1, nvptx]"} <= labels


def test_what_a_target_says_wrong_of_it_is_refused_as_of_any_kind(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST.replace('"x86_64-linux-cpu"', '"nvptx"'))
    copy_of_llmbuild(tmp_path / "python")
    follow("A device kind", tmp_path / "python", project.root)
    target = project.root / "targets/nvptx.toml"
    target.write_text(target.read_text().replace('"sm_80"', '"sm_8"').replace("thread_warp_size", "thread_warps"))
    refused = project.run("plan", env={"PYTHONPATH": str(tmp_path / "python")})
    assert refused.code == 2
    said = " ".join(refused.err.split())
    assert "unknown nvptx architecture 'sm_8'" in said
    assert "a nvptx device has no attribute 'thread_warps'" in said
