"""Traces: complete or not there."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from tests.helpers.engine_traces import make_trace


def test_round_trip(store: Store) -> None:
    trace = make_trace()
    assert store.traces.get(trace.action) is None
    store.traces.put(trace)
    assert store.traces.get(trace.action) == trace
    assert list(store.traces.all()) == [trace]
    store.traces.remove(trace.action)
    assert store.traces.get(trace.action) is None


def test_a_trace_without_notes_is_read_by_older_versions() -> None:
    bare = dataclasses.replace(make_trace(), notes=())
    assert b'"notes"' not in bare.to_bytes()
    assert Trace.from_bytes(bare.to_bytes()) == bare


def test_notes_are_read_as_any_record() -> None:
    for notes in (("a\x1bb",), ("x" * 5000,), ("x",) * 51):
        data = dataclasses.replace(make_trace(), notes=notes).to_bytes()
        with pytest.raises(ValueError, match="notes"):
            Trace.from_bytes(data)


def test_a_trace_cut_at_any_byte_is_a_miss(store: Store) -> None:
    trace = make_trace()
    store.traces.put(trace)
    path = store.traces.path(trace.action)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert store.traces.get(trace.action) is None, length
    path.write_bytes(data)
    assert store.traces.get(trace.action) == trace


def test_a_trace_with_any_byte_changed_is_a_miss(store: Store) -> None:
    trace = make_trace()
    store.traces.put(trace)
    path = store.traces.path(trace.action)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert store.traces.get(trace.action) is None, position


def test_a_trace_under_another_name_is_a_miss(store: Store) -> None:
    trace = make_trace()
    store.traces.put(trace)
    other = store.traces.path(digest_bytes(b"other"))
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(store.traces.path(trace.action).read_bytes())
    assert store.traces.get(digest_bytes(b"other")) is None


def test_another_format_is_refused() -> None:
    body = b'{"format":99}'
    with pytest.raises(ValueError, match="another format"):
        Trace.from_bytes(body + b"\n" + digest_bytes(body).encode() + b"\n")
    body = b'{"format":1,"action":"x"}'
    with pytest.raises(ValueError):
        Trace.from_bytes(body + b"\n" + digest_bytes(body).encode() + b"\n")


def test_a_directory_in_place_of_a_trace_is_a_miss(store: Store, tmp_path: Path) -> None:
    path = store.traces.path(make_trace().action)
    path.mkdir(parents=True)
    assert store.traces.get(make_trace().action) is None


def test_a_link_in_the_place_of_a_trace_is_marked_and_not_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    trace = make_trace()
    store.traces.put(trace)
    path, other = store.traces.path(trace.action), tmp_path / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, (1000, 1000))
    path.unlink()
    path.symlink_to(other)
    store.traces.mark_used(trace.action)
    assert other.stat().st_mtime == 1000
