"""build, plan, why and exec as processes on a tiny model.  The tasks before TVM suffice: fetch, quantize and config."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.changed import copy_with
from tests.helpers.checkpoints import cached_checkpoint

ROOT = Path(__file__).parent.parent.parent
MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[metadata]
context-window-size = 64

[[build]]
models = ["tiny"]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""
ASKED = ("quantize", "config")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    root: Path
    store: Path

    def run(self, *arguments: str, cwd: Path | None = None, **env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "llmbuild", *arguments],
            cwd=cwd or self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LLMBUILD_CACHE": str(self.store), "COLUMNS": "100", **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def edit(self, old: str, new: str) -> None:
        path = self.root / "buildfile.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "project"
    root.mkdir()
    (root / "buildfile.toml").write_text(MANIFEST)
    (root / "checkpoint").mkdir()
    for file in cached_checkpoint("llama").iterdir():
        (root / "checkpoint" / file.name).write_bytes(file.read_bytes())
    return Place(root, tmp_path / "store")


def states(place: Place, *arguments: str) -> dict[str, str]:
    done = place.run("plan", "--json", *(arguments or ASKED))
    assert done.code == 0, done.err
    return {task["kind"]: task["state"] for task in json.loads(done.out)["tasks"]}


def test_build_then_nothing_then_one_changed_value(place: Place) -> None:
    events = place.root / "events.ndjson"
    first = place.run("build", *ASKED, "--events", str(events))
    assert first.code == 0, first.err
    assert "built 4 tasks in" in first.err and first.err.endswith("  dist/tiny-q4f32_1-MLC\n")
    types = [json.loads(line)["type"] for line in events.read_text().splitlines()]
    assert types[0] == "plan-made" and types[-2:] == ["installed", "summary"]
    assert types.count("started") == types.count("explained") == types.count("finished") == 4
    assert (place.root / "dist/tiny-q4f32_1-MLC/mlc-chat-config.json").is_file()
    assert (place.root / ".llmbuild/logs/quantize[tiny,q4f32_1].log").is_file()

    second = place.run("build", *ASKED)
    assert second.code == 0 and second.err.startswith("up to date: 4 tasks cached (")
    assert place.run("plan", *ASKED, "--check").code == 0

    place.edit("context-window-size = 64", "context-window-size = 128")
    assert states(place) == {"fetch": "cached", "inspect": "cached", "quantize": "cached", "config": "run"}
    check = place.run("plan", *ASKED, "--check")
    assert check.code == 1 and "context-window-size 64 -> 128" in check.out
    why = place.run("why", "config*")
    assert why.code == 1 and "has to run\n  context-window-size 64 -> 128\n" in why.out
    third = place.run("build", *ASKED)
    assert "run    config[tiny, q4f32_1]: context-window-size 64 -> 128\n" in third.err
    assert "built 1 task in" in third.err and "(3 cached)" in third.err
    assert place.run("why", "config*").code == 0


def test_new_weights_with_the_same_facts_run_inspect_and_quantize_alone(place: Place) -> None:
    assert place.run("build", *ASKED).code == 0

    def ran_after(change: Callable[[dict[str, np.ndarray]], object], **config: object) -> list[str]:
        source = copy_with(place.root / "checkpoint", place.root / "changed", change, **config)
        shutil.rmtree(place.root / "checkpoint")
        source.rename(place.root / "checkpoint")
        events = place.root / "events.ndjson"
        assert place.run("build", *ASKED, "--events", str(events)).code == 0
        found = map(json.loads, events.read_text().splitlines())
        return sorted(event["label"].split("[")[0] for event in found if event["type"] == "started")

    def double(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] *= 2

    assert ran_after(double) == ["fetch", "inspect", "quantize"]
    assert ran_after(lambda _: None, tie_word_embeddings=True) == ["config", "fetch", "inspect", "quantize"]
    written = json.loads((place.root / "dist/tiny-q4f32_1-MLC/mlc-chat-config.json").read_text())
    assert written["model_config"]["tie_word_embeddings"] is False


def test_dry_run_builds_nothing(place: Place) -> None:
    done = place.run("build", "--dry-run", *ASKED)
    assert done.code == 0 and "tiny: 4 tasks: 4 to run" in done.out
    assert not (place.root / "dist").exists() and not (place.store / "traces").exists()


def test_the_estimate_is_for_the_jobs_and_the_memory_that_a_build_would_have(place: Place) -> None:
    settings = place.root.parent / "config/llmbuild/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("jobs = 2\n")

    def seconds(memory: str) -> float:
        done = place.run("plan", "--json", *ASKED, XDG_CONFIG_HOME=str(settings.parent.parent), LLMBUILD_MEMORY=memory)
        assert done.code == 0, done.err
        value = json.loads(done.out)
        # The checkpoint's files are here: what other models weigh tells nothing of them.
        files = [entry.stat().st_size for entry in (place.root / "checkpoint").iterdir() if entry.suffix != ".txt"]
        assert 0 < value["tasks"][0]["estimate"]["output-size"] <= sum(files)
        return float(value["estimate"]["run"]["wall-s"])

    assert seconds("1kB") > seconds("1TB")
    place.run("build", *ASKED)
    forced = ("build", "--dry-run", "--force", *ASKED)
    alone, beside = place.run(*forced, "--jobs", "1"), place.run(*forced, "--jobs", "2", "--memory", "1TB")
    held = place.run(*forced, "--jobs", "2", "--memory", "1MB")
    peaks = [re.findall(r"([\d.]+) MB of memory", done.out)[0] for done in (alone, beside, held)]
    assert float(peaks[0]) < float(peaks[1]) and peaks[0] == peaks[2]


def test_changed_weights_are_named(place: Place) -> None:
    place.run("build", *ASKED)
    path = place.root / "checkpoint/generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 0.25}))
    done = place.run("build", *ASKED)
    assert "run    fetch[tiny]: generation_config.json changed " in done.err
    assert "generation_config.json changed (from fetch[tiny])" in done.err
    assert "quantize" not in done.err


def test_deleted_and_edited_outputs_are_put_back(place: Place) -> None:
    place.run("build", *ASKED)
    output = place.root / "dist/tiny-q4f32_1-MLC"
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    (output / "params_shard_0.bin").unlink()
    (output / "mlc-chat-config.json").unlink()
    (output / "mlc-chat-config.json").write_text("edited")
    assert states(place) == {"fetch": "cached", "inspect": "cached", "quantize": "restore", "config": "restore"}
    done = place.run("build", *ASKED)
    assert done.code == 0 and "2 files put back" in done.err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_failure_tells_the_log_and_how_to_run_it_alone(place: Place) -> None:
    (place.root / "checkpoint/tokenizer.json").write_text("{ cut off")
    done = place.run("build", "config")
    assert done.code == 3, done.err
    assert "error: config[tiny, q4f32_1] failed: " in done.err and "Traceback" not in done.err
    assert "failed after" in done.err and "1 failed, 2 built" in done.err
    digest = done.err.partition("llmbuild exec ")[2].split()[0]
    again = place.run("exec", digest)
    assert again.code == 3 and again.err.startswith("run    config[tiny, q4f32_1]\nerror: ")


def test_an_action_alone_gives_advice_without_a_source(place: Place) -> None:
    weights = place.root / "checkpoint/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    done = place.run("build", "inspect")
    assert done.code == 3 and "fix: get the file again from where you have it from" in done.err
    again = place.run("exec", done.err.partition("llmbuild exec ")[2].split()[0])
    advice = "fix: get the file again from where it is from, or name another source, and build again"
    assert again.code == 3 and advice in " ".join(again.err.split())


def test_exec_prints_the_output_and_can_write_it(place: Place) -> None:
    events = place.root / "e.ndjson"
    place.run("build", "config", "--events", str(events))
    started = [json.loads(line) for line in events.read_text().splitlines()]
    action = next(e["action"] for e in started if e["type"] == "started" and e["label"].startswith("config"))
    done = place.run("exec", action[:16], "--out", "copy")
    assert done.code == 0, done.err
    assert any(line.endswith("  mlc-chat-config.json") for line in done.out.splitlines())
    assert (place.root / "copy/mlc-chat-config.json").is_file()


def test_force_runs_what_is_named(place: Place) -> None:
    place.run("build", *ASKED)
    done = place.run("build", "config", "--force")
    assert "run    config[tiny, q4f32_1]: forced" in done.err and "built 1 task" in done.err


def test_the_manifest_is_found_from_below(place: Place) -> None:
    below = place.root / "a/b"
    below.mkdir(parents=True)
    assert place.run("build", *ASKED, cwd=below).code == 0
    assert (place.root / "dist/tiny-q4f32_1-MLC/tensor-cache.json").is_file()


def test_a_missing_source_of_another_model_does_not_matter(place: Place) -> None:
    place.edit("[metadata]", '[models.other]\nsource = "nowhere"\nconv-template = "chatml"\n\n[metadata]')
    place.edit('models = ["tiny"]', 'models = ["tiny", "other"]')
    assert place.run("plan").code == 4
    assert place.run("plan", "--model", "tiny").code == 0
    unknown = place.run("plan", "--model", "tinny")
    assert unknown.code == 2 and "did you mean 'tiny'?" in unknown.err


def test_a_null_build_imports_nothing_heavy(place: Place) -> None:
    place.run("build", *ASKED)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llmbuild", "build", *ASKED],
        cwd=place.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LLMBUILD_CACHE": str(place.store)},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "llmbuild.engine.scheduler" in modules
    assert not modules & {"tvm", "pydantic", "networkx", "rich", "numpy", "diskcache", "torch", "huggingface_hub"}
