"""Records of a store that somebody else wrote: they are of the documented form, or they do not count and harm nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import canonical_json, digest_bytes, digest_json
from llmbuild.cli.main import main
from llmbuild.engine.history import read_history
from llmbuild.engine.lookup import Miss, lookup
from llmbuild.engine.store import ActionRecord, Store, parse_action
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.upkeep.archive import import_archive
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import Retention, collect
from llmbuild.engine.upkeep.survey import survey
from llmbuild.errors import InputError, StoreError
from tests.helpers.crafted import canonical, picture, sealed, write_archive
from tests.helpers.engine_traces import make_trace
from tests.helpers.replaced_parts import mutations

OUT = "..//../victim"
"""What would be a path out of the store, if a digest were used as one without a look at it."""
DEEP = b"[" * 100_000

TREE: list[list[Any]] = [["a/b.bin", "1" * 64, 3, False], ["c.json", "2" * 64, 0, True]]


def trace_json() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(make_trace().to_bytes().partition(b"\n")[0])
    value["key"]["inputs"] = {"a": {"form": "tree", "digest": "3" * 64}, "b": {"form": "json", "digest": "4" * 64}}
    value["key"]["tools"] = {"numpy": "2.4"}
    value["action"] = digest_json(value["key"])
    return value


def record_json() -> dict[str, Any]:
    return {"key": trace_json()["key"], "hints": {"path": "/x"}, "label": "t", "project": "/p"}


def read_everything(store: Store) -> None:
    """What plan, build, stats, gc and verify read of a store."""
    found = survey(store)
    for action in found.traces:
        lookup(store, action)
    collect(store, Retention(max_size=0), lambda _: None, dry_run=True)
    store.index.recent("write")
    store.index.latest("p")


@pytest.mark.parametrize(
    ("whole", "parse"),
    [
        (trace_json, lambda value: Trace.from_bytes(sealed(value))),
        (record_json, lambda value: parse_action(canonical(value))),
        (lambda: TREE, lambda value: Tree.from_bytes(canonical(value))),
    ],
    ids=["trace", "action", "tree"],
)
def test_any_value_at_any_place_is_taken_or_refused(whole: Callable[[], Any], parse: Callable[[Any], Any]) -> None:
    assert parse(whole())
    refused = 0
    for value in mutations(whole()):
        try:
            parse(value)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", "a\0", "a\x1b[2J", "n" * 256, "a\n"],
)
def test_paths_of_a_tree_lead_nowhere_else(path: str) -> None:
    with pytest.raises(ValueError):
        Tree.from_bytes(canonical([[path, "1" * 64, 3, False]]))


@pytest.mark.parametrize("rows", [[TREE[0], TREE[0]], [["a", "1" * 64, 1, False], ["a/b", "1" * 64, 1, False]]])
def test_a_tree_has_one_place_for_each_file(rows: list[list[Any]]) -> None:
    with pytest.raises(ValueError):
        Tree.from_bytes(canonical(rows))


@pytest.mark.parametrize("digest", [OUT, "../" * 20 + "tmp/victim", "1" * 63, "1" * 65, "A" * 64, "1" * 5000, None, 7])
def test_a_tree_with_such_a_digest_is_none(digest: object) -> None:
    with pytest.raises(ValueError):
        Tree.from_bytes(canonical([["f", digest, 9, False]]))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store beside what no command may touch."""
    (tmp_path / "victim" / "dir").mkdir(parents=True)
    (tmp_path / "victim" / "data.txt").write_text("mine")
    (tmp_path / "victim" / "dir" / "more.txt").write_text("mine too")
    return tmp_path


def crafted_archives(place: Path) -> list[Path]:
    """Archives with right checksums and hostile records."""
    whole = Tree.of([FileEntry("f", digest_bytes(b"content"), 7)])
    trace = trace_json() | {"output": whole.digest, "log": None}
    found = []

    def add(blobs: list[bytes], traces: dict[str, bytes], actions: dict[str, bytes] | None = None) -> None:
        found.append(write_archive(place / f"archive{len(found)}.tar", blobs, actions, traces))

    hostile = canonical([["f", "..//../victim/dir", 9, False]])
    add([hostile], {trace["action"]: sealed(trace | {"output": digest_bytes(hostile)})})
    add([], {trace["action"]: sealed(trace | {"output": "..//../victim/data.txt"})})
    add([], {trace["action"]: sealed(trace | {"output": "../" * 20 + str(place / "victim")[1:]})})
    for tree in (
        DEEP,
        canonical([["a", 5, 3, True]]),
        canonical([["a", None, 3, True]]),
        canonical([["a", "1" * 5000, 3, True]]),
    ):
        add([tree], {trace["action"]: sealed(trace | {"output": digest_bytes(tree)})})
    whole_blobs = [whole.to_bytes(), b"content"]
    add(whole_blobs, {trace["action"]: sealed(DEEP)})
    add(whole_blobs, {trace["action"]: sealed(trace)}, {trace["action"]: DEEP})
    for name in (
        "finished",
        "kind",
        "wall_s",
        "input_size",
        "output_size",
        "key",
        "label",
        "project",
        "peak_rss",
        "log",
    ):
        for value in (None, "text", 7, -1, [], {}, True, 1e300):
            if json.dumps(value) != json.dumps(trace[name]):
                changed = sealed(trace | {name: value})
                try:
                    Trace.from_bytes(changed)
                except ValueError:
                    add(whole_blobs, {trace["action"]: changed})
    # A key of another action: the output of one is claimed for another.
    other = json.loads(json.dumps(trace))
    other["key"]["params"]["name"] = "another"
    add(whole_blobs, {trace["action"]: sealed(other)})
    return found


