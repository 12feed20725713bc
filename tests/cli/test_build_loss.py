"""What happens to results under a running build: blobs that are damaged, and blobs that another process collects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Digest
from llmbuild.cli import main as cli
from llmbuild.engine.cas import Cas, MissingBlobError
from llmbuild.engine.files import Shared
from llmbuild.engine.store import Store
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project, read_events


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDir:
    """A project on a tiny model whose commands run in this process."""
    project = make_project(tmp_path, checkpoint=cached_checkpoint("llama"))
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    return project


def blobs_of(store: Store, label: str) -> dict[str, Path]:
    """The files of a task's output with their blobs."""
    trace = next(trace for trace in store.traces.all() if trace.label == label)
    return {one.path: store.cas.blob_path(one.digest) for one in store.cas.get_tree(trace.output).files}


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes([data[0] ^ 4]) + data[1:])


def reasons(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {one["label"]: [reason["text"] for reason in one["reasons"]] for one in events if one["type"] == "explained"}


def test_a_damaged_file_is_the_reason(tiny: ProjectDir) -> None:
    assert tiny.run("build", "config").code == 0
    blobs = blobs_of(Store(tiny.store), "fetch[tiny]")
    damage(blobs["config.json"])
    assert tiny.run("build", "config", "--events", "events").code == 0
    events = read_events(tiny.root / "events")
    assert reasons(events)["fetch[tiny]"] == ["config.json was damaged in the cache"]
    assert [one["path"] for one in events if one["type"] == "corrupt-blob"] == [str(blobs["config.json"])]


def test_a_damaged_list_of_files_is_the_reason(tiny: ProjectDir) -> None:
    assert tiny.run("build", "config").code == 0
    store = Store(tiny.store)
    trace = next(trace for trace in store.traces.all() if trace.kind == "fetch")
    damage(store.cas.blob_path(trace.output))
    assert tiny.run("build", "config", "--events", "events").code == 0
    assert reasons(read_events(tiny.root / "events"))["fetch[tiny]"] == [
        "the list of its files was damaged in the cache"
    ]


class Collector:
    """Takes a blob away in the moment at which it is installed, as a collection in another process may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.times = times
        share_out = Cas.share_out

        def patched(cas: Cas, digest: Digest, dest: Path, executable: bool = False) -> Shared:
            if self.times and dest.name == "params_shard_0.bin":
                self.times -= 1
                cas.remove(digest)
                raise MissingBlobError(digest)
            return share_out(cas, digest, dest, executable)

        monkeypatch.setattr(Cas, "share_out", patched)


def test_a_result_that_vanishes_before_it_is_installed_is_built_again(
    tiny: ProjectDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Collector(monkeypatch, times=1)
    assert cli.main(["build", "quantize", "config", "--events", "events"]) == 0
    assert (tiny.root / "dist/tiny-q4f32_1-MLC/params_shard_0.bin").is_file()
    events = read_events(tiny.root / "events")
    types = [one["type"] for one in events]
    assert (types[0], types[-2:], types.count("plan-made"), types.count("summary")) == (
        "plan-made", ["installed", "summary"], 1, 1,
    )  # fmt: skip
    assert [one["label"] for one in events if one["type"] == "finished"].count("quantize[tiny, q4f32_1]") == 2
    assert reasons(events)["quantize[tiny, q4f32_1]"] == ["its output is no longer in the cache"]
    assert (events[-1]["ran"], events[-1]["cached"], events[-1]["failed"]) == (4, 0, 0)
    assert "built 4 tasks" in capsys.readouterr().err
    assert cli.main(["build", "quantize", "config", "--events", "events"]) == 0
    assert json.loads((tiny.root / "events").read_text().splitlines()[-1])["ran"] == 0


def test_a_result_that_vanishes_again_and_again_is_an_error(
    tiny: ProjectDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Collector(monkeypatch, times=9)
    assert cli.main(["build", "quantize", "--quiet"]) == 6
    assert "is not in the cache" in capsys.readouterr().err
    assert tiny.root.is_dir()
