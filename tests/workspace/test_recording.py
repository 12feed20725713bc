"""The record of the last build on disk: whole after a build, partial after a crash, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.errors import StoreError, UsageError
from llmbuild.workspace.recording import Recording, last_build, read_events
from tests.helpers.build_events import BUILD, KILLED, NULL


def record(root: Path, build: object, also: Path | None = None) -> Path:
    with Recording(root, also) as recording:
        for event in build:  # type: ignore[attr-defined]
            recording.write(event)
    return recording.last


def test_a_build_is_recorded_whole(tmp_path: Path) -> None:
    path = record(tmp_path, BUILD, tmp_path / "also.ndjson")
    assert path == tmp_path / ".llmbuild/last-build.ndjson" == last_build(tmp_path)
    assert [event["type"] for event in read_events(path)][:2] == ["plan-made", "cached-task"]
    assert path.read_text() == (tmp_path / "also.ndjson").read_text()
    assert [path.name for path in (tmp_path / ".llmbuild").iterdir()] == ["last-build.ndjson"]


def test_the_next_build_replaces_it(tmp_path: Path) -> None:
    record(tmp_path, BUILD)
    record(tmp_path, NULL)
    assert len(read_events(tmp_path / ".llmbuild/last-build.ndjson")) == len(NULL)


def test_a_reader_finds_a_whole_build_while_the_next_one_runs(tmp_path: Path) -> None:
    record(tmp_path, NULL)
    with Recording(tmp_path) as recording:
        for event in KILLED:
            recording.write(event)
        found = last_build(tmp_path)
        assert found is not None and len(read_events(found)) == len(NULL)


CRASH = """
import os, sys
from pathlib import Path
from llmbuild.workspace.recording import Recording
from tests.helpers.build_events import KILLED
recording = Recording(Path(sys.argv[1]))
recording.__enter__()
for event in KILLED:
    recording.write(event)
os._exit(9)
"""


def crash(root: Path) -> None:
    here = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", CRASH, str(root)], cwd=here, check=False)
    assert done.returncode == 9


def test_a_build_that_was_killed_leaves_what_happened(tmp_path: Path) -> None:
    record(tmp_path, BUILD)
    crash(tmp_path)
    found = last_build(tmp_path)
    assert found is not None and found.name.endswith(".partial.ndjson")
    assert len(read_events(found)) == len(KILLED)
    record(tmp_path, NULL)
    assert last_build(tmp_path) == tmp_path / ".llmbuild/last-build.ndjson"
    assert [path.name for path in (tmp_path / ".llmbuild").iterdir()] == ["last-build.ndjson"]


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    path = record(tmp_path, BUILD)
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(read_events(path)) in (len(BUILD) - 1, len(BUILD))


def test_an_error_in_the_build_is_recorded_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Recording(tmp_path) as recording:
        for event in KILLED:
            recording.write(event)
        raise RuntimeError
    assert len(read_events(recording.last)) == len(KILLED)


def test_a_directory_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".llmbuild").write_text("in the way")
    record(tmp_path, BUILD)
    assert last_build(tmp_path) is None


def test_an_events_file_that_cannot_be_written_does(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write the events"), Recording(tmp_path, tmp_path):
        pass
    with pytest.raises(UsageError, match="there is no directory"), Recording(tmp_path, tmp_path / "no/file"):
        pass


def test_nothing_is_written_before_something_runs(tmp_path: Path) -> None:
    with Recording(tmp_path) as recording:
        for event in NULL[:-2]:
            recording.write(event)
        assert not (tmp_path / ".llmbuild").exists()
        for event in NULL[-2:]:
            recording.write(event)
    assert len(read_events(recording.last)) == len(NULL)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("[1]\n", "{}\nnot json\n{}\n"):
        path.write_text(text)
        with pytest.raises(StoreError, match="is not a file of events"):
            read_events(path)
    with pytest.raises(StoreError, match="the events cannot be read"):
        read_events(tmp_path / "none")
    path.write_text("")
    assert read_events(path) == []


def test_lines_are_compact_json(tmp_path: Path) -> None:
    first = record(tmp_path, BUILD).read_text().splitlines()[0]
    assert first == json.dumps(json.loads(first), separators=(",", ":"), ensure_ascii=False)


def test_nothing_is_recorded_through_a_link(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "last-build-1.partial.ndjson").write_text("mine")
    (project / ".llmbuild").mkdir(parents=True)
    (project / ".llmbuild/manifests").symlink_to(elsewhere)
    (elsewhere / "second.toml").symlink_to(".")
    with Recording(project, manifest="second.toml") as recording:
        recording.write(next(event for event in BUILD if type(event).__name__ == "Started"))
    assert [path.name for path in sorted(elsewhere.iterdir())] == ["last-build-1.partial.ndjson", "second.toml"]
    # A link that has the name of this process's own file is replaced, not followed.
    (project / f".llmbuild/last-build-{os.getpid()}.partial.ndjson").symlink_to(
        elsewhere / "last-build-1.partial.ndjson"
    )
    with Recording(project) as recording:
        recording.write(next(event for event in BUILD if type(event).__name__ == "Started"))
    assert (elsewhere / "last-build-1.partial.ndjson").read_text() == "mine"
    assert '"started"' in (project / ".llmbuild/last-build.ndjson").read_text()