def test_crafted_archives_bring_nothing_and_touch_nothing(place: Path) -> None:
    archives = crafted_archives(place)
    assert len(archives) > 50
    store = Store(place / "store")
    guarded = picture(place / "victim")
    for archive in archives:
        with pytest.raises(InputError):
            import_archive(store, archive)
        assert picture(place / "victim") == guarded, archive
        assert not store.traces.names(), archive
    read_everything(store)
    assert not audit(store).findings


def test_importing_one_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = crafted_archives(place)[0]
    guarded = picture(place / "victim")
    assert main(["cache", "import", "--cache-dir", str(place / "store"), str(archive)]) == 3
    assert "no result was taken from it" in " ".join(capsys.readouterr().err.split())
    assert picture(place / "victim") == guarded


def hostile_traces() -> list[bytes]:
    trace = trace_json()
    found = [sealed(trace | {"output": OUT}), sealed(trace | {"log": OUT}), sealed(DEEP), sealed([]), b"", b"\xff\n"]
    wrong: list[Any] = ["<", [], None, -1]
    names = ("finished", "wall_s", "input_size", "output_size", "key")
    found += [sealed(trace | {name: value}) for name in names for value in wrong]
    return found + [sealed(trace | {name: value}) for name in ("kind", "label") for value in wrong if value != "<"]


def test_hostile_traces_of_a_shared_store_are_misses_and_are_repaired(place: Path) -> None:
    store = Store(place / "store")
    good = make_trace("good")
    guarded = picture(place / "victim")
    for data in hostile_traces():
        trace = trace_json()
        path = store.traces.path(trace["action"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        store.traces.put(good)
        assert lookup(store, trace["action"]) is Miss.NEVER
        read_everything(store)
        named = {one.name for one in audit(store).findings if one.fault == "damaged-trace"}
        assert trace["action"] in named
        audit(store, repair=True)
        assert not path.exists()
        assert picture(place / "victim") == guarded


def test_hostile_records_and_histories_count_for_nothing(place: Path) -> None:
    store = Store(place / "store")
    guarded = picture(place / "victim")
    record = record_json()
    digest = digest_json(record["key"])
    path = store.action_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = {"a": {"form": "tree", "digest": OUT}}
    escaped = canonical(record | {"label": "a\x1b"})
    for value in (
        DEEP,
        canonical(record | {"key": record["key"] | {"inputs": inputs}}),
        canonical([]),
        b"\xff",
        escaped,
    ):
        path.write_bytes(value)
        with pytest.raises(StoreError, match="damaged"):
            store.get_action(digest)
        assert [one.fault for one in audit(store).findings] == ["damaged-action"]
    history = store.history("/p")
    history.path.parent.mkdir(parents=True, exist_ok=True)
    wrong = [canonical({"project": "/p", "last": {"t": OUT}}), canonical({"project": 5, "last": {}}), canonical([])]
    for value in (DEEP, b"{", *wrong):
        history.path.write_bytes(value)
        assert store.history("/p").last() == {}
        read_everything(store)
        with pytest.raises(ValueError):
            read_history(history.path)
        assert "damaged-history" in [one.fault for one in audit(store).findings]
    path.unlink()
    audit(store, repair=True)
    assert not history.path.exists() and not audit(store).findings
    (store.root / "uses").write_bytes(b'{"write": [1, 2]}\n{"write": ["x", 2]}\n{"w": 5}\n' + DEEP + b"\n[]\n")
    assert list(store.uses.total()) == ["write"]
    assert picture(place / "victim") == guarded


def test_records_of_an_earlier_version_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    """The bytes are those that version 0.1.0 wrote."""
    key = b'{"inputs":{},"kind":"write","params":{"files":{"f":"x"}},"tools":{"numpy":"2.4.6"},"version":1}'
    action = digest_bytes(key)
    output = digest_bytes(b"[]")
    body = (
        b'{"action":"' + action.encode() + b'","cpu_s":0.25,"finished":1700000000.5,"format":1,"input_size":0,"key":' + key
        + b',"kind":"write","label":"fetch[m]","log":null,"output":"' + output.encode()
        + b'","output_size":0,"peak_rss":1048576,"project":"/home/user/caf\xc3\xa9","wall_s":1}'
    )  # fmt: skip
    data = body + b"\n" + digest_bytes(body).encode() + b"\n"
    trace = Trace.from_bytes(data)
    assert (trace.action, trace.project, trace.to_bytes()) == (action, "/home/user/café", data)
    record = b'{"hints":{},"key":' + key + b',"label":"fetch[m]","project":"/home/user"}'
    parsed = parse_action(record)
    assert isinstance(parsed, ActionRecord) and parsed.action.digest == action
    assert canonical_json(parsed.to_json()) == record
    history = Store(tmp_path / "store").history("/home/user")
    history.path.parent.mkdir(parents=True)
    history.path.write_bytes(b'{"last":{"fetch[m]":"' + action.encode() + b'"},"project":"/home/user"}')
    assert history.last() == {"fetch[m]": action}
