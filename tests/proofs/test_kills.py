"""Real processes that are really killed, and many of them on one store: what they leave is right and complete."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project, read_events

ROOT = Path(__file__).parent.parent.parent
MOMENTS = 50
PARTS = 3


def start(project: ProjectDir, *arguments: str, events: str = "events.ndjson") -> subprocess.Popen[bytes]:
    """`llmbuild build` in a process group of its own."""
    environment = {
        **os.environ,
        "LLMBUILD_CACHE": str(project.store),
        "NO_COLOR": "1",
        "TVM_BIND_THREADS": "0",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "llmbuild", "build", "--events", str(project.root / events), *arguments],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """SIGKILL: nothing of it can be caught.  Only what we started, by its id."""
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()


def strays(store: Path) -> list[int]:
    """The living processes whose command line names this store."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = entry.name.isdigit() and str(store).encode() in (entry / "cmdline").read_bytes()
            if ours and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
    return found


def no_strays(store: Path) -> None:
    deadline = time.monotonic() + 10
    while left := strays(store):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def forget(store: Path, generator: random.Random) -> None:
    """Lose about half of what was built, so that the next build has work that is soon done.

    The results of lower stay most of the time: they take seconds, and the moments would all fall into them.
    """
    for path in sorted((store / "traces").glob("??/*.json")):
        slow = b'"kind":"lower"' in path.read_bytes()
        if generator.random() < (0.1 if slow else 0.6):
            path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in range(1, PARTS))])
def test_builds_killed_at_random_moments(tmp_path: Path, part: int) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    project.build()
    clean = project.snapshot()
    generator = random.Random(100 + part)
    began = time.monotonic()
    forget(project.store, random.Random(1))
    process = start(project)
    process.communicate(timeout=120)
    usual = min(6.0, time.monotonic() - began)
    killed = Counter[str]()
    moments = 0
    while moments < MOMENTS // PARTS:
        forget(project.store, generator)
        if generator.random() < 0.5:
            for path in sorted((project.root / "dist").rglob("*")):
                if path.is_file() and generator.random() < 0.3:
                    path.unlink()
        process = start(project)
        time.sleep(generator.uniform(0.02, usual))
        moments += 1
        running = process.poll() is None
        group = generator.random() < 0.5
        kill(process, group=group)
        killed["too late" if not running else "group" if group else "parent"] += 1
        no_strays(project.store)
        # Nothing wrong is left in sight: each file is absent, or that of a clean build.
        for path, data in project.snapshot().items():
            assert ".llmbuild-tmp-" in path or data == clean[path], path
        # Every other time the next build is killed as well.
        if moments % 2:
            project.build()
            assert project.snapshot() == clean
    project.build()
    assert project.snapshot() == clean
    assert project.build() == {}
    assert not [path for path in (project.store / "scratch").iterdir() if path.is_dir()]
    print(killed)
    assert killed["group"] + killed["parent"] >= moments * 2 // 3


@pytest.mark.slow
def test_eight_builds_of_one_project_run_each_action_once(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    processes = [start(project, "--jobs", "2", events=f"events{n}.ndjson") for n in range(8)]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output.decode()
    found = [event for n in range(8) for event in read_events(project.root / f"events{n}.ndjson")]
    started = Counter(event["label"] for event in found if event["type"] == "started")
    assert set(started.values()) == {1}, started
    assert Counter(label.split("[")[0] for label in started) == dict.fromkeys(
        ("fetch", "inspect", "quantize", "config", "lower", "link"), 1
    )
    assert not [event for event in found if event["type"] in ("failed", "skipped", "corrupt-blob")]
    assert len(list((project.store / "traces").glob("??/*.json"))) == 6
    first = project.snapshot()
    assert project.build() == {}
    assert project.snapshot() == first


@pytest.mark.slow
def test_owners_killed_at_random_do_not_stop_the_others(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    generator = random.Random(3)
    processes = [start(project, "--jobs", "2", events=f"events{n}.ndjson") for n in range(8)]
    for process in generator.sample(processes, 4):
        time.sleep(generator.uniform(0.1, 1.0))
        kill(process, group=generator.random() < 0.5)
    for process in processes:
        output, _ = process.communicate(timeout=240) if process.returncode is None else (b"", b"")
        assert process.returncode in (0, -signal.SIGKILL), output.decode()
    assert sum(process.returncode == 0 for process in processes) >= 4
    no_strays(project.store)
    assert project.build() == {}
    ended = [read_events_of_killed(project.root / f"events{n}.ndjson") for n in range(8)]
    finished = Counter(event["label"] for found in ended for event in found if event["type"] == "finished")
    # An owner may have died between its trace and its event, so some may be missing, but none is there twice.
    assert set(finished.values()) <= {1}, finished


def read_events_of_killed(path: Path) -> list[dict[str, str]]:
    """The events of a file whose last line may be torn."""
    import json

    found: list[dict[str, str]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


SECOND_MANIFEST = TINY_MANIFEST.replace("[models.tiny]", "[models.other]").replace('["tiny"]', '["other"]')
BEFORE_TVM = ("quantize", "config")


@pytest.mark.slow
def test_two_manifests_of_a_directory_are_killed_beside_each_other(tmp_path: Path) -> None:
    """Each model directory is of one age or has no configuration, and no build touches the other manifest's results."""
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    shutil.copytree(cached_checkpoint("llama"), project.root / "another")
    texts = {
        age: [text.replace('"checkpoint"', f'"{source}"') for text in (TINY_MANIFEST, SECOND_MANIFEST)]
        for age, source in (("one", "checkpoint"), ("two", "another"))
    }
    names = ("buildfile.toml", "second.toml")
    clean: dict[tuple[str, str], dict[str, bytes]] = {}

    def write(name: str, age: str) -> None:
        (project.root / name).write_text(texts[age][names.index(name)])

    def results(name: str) -> dict[str, bytes]:
        directory = f"dist/{'tiny' if name == names[0] else 'other'}-q4f32_1-MLC"
        return {path: data for path, data in project.snapshot(directory).items() if ".llmbuild-tmp-" not in path}

    for age in ("two", "one"):
        for name in names:
            write(name, age)
            project.build(*BEFORE_TVM, "-f", name)
            clean[name, age] = results(name)
    assert clean[names[0], "one"].keys() & clean[names[0], "two"].keys()
    generator = random.Random(7)
    ages = dict.fromkeys(names, "one")
    for _ in range(8):
        mine, other = generator.sample(names, 2)
        ages[mine] = "two" if ages[mine] == "one" else "one"
        write(mine, ages[mine])
        beside = start(project, *BEFORE_TVM, "-f", other, events="beside.ndjson")
        process = start(project, *BEFORE_TVM, "-f", mine)
        time.sleep(generator.uniform(0.1, 1.2))
        kill(process, group=generator.random() < 0.5)
        output, _ = beside.communicate(timeout=120)
        assert beside.returncode == 0, output.decode()
        no_strays(project.store)
        assert results(other) == clean[other, ages[other]]
        found = results(mine)
        assert "mlc-chat-config.json" not in found or found in (clean[mine, "one"], clean[mine, "two"])
        if generator.random() < 0.7:
            project.build(*BEFORE_TVM, "-f", mine)
            assert results(mine) == clean[mine, ages[mine]]
            assert results(other) == clean[other, ages[other]]
