"""Another cache beside the store: what it has does not run, and whatever it does no wrong byte is used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbuild.canonical import Digest, canonical_json, digest_bytes, digest_json
from llmbuild.engine import events, warning
from llmbuild.engine.lookup import Cached
from llmbuild.engine.outcome import Status
from llmbuild.engine.records import MOST_RECORD
from llmbuild.engine.sharing import Sharing
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import Interrupted
from tests.helpers.engine_build import build, join_task, text_of, write_task
from tests.helpers.remotes import FAULTS, HARMLESS, QUIET, MemoryRemote

TASKS = (
    write_task("a", {"x": "one", "deep/y": "two"}),
    write_task("empty", {}),
    write_task("void", {"nothing": ""}),
    join_task("b", "b", "a", "empty", "void"),
)


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are said again in each test."""
    monkeypatch.setattr(warning, "_said", set())


@pytest.fixture
def remote(store: Store) -> MemoryRemote:
    """A cache that was given all results of a build, with their logs."""
    remote = MemoryRemote()
    sharing = remote.sharing()
    result, _ = build(store, TASKS)
    for label, outcome in result.outcomes.items():
        assert outcome.trace is not None
        assert outcome.tree is not None
        log = store.cas.put_bytes(f"the log of {label}".encode())
        sharing.give(store, Cached(replace(outcome.trace, log=log), outcome.tree))
    sharing.finish(lambda: True)
    assert len(remote.results.data) == len(TASKS)
    return remote


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


def require_right(store: Store, path: Path) -> None:
    """All that is in a store is what its name says, and the build's end is right."""
    found = list((path / "blobs").rglob("*")) if path.exists() else []
    for blob in found:
        if blob.is_file():
            assert digest_bytes(blob.read_bytes()) == blob.parent.name + blob.name
    assert all(store.cas.missing(store.cas.get_tree(trace.output)) == [] for trace in store.traces.all())
    assert not [one for one in (path / "scratch").rglob("*") if one.is_file() and one.suffix not in (".lock", "")]


def test_a_second_store_runs_nothing(remote: MemoryRemote, other: Store) -> None:
    result, recorder = build(other, TASKS, sharing=remote.sharing())
    assert result.labels(Status.CACHED) == [task.label for task in TASKS]
    assert text_of(other, result, "b") == "b|two|one|"
    taken = [event for event in recorder.events if isinstance(event, events.CachedTask)]
    assert {(event.source, event.remote) for event in taken} == {("remote", "memory")}
    trace = result.outcomes["b"].trace
    assert trace is not None
    assert trace.log is not None
    assert other.cas.get_bytes(trace.log) == b"the log of b"
    assert recorder.labels(events.Started) == []
    # From now on it is the store's own.
    again = remote.opened
    _, recorder = build(other, TASKS, sharing=remote.sharing())
    assert {event.source for event in recorder.events if isinstance(event, events.CachedTask)} == {"store"}
    assert remote.opened == again


def test_what_is_forced_runs(remote: MemoryRemote, other: Store) -> None:
    result, _ = build(other, TASKS, sharing=remote.sharing(), force=["a"])
    assert result.labels(Status.RAN) == ["a"]


def test_what_may_only_be_read_is_given_nothing(store: Store) -> None:
    remote = MemoryRemote()
    build(store, TASKS, sharing=remote.sharing(write=False))
    assert (remote.results.data, remote.blobs.data) == ({}, {})


