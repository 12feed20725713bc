"""Export and import: round trips, and archives that are damaged, cut off or made to do harm."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.outcome import Status
from llmbuild.engine.records import MOST_RECORD
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.archive import export, import_archive
from llmbuild.engine.upkeep.audit import audit
from llmbuild.errors import InputError, StoreError
from tests.helpers.engine_build import build, join_task, snapshot, text_of, write_task

TEXT = "b|1|a|1"


def graph() -> list[Task]:
    return [write_task("a", {"x": "1"}), join_task("b", "b", "a"), join_task("c", "c", "a", "b")]


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Path:
    build(store, graph())
    path = tmp_path / "cache.tar"
    export(store, store.traces.names(), path)
    return path


def results(store: Store) -> dict[str, bytes]:
    """Blobs, traces and records of a store."""
    kept = ("blobs", "traces", "actions")
    return {name: data for name, data in snapshot(store.root).items() if name.split("/")[0] in kept}


def other(tmp_path: Path, name: str = "other") -> Store:
    return Store(tmp_path / name)


def test_a_round_trip_gives_the_same_store(store: Store, archive: Path, tmp_path: Path) -> None:
    there = other(tmp_path)
    packed = import_archive(there, archive)
    # No project of the other store has asked for the actions.
    for digest in store.traces.names():
        store.put_action(replace(store.get_action(digest), project=""))
    assert results(there) == results(store)
    assert (packed.traces, packed.new_traces, packed.new_blobs) == (3, 3, packed.blobs)
    result, _ = build(there, graph())
    assert result.labels(Status.CACHED) == ["a", "b", "c"]
    assert text_of(there, result, "c") == "c|1|b|1"
    assert not audit(there).findings
    again = import_archive(there, archive)
    assert (again.new_traces, again.new_blobs) == (0, 0)


def test_an_archive_is_a_function_of_what_is_in_it(store: Store, archive: Path, tmp_path: Path) -> None:
    there = other(tmp_path)
    import_archive(there, archive)
    export(there, reversed(there.traces.names()), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    folders = [member.name.split("/")[0] for member in members]
    assert list(dict.fromkeys(folders)) == ["llmbuild-cache", "blobs", "actions", "traces", "checksum"]


def test_a_selection_takes_only_its_own(store: Store, tmp_path: Path) -> None:
    build(store, graph())
    wanted = next(trace.action for trace in store.traces.all() if trace.label == "a")
    packed = export(store, [wanted, "f" * 64], tmp_path / "a.tar")
    assert (packed.traces, packed.missing) == (1, ("f" * 64,))
    there = other(tmp_path)
    import_archive(there, tmp_path / "a.tar")
    assert build(there, graph())[0].labels(Status.CACHED) == ["a"]


def test_an_incomplete_result_is_left_out(store: Store, tmp_path: Path) -> None:
    result, _ = build(store, graph())
    tree = result.outcomes["c"].tree
    assert tree is not None
    store.cas.remove(tree.files[0].digest)
    packed = export(store, store.traces.names(), tmp_path / "a.tar")
    assert packed.missing == (result.outcomes["c"].action,)
    import_archive(other(tmp_path), tmp_path / "a.tar")


def test_a_result_that_is_there_stays(store: Store, archive: Path, tmp_path: Path) -> None:
    there = other(tmp_path)
    build(there, graph())
    before = results(there)
    assert import_archive(there, archive).new_traces == 0
    assert results(there) == before


def test_an_archive_cut_off_anywhere_brings_no_result(store: Store, tmp_path: Path) -> None:
    build(store, [write_task("a", {"x": "1"})])
    archive = tmp_path / "cache.tar"
    export(store, store.traces.names(), archive)
    data = archive.read_bytes()
    end = data.rindex(b"checksum")
    complete = end + 512 + 64
    cut = tmp_path / "cut.tar"
    there = other(tmp_path)
    good = set(results_of(archive))
    for length in range(complete):
        cut.write_bytes(data[:length])
        with pytest.raises(InputError):
            import_archive(there, cut)
        if length % 512 == 0 or length > complete - 20:
            assert there.traces.names() == []
            assert not (there.root / "actions").exists() or not list((there.root / "actions").rglob("*.json"))
    found = {path.parent.name + path.name for path in there.cas.root.glob("*/*")}
    assert found <= good
    assert all(digest_bytes(there.cas.blob_path(digest).read_bytes()) == digest for digest in found)
    # Only the padding after the checksum may be lost.
    cut.write_bytes(data[: complete + 448])
    assert import_archive(there, cut).new_traces == 1


def results_of(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return [name.partition("/")[2] for name in tar.getnames() if name.startswith("blobs/")]


def test_a_flipped_bit_anywhere_brings_no_wrong_byte(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    complete = data.rindex(b"checksum") + 512 + 64
    chosen = random.Random(7)
    flipped = tmp_path / "flipped.tar"
    there = other(tmp_path)
    refused = 0
    for _ in range(600):
        at = chosen.randrange(complete)
        damaged = bytearray(data)
        damaged[at] ^= 1 << chosen.randrange(8)
        flipped.write_bytes(damaged)
        try:
            import_archive(there, flipped)
        except InputError:
            refused += 1
            assert there.traces.names() == []
        else:
            # Padding, or the blank after a header's own checksum: nothing reads them.
            assert data[at] in b"\0 "
            for path in [*there.root.glob("traces/*/*"), *there.root.glob("actions/*/*")]:
                path.unlink()
    assert refused > 300
    good = set(results_of(archive))
    assert {path.parent.name + path.name for path in there.cas.root.glob("*/*")} <= good
    assert not audit(there).findings


def remade(archive: Path, change: object) -> bytes:
    """The archive with its list of members changed and no checksum of the right content."""
    with tarfile.open(archive) as tar:
        members = [(member, tar.extractfile(member).read() if member.isreg() else b"") for member in tar]  # type: ignore[union-attr]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, data in change(members):  # type: ignore[operator]
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def named(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("has a member named '../../evil'", lambda ms: [ms[0], (named("../../evil"), b"x"), *ms[1:]]),
        ("has a member named '/etc/evil'", lambda ms: [ms[0], (named("/etc/evil"), b"x"), *ms[1:]]),
        ("has a member named 'blobs/../x'", lambda ms: [ms[0], (named("blobs/../x"), b"x"), *ms[1:]]),
        ("is not a regular file", lambda ms: [ms[0], (named("blobs/x", type=tarfile.SYMTYPE, linkname="/etc"), b"")]),
        ("is not a regular file", lambda ms: [ms[0], (named("blobs/" + "0" * 64, type=tarfile.LNKTYPE), b"")]),
        ("is not a regular file", lambda ms: [ms[0], (named("blobs", type=tarfile.DIRTYPE), b"")]),
        ("has the digest", lambda ms: [ms[0], (named("blobs/" + "0" * 64), b"x"), *ms[1:]]),
        ("not an archive that `llmbuild cache export` wrote", lambda ms: ms[1:]),
        ("its format is another", lambda ms: [(ms[0][0], b'{"format":2}'), *ms[1:]]),
        ("its header is not JSON", lambda ms: [(ms[0][0], b"{"), *ms[1:]]),
        ("its checksum is not right", lambda ms: [*ms[:1], *ms[2:]]),
        ("its checksum is not right", lambda ms: [*ms[:-1], (ms[-1][0], b"0" * 64)]),
        ("it ends early", lambda ms: ms[:-1]),
        ("comes after the checksum", lambda ms: [*ms, (named("blobs/" + digest_bytes(b"x")), b"x")]),
        ("is of another action", lambda ms: [*ms[:-2], (named("traces/" + "0" * 64), ms[-2][1])]),
        ("is damaged", lambda ms: [*ms[:-2], (ms[-2][0], ms[-2][1] + b"x")]),
    ],
)
def test_harmful_archives_are_refused(archive: Path, tmp_path: Path, what: str, change: object) -> None:
    path = tmp_path / "harm.tar"
    path.write_bytes(remade(archive, change))
    before = {item for item in tmp_path.rglob("*") if "other" not in item.parts}
    there = other(tmp_path)
    with pytest.raises(InputError) as caught:
        import_archive(there, path)
    assert what in str(caught.value.why)
    assert str(path) in str(caught.value)
    assert there.traces.names() == []
    there.close()
    assert {item for item in tmp_path.rglob("*") if "other" not in item.parts} == before


def with_checksum(members: list[tuple[str, bytes]]) -> bytes:
    """An archive of these members that has the right checksum, as a writer with a bug would make it."""
    out, checksum = io.BytesIO(), hashlib.sha256()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            tar.addfile(named(name, size=len(data)), io.BytesIO(data))
            checksum.update(f"{name} {len(data)} {digest_bytes(data)}\n".encode())
        tar.addfile(named("checksum", size=64), io.BytesIO(checksum.hexdigest().encode()))
    return out.getvalue()


def test_a_trace_without_its_output_is_refused(store: Store, tmp_path: Path) -> None:
    build(store, [write_task("a", {"x": "1"})])
    (trace,) = store.traces.all()
    head = json.dumps({"format": 1, "blobs": 0, "actions": 0, "traces": 1}).encode()
    path = tmp_path / "bare.tar"
    path.write_bytes(with_checksum([("llmbuild-cache", head), (f"traces/{trace.action}", trace.to_bytes())]))
    with pytest.raises(InputError, match="cannot be imported") as caught:
        import_archive(other(tmp_path), path)
    assert caught.value.why == "it has the trace of a without its whole output"


@pytest.mark.parametrize("counts", [{"blobs": 1}, {"actions": 1}, {"traces": 1}, {"results": 0}])
def test_an_archive_with_other_members_than_it_announces_is_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    head = json.dumps({"format": 1, "blobs": 0, "actions": 0, "traces": 0} | counts).encode()
    path = tmp_path / "counts.tar"
    path.write_bytes(with_checksum([("llmbuild-cache", head)]))
    with pytest.raises(InputError, match="cannot be imported") as caught:
        import_archive(other(tmp_path), path)
    assert caught.value.why == "it does not have the members that it announces"


@pytest.mark.parametrize("folder", ["actions", "traces"])
def test_a_member_too_large_for_memory_is_refused_by_the_size_it_claims(tmp_path: Path, folder: str) -> None:
    head = json.dumps({"format": 1, "blobs": 0, "actions": 1, "traces": 1}).encode()
    name = f"{folder}/{'0' * 64}"
    first = with_checksum([("llmbuild-cache", head)])[:1024]
    path = tmp_path / "large.tar"
    path.write_bytes(first + named(name, size=MOST_RECORD + 1).tobuf())
    with pytest.raises(InputError, match="cannot be imported") as caught:
        import_archive(other(tmp_path), path)
    assert caught.value.why == f"its member '{name}' is too large"


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("text", b"hello " * 500), ("zeros", bytes(10240))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError):
            import_archive(other(tmp_path), tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        import_archive(other(tmp_path), tmp_path / "missing")


def test_an_export_that_cannot_be_written_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write an archive"):
        export(store, [], tmp_path / "no" / "such" / "place.tar")
