"""A directory that machines share: a store, seen as a cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.cli.main import main
from llmbuild.engine import warning
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, StoreError
from llmbuild.remotes.directory import open_remote
from llmbuild.remotes.named import named_remote
from tests.helpers.engine_build import build, write_task

TASKS = (write_task("a", {"x": "1"}),)
CONTENT = digest_bytes(b"1")


@pytest.fixture
def shared(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(warning, "_said", set())
    place = tmp_path / "shared"
    build(store, TASKS, sharing=named_remote(str(place)))
    return place


def test_it_is_a_store_with_all_that_a_result_needs(shared: Path) -> None:
    assert main(["cache", "verify", "--cache-dir", str(shared)]) == ExitCode.OK
    opened = Store(shared)
    (action,) = opened.traces.names()
    trace = opened.traces.get(action)
    assert trace is not None
    assert not opened.cas.missing(opened.cas.get_tree(trace.output))


def test_a_result_whose_blob_was_collected_is_a_miss_and_comes_back(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = Store(shared).cas.blob_path(CONTENT)
    blob.unlink()
    result, _ = build(Store(tmp_path / "other"), TASKS, sharing=named_remote(str(shared)))
    assert result.labels(Status.RAN) == ["a"]
    assert blob.read_bytes() == b"1"
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["damaged", "huge", "pipe", "directory", "device"])
def test_what_is_no_blob_is_a_miss(shared: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    blob = Store(shared).cas.blob_path(CONTENT)
    blob.unlink()
    match what:
        case "damaged":
            blob.write_bytes(b"2")
        case "huge":
            # No blocks, and a terabyte to hash.
            blob.touch()
            os.truncate(blob, 1 << 40)
        case "pipe":
            os.mkfifo(blob)
        case "directory":
            blob.mkdir()
        case "device":
            blob.symlink_to("/dev/zero")
    other = Store(tmp_path / "other")
    result, _ = build(other, TASKS, sharing=named_remote(str(shared)))
    assert result.labels(Status.RAN) == ["a"]
    assert capsys.readouterr().err.count("warning: ") == 1
    # Who found it wrong puts the right one in its place.
    assert what not in ("damaged", "huge") or blob.read_bytes() == b"1"


def test_a_place_that_is_no_directory_of_this_llmbuild(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("99\n")
    with pytest.raises(StoreError, match="another version"):
        open_remote(str(tmp_path))