def test_what_is_not_whole_in_the_store_is_not_given(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """A file was left where its owner has it, or was collected meanwhile."""
    remote = MemoryRemote()
    result, _ = build(store, TASKS)
    sharing = remote.sharing()
    outcome = result.outcomes["a"]
    assert outcome.trace is not None
    assert outcome.tree is not None
    store.cas.remove(digest_bytes(b"one"))
    sharing.give(store, Cached(outcome.trace, outcome.tree))
    sharing.finish(lambda: True)
    assert (remote.blobs.data, remote.results.data) == ({}, {})
    assert "warning" not in capsys.readouterr().err


def test_what_is_known_to_be_wrong_is_refused(
    remote: MemoryRemote, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the lock file promises is known whatever a cache claims; no file of such a result is taken."""

    def refuse(action: Digest, tree: Tree) -> str | None:
        assert action in remote.results.data
        return "not what was locked" if any(file.path == "x" for file in tree.files) else None

    sharing = Sharing("memory", remote.open, write=False, refuse=refuse)
    remote.blobs.asked.clear()
    result, _ = build(other, TASKS, sharing=sharing)
    assert result.labels(Status.RAN) == ["a"]
    assert digest_bytes(b"one") not in remote.blobs.asked
    assert "is refused: not what was locked: the build goes on without it" in capsys.readouterr().err


def test_only_missing_blobs_are_given_and_always_before_the_result(store: Store, other: Store) -> None:
    remote = MemoryRemote()
    put: list[str] = []
    keep_blob, keep_record = remote.blobs.put, remote.results.put

    def put_blob(digest: object, file: Path) -> None:
        put.append(str(digest))
        keep_blob(digest, file)  # type: ignore[arg-type]

    def put_record(action: object, record: bytes) -> None:
        trace = Trace.from_bytes(record)
        tree = Tree.from_bytes(remote.blobs.data[trace.output])
        assert {entry.digest for entry in tree.files} <= remote.blobs.data.keys()
        keep_record(action, record)  # type: ignore[arg-type]

    remote.blobs.put, remote.results.put = put_blob, put_record  # type: ignore[method-assign, assignment]
    build(store, TASKS, sharing=remote.sharing())
    assert len(put) == len(set(put))
    first = list(put)
    build(other, TASKS, sharing=remote.sharing(), force=[task.label for task in TASKS])
    assert put == first


def test_a_log_that_is_gone_makes_no_miss(remote: MemoryRemote, other: Store) -> None:
    for label in ("a", "b"):
        del remote.blobs.data[digest_bytes(f"the log of {label}".encode())]
    result, _ = build(other, TASKS, sharing=remote.sharing())
    assert result.labels(Status.CACHED) == [task.label for task in TASKS]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_blob_is_a_miss(
    remote: MemoryRemote, other: Store, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each blob of a result in turn: the file, the list of the files, and the log."""
    digests = sorted(digest for digest, data in remote.blobs.data.items() if data)
    for number, digest in enumerate(digests):
        remote.blobs.faults = {digest: FAULTS[fault]}
        warning._said.clear()
        capsys.readouterr()
        place = other.root.with_name(f"other{number}")
        fresh = Store(place)
        result, _ = build(fresh, TASKS, sharing=remote.sharing(write=False))
        assert text_of(fresh, result, "b") == "b|two|one|"
        require_right(fresh, place)
        said = capsys.readouterr().err.count("warning: ")
        assert said == (0 if fault in HARMLESS | QUIET else 1)
        fresh.close()


def test_a_cache_with_a_wrong_blob_is_mended(remote: MemoryRemote, other: Store) -> None:
    for digest, data in list(remote.blobs.data.items()):
        remote.blobs.data[digest] = data[:-1]
    build(other, TASKS, sharing=remote.sharing())
    wrong = [digest for digest, data in remote.blobs.data.items() if data and digest_bytes(data) != digest]
    # The list of the files of each result was looked at, and what is behind a wrong one was not.
    lists = {trace.output for trace in other.traces.all()}
    assert not lists & set(wrong)


def _as_another(record: bytes) -> bytes:
    trace = Trace.from_bytes(record)
    key = {**trace.key, "version": 7}
    return replace(trace, key=key, action=digest_json(key)).to_bytes()


def _two_keys(record: bytes) -> bytes:
    """A record whose own key is in another one's parameters, where a look for its first bytes finds it."""
    trace = Trace.from_bytes(record)
    own = canonical_json(trace.key)
    body = canonical_json({"format": 1, **{name: getattr(trace, name) for name in Trace.__slots__}})
    fake = canonical_json({**trace.key, "version": 7})
    fake = fake.replace(b'"params":{', b'"params":{"a":0,"key":' + own + b',"kind":0,')
    body = body.replace(b'"key":' + own + b",", b"").replace(b"{", b'{"key":' + fake + b",", 1)
    body = b',"kind" :'.join(body.rsplit(b',"kind":', 1))
    return body + b"\n" + digest_bytes(body).encode() + b"\n"


def _tree_of(remote: MemoryRemote, record: bytes, data: bytes) -> bytes:
    digest = digest_bytes(data)
    remote.blobs.data[digest] = data
    return replace(Trace.from_bytes(record), output=digest).to_bytes()


_NAMES = ("../x", "/x", "a/../b", "a//b", ".", "a\0b", "x\n")
_SAME = [["x", digest_bytes(b"one"), 3, False]]

LIES: dict[str, Callable[[MemoryRemote, bytes], object]] = {
    "another action": lambda _remote, record: _as_another(record),
    "two keys": lambda _remote, record: _two_keys(record),
    "truncated": lambda _remote, record: record[:-2],
    "flipped": lambda _remote, record: record[:9] + bytes([record[9] ^ 1]) + record[10:],
    "empty": lambda _remote, _record: b"",
    "oversized": lambda _remote, _record: b" " * (MOST_RECORD + 1),
    "text": lambda _remote, record: record.decode(),
    "number": lambda _remote, _record: 3,
    "no tree": lambda remote, record: _tree_of(remote, record, b"{}"),
    "deep": lambda remote, record: _tree_of(remote, record, b"[" * 100_000),
    "twice": lambda remote, record: _tree_of(remote, record, canonical_json(_SAME * 2)),
    "larger than the disk": lambda remote, record: _tree_of(
        remote, record, Tree((FileEntry("x", digest_bytes(b""), 1 << 62),)).to_bytes()
    ),
    **{
        f"name {name!r}": lambda remote, record, name=name: _tree_of(
            remote, record, canonical_json([[name, digest_bytes(b"one"), 3, False]])
        )
        for name in _NAMES
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_is_not_of_its_action_is_a_miss(
    remote: MemoryRemote, other: Store, lie: str, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.results.lie = lambda record: LIES[lie](remote, record)
    result, _ = build(other, TASKS, sharing=remote.sharing(write=False))
    assert result.labels(Status.RAN) == [task.label for task in TASKS]
    assert text_of(other, result, "b") == "b|two|one|"
    require_right(other, other.root)
    assert capsys.readouterr().err.count("warning: memory: the other cache ") == 1


def test_a_dead_cache_is_said_once_and_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def refuse() -> object:
        asked.append(1)
        raise ConnectionRefusedError("nobody listens\nand more")

    tasks = [write_task(f"t{number}", {"x": str(number)}) for number in range(20)]
    result, _ = build(store, tasks, sharing=Sharing("far", refuse))  # type: ignore[arg-type]
    assert len(result.labels(Status.RAN)) == 20
    assert len(asked) == 3
    assert capsys.readouterr().err == (
        "warning: far: the other cache cannot be used: ConnectionRefusedError: nobody listens: the build goes on without it\n"
    )


def test_a_cache_that_takes_nothing_fails_no_build(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    remote = MemoryRemote()
    remote.blobs.put = lambda _digest, _file: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    result, _ = build(store, TASKS, sharing=remote.sharing())
    assert result.ok
    assert capsys.readouterr().err.count("warning: ") == 1
    assert remote.results.data.keys() <= {one.action for one in result.outcomes.values()}


def test_a_stop_ends_the_taking(remote: MemoryRemote, other: Store) -> None:
    """A cache that is slow for ever holds up nobody who wants to go."""
    digest = digest_bytes(b"one")
    going = threading.Event()

    def stop() -> None:
        if going.is_set():
            raise Interrupted("the build was interrupted")

    def slow(data: bytes) -> list[bytes]:
        going.set()
        return [data[:1], data[1:]]

    remote.blobs.faults = {digest: slow}
    action = next(action for action, one in remote.results.data.items() if Trace.from_bytes(one).label == "a")
    with pytest.raises(Interrupted):
        remote.sharing().take(other, action, stop)
    assert not other.cas.has(digest)
    assert other.traces.names() == []


def test_nobody_waits_for_gifts_after_a_stop(store: Store) -> None:
    remote = MemoryRemote()
    held = threading.Event()
    keep = remote.blobs.put

    def put(digest: object, file: Path) -> None:
        held.wait(10)
        keep(digest, file)  # type: ignore[arg-type]

    remote.blobs.put = put  # type: ignore[assignment, method-assign]
    result, _ = build(store, TASKS)
    sharing = remote.sharing()
    for outcome in result.outcomes.values():
        assert outcome.trace is not None
        assert outcome.tree is not None
        sharing.give(store, Cached(outcome.trace, outcome.tree))
    sharing.finish(lambda: False)
    held.set()
    assert remote.results.data == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_faults_together(remote: MemoryRemote, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a cache does to any of its blobs and records: the build ends well, and all that is stored is right."""
    digests = sorted(digest for digest, content in remote.blobs.data.items() if content)
    chosen = data.draw(st.dictionaries(st.sampled_from(digests), st.sampled_from(sorted(FAULTS))))
    lies = data.draw(st.lists(st.sampled_from(sorted(LIES)) | st.none(), max_size=len(TASKS)))
    spoken = dict(zip(sorted(remote.results.data), lies, strict=False))
    kept = dict(remote.blobs.data)
    remote.blobs.faults = {digest: FAULTS[name] for digest, name in chosen.items()}

    def lie(record: bytes) -> object:
        name = spoken.get(Trace.from_bytes(record).action)
        return record if name is None else LIES[name](remote, record)

    remote.results.lie = lie
    path = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
    fresh = Store(path)
    try:
        result, _ = build(fresh, TASKS, sharing=remote.sharing(write=False))
        assert text_of(fresh, result, "b") == "b|two|one|"
        require_right(fresh, path)
    finally:
        fresh.close()
        remote.blobs.data = kept
