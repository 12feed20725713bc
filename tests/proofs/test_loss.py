"""Seeded loss of a tenth of the blobs and bit flips in a hundredth: everything is found and built again."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.canonical import Json
from llmbuild.engine import events, fs
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import AllFiles, Files, InputRef, Install, JsonFields, Task
from tests.helpers import engine_kinds
from tests.helpers.engine_build import build, install_all, snapshot
from tests.helpers.ram import UnsyncedFs

LOSS, FLIPS = 0.10, 0.01
SEEDS = 100
TASKS = 60


def graph() -> list[Task]:
    """A graph of 60 tasks with some 190 blobs, of all forms of input."""
    generator = random.Random(11)
    tasks: list[Task] = []
    for number in range(TASKS):
        label = f"t{number}"
        if number < 20:
            files: dict[str, Json] = {f"f{n}": f"{number} {n} {generator.random()}" for n in range(3)}
            files["c.json"] = f'{{"v": {number % 7}, "w": {number}}}'
            tasks.append(Task("write", label, 1, {"files": files}, {}, {}))
            continue
        inputs = {}
        for n in range(generator.randrange(1, 4)):
            upstream = generator.randrange(number)
            choices = [AllFiles(), Files(("*1", "joined"))]
            choices += [JsonFields("c.json", ("v",))] if upstream < 20 else []
            inputs[f"i{n}"] = InputRef(f"t{upstream}", generator.choice(choices))
        tasks.append(Task("combine", label, 1, {"text": label}, inputs, {}))
    return [
        Task(t.kind, t.label, 1, t.params, t.inputs, {}, installs=(Install("", f"dist/{t.label}"),))
        if n % 3 == 0
        else t
        for n, t in enumerate(tasks)
    ]


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setattr(fs, "current", UnsyncedFs())
    yield
    capfd.readouterr()


def blobs_of(root: Path) -> list[Path]:
    return sorted((root / "store" / "blobs").glob("??/*"))


def is_right(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


def test_lost_and_flipped_blobs_are_all_recovered(ram: Path) -> None:
    (ram / "project").mkdir()
    tasks = graph()
    store = Store(ram / "store")
    first, _ = build(store, tasks)
    install_all(store, ram / "project", tasks, first)
    wanted = snapshot(ram / "project")
    trees = {label: outcome.tree for label, outcome in first.outcomes.items()}
    store.close()
    assert len(blobs_of(ram)) > 150
    lost = flipped = detected = healed = 0
    for seed in range(SEEDS):
        generator = random.Random(seed)
        damaged: set[str] = set()
        for path in blobs_of(ram):
            chance = generator.random()
            if chance < LOSS:
                path.unlink()
                lost += 1
            elif chance < LOSS + FLIPS or (not damaged and chance < LOSS + 5 * FLIPS):
                data = bytearray(path.read_bytes())
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                if generator.random() < 0.5:
                    # In place: it reaches a file of the project that is a link to the blob.
                    path.chmod(0o644)
                else:
                    path.unlink()
                path.write_bytes(bytes(data))
                damaged.add(path.parent.name + path.name)
        flipped += len(damaged)
        store = Store(ram / "store")
        result, recorder = build(store, tasks)
        assert result.ok
        assert {label: outcome.tree for label, outcome in result.outcomes.items()} == trees
        reported = [event.digest for event in recorder.events if isinstance(event, events.CorruptBlob)]
        assert set(reported) <= damaged
        assert len(reported) == len(set(reported))
        detected += len(reported)
        healed += len(result.labels(Status.RAN))
        # What no output needs (an input's narrowed tree, a log) is found when it is read, and nothing else is left.
        for path in blobs_of(ram):
            digest = path.parent.name + path.name
            if not is_right(path):
                assert digest in damaged - set(reported)
                assert not store.cas.has(digest)
                detected += 1
        assert all(is_right(path) for path in blobs_of(ram))
        install_all(store, ram / "project", tasks, result)
        assert snapshot(ram / "project") == wanted
        again, _ = build(store, tasks)
        assert again.labels(Status.RAN) == []
        store.close()
    assert detected == flipped
    assert lost > SEEDS * 15
    assert flipped >= SEEDS
    assert healed > SEEDS
