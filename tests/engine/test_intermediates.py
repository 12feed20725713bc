"""Intermediate results: what one run keeps, another run of the same kind with the same tools takes, and nothing else does."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine import fs
from llmbuild.engine.action import Action
from llmbuild.engine.intermediates import Intermediates, intermediate_files, is_sound
from llmbuild.engine.store import Store
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import DAY, Retention, collect
from llmbuild.engine.upkeep.survey import Survey, running_actions

ACTION = Action(kind="lower", version=1, params={"window": 1}, inputs={}, tools={"tvm": digest_bytes(b"0.27")})
KEY, OTHER = digest_bytes(b"one"), digest_bytes(b"two")


def nobody(_project: str) -> None:
    return None


def kept(store: Store, action: Action = ACTION) -> Intermediates:
    return Intermediates(store.intermediates_path, action, store.scratch)


def test_another_run_takes_what_one_kept(store: Store) -> None:
    first = kept(store)
    assert first.get(KEY) is None
    first.put(KEY, b"code" * 100)
    first.put(OTHER, b"")
    assert (first.taken, first.made) == (0, 2)
    second = kept(store, replace(ACTION, params={"window": 2}))
    assert (second.get(KEY), second.get(OTHER), second.get(digest_bytes(b"three"))) == (b"code" * 100, b"", None)
    assert (second.taken, second.made) == (2, 0)


@pytest.mark.parametrize(
    "other",
    [{"tools": {"tvm": digest_bytes(b"0.28")}}, {"version": 2}, {"kind": "link"}],
    ids=["tools", "version", "kind"],
)
def test_other_tools_share_nothing(store: Store, other: dict[str, Any]) -> None:
    kept(store).put(KEY, b"code")
    assert kept(store, replace(ACTION, **other)).get(KEY) is None


def test_a_damaged_one_is_missing_wherever_it_is_damaged(store: Store) -> None:
    kept(store).put(KEY, bytes(range(256)))
    (file,) = intermediate_files(store.intermediates_path)
    content, rng = file.path.read_bytes(), random.Random(0)
    cuts = [content[:size] for size in (0, 1, 31, 32, 33, len(content) - 1)]
    flips = [
        content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :] for at in range(len(content))
    ]
    for damaged in (*cuts, *flips, content + b"x"):
        file.path.write_bytes(damaged)
        assert kept(store).get(KEY) is None and not is_sound(file.path)
    kept(store).put(KEY, b"again")
    assert kept(store).get(KEY) == b"again"


def test_a_disk_that_fails_costs_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(fs.FileSystem):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            raise OSError(28, "No space left on device")

    one = kept(store)
    store.scratch()
    monkeypatch.setattr(fs, "current", Full())
    one.put(KEY, b"code")
    monkeypatch.undo()
    assert one.get(KEY) is None and not list(intermediate_files(store.intermediates_path))


def test_a_link_in_place_of_the_directory_is_not_followed(store: Store, tmp_path: Path) -> None:
    kept(store).put(KEY, b"code")
    (directory,) = store.intermediates_path.iterdir()
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")
    one = kept(store)
    one.put(OTHER, b"code")
    assert one.get(KEY) is None
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [KEY]


def test_an_audit_names_the_damaged_and_removes_them(store: Store) -> None:
    for key in (KEY, OTHER):
        kept(store).put(key, b"code")
    damaged = store.intermediates_path.glob(f"*/{KEY}").__next__()
    damaged.write_bytes(b"x" * 40)
    (damaged.parent / "note.txt").write_bytes(b"")
    found = audit(store).findings
    assert [one.fault for one in found] == ["damaged-intermediate"] * 2
    assert {Path(one.name).name for one in found} == {KEY, "note.txt"}
    assert audit(store, repair=True).repaired == 2
    assert audit(store).findings == () and kept(store).get(OTHER) == b"code"


def aged(store: Store, seconds: dict[str, float]) -> None:
    for key, age in seconds.items():
        kept(store).put(digest_bytes(key.encode()), os.urandom(100))
        (path,) = store.intermediates_path.glob(f"*/{digest_bytes(key.encode())}")
        os.utime(path, (time.time() - age,) * 2)


def left(store: Store) -> set[str]:
    names = {digest_bytes(key.encode()): key for key in ("new", "day", "month")}
    return {names[one.path.name] for one in intermediate_files(store.intermediates_path)}  # type: ignore[index]


@pytest.mark.parametrize(
    ("policy", "stay"),
    [
        (Retention(), {"new", "day"}),
        (Retention(max_age=DAY / 2), {"new"}),
        (Retention(keep=60 * DAY), {"new", "day", "month"}),
        (Retention(keep=60 * DAY, max_size=300), {"new", "day"}),
        (Retention(max_size=0), {"new"}),
        (Retention(max_size=0, grace=0), set()),
    ],
)
def test_those_that_nobody_uses_go(store: Store, policy: Retention, stay: set[str]) -> None:
    aged(store, {"new": 60.0, "day": DAY, "month": 30 * DAY})
    store.close()
    planned = collect(store, policy, nobody, dry_run=True)
    done = collect(store, policy, nobody)
    assert left(store) == stay
    assert done.intermediates == planned.intermediates == 3 - len(stay)
    assert done.left == sum(one.size for one in intermediate_files(store.intermediates_path))


def test_a_use_is_marked(store: Store) -> None:
    aged(store, {"month": 30 * DAY})
    assert kept(store).get(digest_bytes(b"month")) is not None
    store.close()
    collect(store, Retention(), nobody)
    assert left(store) == {"month"}


def test_directories_of_forgotten_tools_go(store: Store) -> None:
    aged(store, {"month": 30 * DAY})
    store.close()
    collect(store, Retention(), nobody)
    assert list(store.intermediates_path.iterdir()) == []
    assert Survey({}, {}).intermediates_size == 0


def test_one_run_makes_a_result_and_the_others_wait_for_it(store: Store) -> None:
    made: list[str] = []

    def run(name: str) -> bytes | None:
        own = kept(store)
        with own.alone(KEY):
            if own.get(KEY) is None:
                time.sleep(0.05)
                made.append(name)
                own.put(KEY, name.encode())
            return own.get(KEY)

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(run, "abcd"))
    assert len(made) == 1 and results == {made[0].encode()}
    assert list((store.root / "locks").iterdir()) == []


def test_without_a_lock_a_result_is_made_all_the_same(store: Store) -> None:
    kept(store).put(OTHER, b"")
    (tools,) = store.intermediates_path.iterdir()
    (store.root / "locks" / f"{tools.name}-{KEY}").mkdir(parents=True)
    with kept(store).alone(KEY):
        kept(store).put(KEY, b"code")
    assert kept(store).get(KEY) == b"code"


def test_a_lock_of_a_result_is_no_running_action(store: Store) -> None:
    with kept(store).alone(KEY):
        assert running_actions(store) == frozenset()
