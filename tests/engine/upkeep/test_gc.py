"""Collection: what goes, what stays, and that whatever went is built again with the same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbuild.canonical import digest_bytes
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.locks import FileLock
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.gc import DAY, Retention, choose, collect, horizon
from llmbuild.engine.upkeep.survey import BlobFacts, Survey, TraceFacts, survey
from tests.helpers.engine_build import build, join_task, snapshot, text_of, write_task

LATER = 3600.0
EVERYTHING = Retention(max_size=0, keep=0, grace=0)


class All:
    def __contains__(self, _label: object) -> bool:
        return True


def nobody(_project: str) -> Container[str] | None:
    return None


def everybody(_project: str) -> Container[str] | None:
    return All()


def graph(text: str = "1") -> list[Task]:
    return [write_task("a", {"x": text, "y": "same"}), join_task("b", "b", "a"), join_task("c", "c", "a", "b")]


def age(store: Store, label: str, seconds: float) -> None:
    for trace in store.traces.all():
        if trace.label == label:
            when = time.time() - seconds
            os.utime(store.traces.path(trace.action), (when, when))


def labels(store: Store) -> list[str]:
    return sorted(trace.label for trace in store.traces.all())


# Random stores, decided without a disk.

BLOB_NAMES = [digest_bytes(str(number).encode()) for number in range(8)]


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    times = st.integers(0, 100).map(float)
    blobs = {
        name: BlobFacts(draw(st.integers(0, 50)), draw(times), 1)
        for name in BLOB_NAMES
        if draw(st.integers(0, 9))  # One in ten is lost.
    }
    traces = {}
    for number in range(draw(st.integers(0, 6))):
        action = digest_bytes(f"action {number}".encode())
        refs = frozenset(draw(st.lists(st.sampled_from(BLOB_NAMES), min_size=1, max_size=4)))
        traces[action] = TraceFacts(action, "k", f"t{number}", "p", min(refs), 1, draw(times), refs)
    some = st.sets(st.sampled_from(sorted(traces))) if traces else st.just(set())
    return Survey(
        blobs=blobs,
        traces=traces,
        roots={action: draw(times) for action in sorted(draw(some))},
        running=frozenset(draw(some)),
        pinned=frozenset(draw(st.sets(st.sampled_from(BLOB_NAMES), max_size=2))),
        writers=tuple(sorted(draw(st.lists(times, max_size=2)))),
    )


def policies() -> st.SearchStrategy[Retention]:
    return st.builds(
        Retention,
        max_size=st.none() | st.integers(0, 300),
        max_age=st.none() | st.integers(0, 120).map(float),
        keep=st.integers(0, 120).map(float),
        grace=st.integers(0, 120).map(float),
    )


@settings(max_examples=400, deadline=None)
@given(surveys(), policies())
def test_a_choice_keeps_what_it_must_and_no_more(found: Survey, policy: Retention) -> None:
    now = 100.0
    choice = choose(found, policy, now)
    limit = horizon(found, policy, now)
    gone = {trace.action for trace in choice.traces}
    stays = [trace for action, trace in found.traces.items() if action not in gone]
    needed = {ref for trace in stays for ref in trace.refs}
    roots = {action for action, built in found.roots.items() if built >= now - policy.keep}

    # What is used, running, claimed or referred to stays.
    assert all(trace.used < limit and trace.action not in found.running for trace in choice.traces)
    assert not needed & set(choice.blobs)
    assert not found.pinned & set(choice.blobs)
    assert all(found.blobs[digest].changed < limit for digest in choice.blobs)
    # What nothing refers to goes, and the sums are right.
    for digest, blob in found.blobs.items():
        if digest not in needed and digest not in found.pinned and blob.changed < limit:
            assert digest in choice.blobs
    assert len(set(choice.blobs)) == len(choice.blobs)
    assert choice.freed == sum(found.blobs[digest].size for digest in choice.blobs)
    assert choice.left == found.size - choice.freed

    candidates = {a for a, t in found.traces.items() if t.used < limit and a not in found.running}
    old = {a for a in candidates - roots if policy.max_age is not None and found.traces[a].used < now - policy.max_age}
    assert old <= gone
    assert choice.forced == len(gone & roots)
    if policy.max_size is None:
        assert gone == old
        assert choice.over == 0
        return
    assert choice.over == max(0, choice.left - policy.max_size)
    if choice.over:
        # Nothing more could be done.
        assert gone == candidates
    # Roots go last, and only while the rest is too large: before the last trace went, there was too much.
    if gone & roots:
        assert candidates - roots <= gone
    by_size = [trace for trace in choice.traces if trace.action not in old]
    for kind in (True, False):
        uses = [(trace.used, trace.action) for trace in by_size if (trace.action in roots) is kind]
        assert uses == sorted(uses)
    if by_size:
        kept = found.traces.keys() - (gone - {by_size[-1].action})
        before = {ref for action in kept for ref in found.traces[action].refs}
        removable = [d for d, b in found.blobs.items() if d not in found.pinned and b.changed < limit]
        assert found.size - sum(found.blobs[d].size for d in removable if d not in before) > policy.max_size


# Real stores.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3"]),
        st.none() | st.integers(0, 60),
        st.sampled_from([0.0, 14 * DAY]),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_after_any_collection_the_next_build_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int | None, float, bool]]
) -> None:
    store = Store(tmp_path_factory.mktemp("gc") / "store")
    for text, max_size, keep, lived in steps:
        result, _ = build(store, graph(text))
        assert result.ok
        assert text_of(store, result, "c") == f"c|{text}|same|b|{text}|same"
        store.close()
        collected = collect(
            store, Retention(max_size, keep=keep, grace=0), everybody if lived else nobody, now=time.time() + LATER
        )
        again = survey(store)
        if max_size is not None:
            assert again.size <= max_size
        if max_size is None and keep and lived:
            assert build(store, graph(text))[0].labels(Status.CACHED) == ["a", "b", "c"]
        assert collected.left == again.size
        referred = {ref for trace in again.traces.values() for ref in trace.refs}
        assert set(again.blobs) <= referred
    store.close()


def test_only_garbage_goes_without_limits(store: Store) -> None:
    build(store, graph())
    store.cas.put_bytes(b"nothing refers to this")
    store.close()
    collected = collect(store, Retention(), nobody, now=time.time() + LATER)
    assert (collected.traces, collected.blobs, collected.freed) == (0, 1, 22)
    assert build(store, graph())[0].labels(Status.CACHED) == ["a", "b", "c"]


def test_a_dry_run_changes_nothing_and_says_the_same(store: Store) -> None:
    build(store, graph())
    store.close()
    before = snapshot(store.root)
    told = collect(store, EVERYTHING, nobody, dry_run=True, now=time.time() + LATER)
    assert snapshot(store.root) == before
    done = collect(store, EVERYTHING, nobody, now=time.time() + LATER)
    assert (told.traces, told.blobs, told.freed, told.left) == (done.traces, done.blobs, done.freed, done.left)
    assert (done.traces, done.left) == (3, 0)


def test_the_least_recently_used_goes_first(store: Store) -> None:
    for name, days in (("old", 3), ("older", 9), ("new", 1)):
        build(store, [write_task(name, {"x": name * 100})])
        age(store, name, days * DAY)
    store.close()
    size = survey(store).size
    collect(store, Retention(max_size=size - 1, keep=0, grace=0), nobody, now=time.time() + LATER)
    assert labels(store) == ["new", "old"]
    collect(store, Retention(max_age=2 * DAY, keep=0, grace=0), nobody, now=time.time() + LATER)
    assert labels(store) == ["new"]


def test_a_hit_counts_as_use(store: Store) -> None:
    build(store, graph())
    for label in "abc":
        age(store, label, 9 * DAY)
    build(store, [write_task("a", {"x": "1", "y": "same"})])
    collect(store, Retention(max_age=DAY, keep=0), nobody)
    assert labels(store) == ["a"]


def test_roots_outlive_an_age_but_not_a_size(store: Store) -> None:
    build(store, graph())
    for label in "abc":
        age(store, label, 30 * DAY)
    store.close()
    now = time.time() + LATER
    assert collect(store, Retention(max_age=DAY, grace=0), everybody, now=now).traces == 0
    # The label is not in the manifest any more.
    assert collect(store, Retention(max_age=DAY, grace=0), lambda _project: ("a", "b"), now=now).traces == 1
    assert labels(store) == ["a", "b"]
    assert collect(store, Retention(max_age=DAY, grace=0), everybody, now=now + 15 * DAY).traces == 2
    build(store, graph())
    store.close()
    collected = collect(store, Retention(max_size=0, grace=0), everybody, now=now)
    assert (collected.choice.forced, collected.left) == (3, 0)


def test_an_old_build_of_nothing_new_keeps_its_roots(store: Store) -> None:
    build(store, graph())
    history = store.history("test").path
    os.utime(history, (1, 1))
    build(store, graph())
    assert history.stat().st_mtime > 1


def test_grace_protects_what_was_just_written(store: Store) -> None:
    build(store, graph())
    store.close()
    collected = collect(store, Retention(max_size=0, keep=0, grace=600), nobody)
    assert (collected.traces, collected.blobs) == (0, 0)
    assert collected.choice.over == survey(store).size > 0


def test_running_actions_and_what_they_read_stay(store: Store) -> None:
    build(store, graph())
    running = next(trace.action for trace in store.traces.all() if trace.label == "b")
    store.close()
    lock = store.lock(running)
    assert lock.try_acquire("b")
    try:
        collect(store, EVERYTHING, nobody, now=time.time() + LATER)
    finally:
        lock.release()
    assert labels(store) == ["b"]
    for value in store.get_action(running).action.inputs.values():
        tree = store.cas.get_tree(value.tree)  # type: ignore[union-attr]
        assert not store.cas.missing(tree)


def test_a_writer_s_claims_and_all_since_it_began_stay(store: Store, tmp_path: Path) -> None:
    build(store, graph())
    store.close()
    digest = store.cas.put_bytes(b"claimed")
    store.close()
    store.cas.put_bytes(b"claimed")
    # Nothing but the claim of the process that lives holds it.
    collect(store, EVERYTHING, nobody, now=time.time() + LATER)
    assert store.cas.has(digest)
    store.close()
    collect(store, EVERYTHING, nobody, now=time.time() + LATER)
    with pytest.raises(MissingBlobError):
        store.cas.path(digest)


def test_a_trace_that_is_marked_meanwhile_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    build(store, graph())
    for label in "abc":
        age(store, label, DAY)
    store.close()
    decided = choose

    def mark(*arguments: object) -> object:
        choice = decided(*arguments)  # type: ignore[arg-type]
        build(store, [write_task("a", {"x": "1", "y": "same"})])
        return choice

    monkeypatch.setattr("llmbuild.engine.upkeep.gc.choose", mark)
    collected = collect(store, EVERYTHING, nobody, now=time.time() + LATER)
    assert (collected.traces, labels(store)) == (2, ["a"])
    assert build(store, graph())[0].labels(Status.CACHED) == ["a"]


def test_records_and_locks_go_with_their_traces_and_histories(store: Store) -> None:
    build(store, graph())
    ended = store.lock("0" * 64)
    assert ended.try_acquire("ended")
    ended.release()
    store.close()
    held = FileLock(store.root / "locks" / ("1" * 64))
    assert held.try_acquire("held")
    now = time.time() + LATER
    collect(store, EVERYTHING, nobody, now=now)
    # The history still names the three: their records tell what changed since.
    assert len(list((store.root / "actions").rglob("*.json"))) == 3
    (history,) = (store.root / "projects").iterdir()
    history.unlink()
    collect(store, EVERYTHING, nobody, now=now)
    assert list((store.root / "actions").rglob("*.json")) == []
    assert [path.name for path in (store.root / "locks").iterdir()] == ["1" * 64]
    held.release()


def test_damaged_traces_and_old_leftovers_go(store: Store) -> None:
    build(store, graph())
    path = store.traces.path(next(store.traces.all()).action)
    path.write_bytes(b"{")
    for name in ("logs/old.log", "partial/download", "resume/action/shard"):
        leftover = store.root / name
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(b"x")
        os.utime(leftover, (1, 1))
        os.utime(leftover.parent, (1, 1))
    new = store.root / "logs" / "new.log"
    new.write_bytes(b"x")
    store.close()
    collected = collect(store, Retention(grace=0), nobody, now=time.time() + LATER)
    assert collected.leftovers == 3
    assert not path.exists()
    assert new.exists()


def test_what_is_no_lock_among_the_locks_is_in_nobody_s_way(store: Store, tmp_path: Path) -> None:
    build(store, graph())
    (store.root / "locks" / "directory").mkdir()
    (store.root / "locks" / "link").symlink_to(tmp_path)
    collect(store, Retention(max_size=0, grace=0.0), nobody, now=time.time() + 30 * DAY)
    assert labels(store) == []
    assert (store.root / "locks" / "directory").is_dir()
