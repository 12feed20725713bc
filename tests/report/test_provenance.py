"""Statements: their content, that they depend on nothing else, and that every difference is found and named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Digest, digest_bytes
from llmbuild.engine.outcome import BuildResult
from llmbuild.engine.store import Store
from llmbuild.engine.task import Files, InputRef, Install, JsonFields, Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import InputError, LlmbuildError, MultiError, VerifyError
from llmbuild.report.errors import render_error
from llmbuild.report.provenance import TaskResult, owner_of, statements
from llmbuild.report.provenance_check import check
from llmbuild.report.style import Style
from tests.helpers import engine_kinds, source_kinds
from tests.helpers.engine_build import build, install_all

SOURCE = {"kind": "hf", "repo": "org/model", "commit": "c" * 40}
LIBRARY, WEIGHTS = "dist/libs/m-q-p.so", "dist/m-q-MLC"


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", f"{engine_kinds.MODULE},{source_kinds.MODULE}")


def tasks(weights: str = "1", where: str = "/home/someone/checkpoint") -> list[Task]:
    """A graph with the shape of a real one: a source, weights and configuration of one directory, and a library."""
    files = {"config.json": '{"a":1}', "weights": weights, "notes.txt": "read by nobody"}
    of = {"model": "m", "scheme": "q"}
    return [
        Task("obtain", "fetch[m]", 1, {"files": files, "source": SOURCE}, {}, {}, hints={"path": where}),
        Task(
            "combine",
            "quantize[m, q]",
            1,
            {"text": "q"},
            {"checkpoint": InputRef("fetch[m]", Files(("weights",)))},
            {"numpy": "2.0"},
            installs=(Install("", WEIGHTS),),
            **of,
        ),
        Task(
            "write",
            "config[m, q]",
            1,
            {"files": {"mlc-chat-config.json": '{"x":1,"y":2}'}},
            {"checkpoint": InputRef("fetch[m]", Files(("config.json",)))},
            {},
            installs=(Install("", WEIGHTS),),
            **of,
        ),
        Task(
            "combine",
            "link[m, q, p]",
            1,
            {"text": "l"},
            {"objects": InputRef("config[m, q]", JsonFields("mlc-chat-config.json", ("x",)))},
            {"linker": "cc 12"},
            installs=(Install("joined", LIBRARY),),
            platform="p",
            **of,
        ),
    ]


def done_of(result: BuildResult) -> dict[str, TaskResult]:
    return {label: TaskResult(one.action or "", one.tree or Tree(())) for label, one in result.outcomes.items()}


def make(store: Store, root: Path, made: list[Task]) -> dict[str, Path]:
    """Build, install, and write the statements; returns their paths by artifact."""
    result, _ = build(store, made)
    install_all(store, root, made, result)
    found = {}
    for one in statements("dist", made, done_of(result)):
        path = root / one.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(one.data)
        found[one.artifact] = path
    return found


def recorded(store: Store) -> Any:
    def look(action: Digest) -> Tree | None:
        trace = store.traces.get(action)
        return None if trace is None else store.cas.get_tree(trace.output)

    return look


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_a_statement_says(store: Store, root: Path) -> None:
    paths = make(store, root, tasks())
    assert {artifact: path.relative_to(root).as_posix() for artifact, path in paths.items()} == {
        WEIGHTS: "dist/provenance/m-q-MLC.intoto.json",
        LIBRARY: "dist/provenance/m-q-p.so.intoto.json",
    }
    value = json.loads(paths[LIBRARY].read_bytes())
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    library = digest_bytes((root / LIBRARY).read_bytes())
    assert value["subject"] == [{"name": "libs/m-q-p.so", "digest": {"sha256": library}}]
    definition = value["predicate"]["buildDefinition"]
    external = definition["externalParameters"]
    assert {key: external[key] for key in ("artifact", "model", "quantization", "platform")} == {
        "artifact": "libs/m-q-p.so",
        "model": "m",
        "quantization": "q",
        "platform": "p",
    }
    assert list(external["steps"]) == ["config[m, q]", "fetch[m]", "link[m, q, p]"]
    assert external["steps"]["link[m, q, p]"] == {"kind": "combine", "parameters": {"text": "l"}}
    assert definition["internalParameters"]["tools"]["link[m, q, p]"] == {"linker": "cc 12"}
    names = [one["name"] for one in definition["resolvedDependencies"]]
    # The library's configuration read one file of the source; the weights and the notes had no part in it.
    assert names == ["fetch[m]/config.json", "fetch[m]", "config[m, q]", "link[m, q, p]"]
    first = definition["resolvedDependencies"][0]
    assert first["uri"] == f"pkg:huggingface/org/model@{'c' * 40}"
    assert first["digest"] == {"sha256": digest_bytes(b'{"a":1}')}
    assert set(value["predicate"]["runDetails"]) == {"builder"}

    directory = json.loads(paths[WEIGHTS].read_bytes())
    assert [one["name"] for one in directory["subject"]] == ["m-q-MLC/joined", "m-q-MLC/mlc-chat-config.json"]
    sources = directory["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [one["name"] for one in sources][:2] == ["fetch[m]/config.json", "fetch[m]/weights"]


def test_a_statement_is_a_function_of_plan_and_results(store: Store, root: Path, tmp_path: Path) -> None:
    first = {artifact: path.read_bytes() for artifact, path in make(store, root, tasks()).items()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Another store, another place, and a history of other builds before.
    other = Store(tmp_path / "other")
    make(other, elsewhere, tasks("earlier", "/mnt"))
    again = {artifact: path.read_bytes() for artifact, path in make(other, elsewhere, tasks("1", "/mnt")).items()}
    assert again == first
    assert b"/home" not in b"".join(first.values())
    changed = {artifact: path.read_bytes() for artifact, path in make(store, root, tasks("2")).items()}
    assert changed[WEIGHTS] != first[WEIGHTS]


def test_only_results_whose_every_step_is_done_have_one(store: Store) -> None:
    made = tasks()
    result, _ = build(store, made)
    done = done_of(result)
    del done["quantize[m, q]"]
    assert [one.artifact for one in statements("dist", made, done)] == [LIBRARY]
    (one,) = statements("dist", made, done)
    assert one.owner == owner_of(LIBRARY) == "provenance[m-q-p.so]"


def test_what_agrees(store: Store, root: Path, tmp_path: Path) -> None:
    paths = make(store, root, tasks())
    found = check(paths[WEIGHTS], recorded(store))
    assert (found.artifact, found.files, found.sources, found.steps, found.known) == (root / WEIGHTS, 2, 2, 3, 5)
    # Without a cache the files are still compared.
    assert check(paths[LIBRARY], recorded(Store(tmp_path / "empty"))).known == 0


def text_of(error: LlmbuildError) -> str:
    return render_error(error, Style(300))


def failing(path: Path, store: Store) -> LlmbuildError:
    with pytest.raises(LlmbuildError) as caught:
        check(path, recorded(store))
    return caught.value


def test_every_changed_missing_and_added_file_is_named(store: Store, root: Path) -> None:
    paths = make(store, root, tasks())
    before = digest_bytes((root / LIBRARY).read_bytes())
    (root / LIBRARY).chmod(0o644)
    (root / LIBRARY).unlink()
    (root / LIBRARY).write_bytes(b"evil")
    error = failing(paths[LIBRARY], store)
    assert int(error.exit_code) == 7
    assert text_of(error) == "\n".join(
        [
            f"error: {root / LIBRARY}: the file has SHA-256 {digest_bytes(b'evil')}",
            f"  why: {paths[LIBRARY]} has {before}",
            "  fix: run `llmbuild build --provenance`, which restores both; find out who changed the file",
        ]
    )
    (root / WEIGHTS / "joined").unlink()
    (root / WEIGHTS / "extra").write_bytes(b"")
    error = failing(paths[WEIGHTS], store)
    assert isinstance(error, MultiError)
    assert int(error.exit_code) == 7
    assert [text_of(one).partition("\n")[0] for one in error.errors] == [
        f"error: {root / WEIGHTS}/joined: the file is missing",
        f"error: {root / WEIGHTS}/extra: a file that the statement does not have",
    ]


def test_a_dependency_that_the_cache_knows_otherwise_is_named(store: Store, root: Path) -> None:
    paths = make(store, root, tasks())
    value = json.loads(paths[LIBRARY].read_bytes())
    for number, name in ((0, "fetch[m]/config.json"), (2, "config[m, q]")):
        changed = json.loads(json.dumps(value))
        one = changed["predicate"]["buildDefinition"]["resolvedDependencies"][number]
        right = one["digest"]["sha256"]
        one["digest"]["sha256"] = "0" * 64
        paths[LIBRARY].write_text(json.dumps(changed))
        error = failing(paths[LIBRARY], store)
        assert int(error.exit_code) == 7
        assert text_of(error).splitlines()[:2] == [
            f"error: {paths[LIBRARY]}: {name} has SHA-256 {'0' * 64}",
            f"  why: the cache has {right}",
        ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v.update(_type="x"), "it is not of type https://in-toto.io/Statement/v1"),
        (lambda v: v.update(predicateType="x"), "its predicate is not https://slsa.dev/provenance/v1"),
        (
            lambda v: v["predicate"]["buildDefinition"].update(buildType="x"),
            "its build type is not urn:llmbuild:build:v1",
        ),
        (lambda v: v.update(predicate=[]), "its build type is not"),
        (lambda v: v.update(subject=None), "TypeError"),
        (lambda v: v["subject"][0].update(name="../../etc/passwd"), "leads out of the output directory"),
        (lambda v: v["subject"][0].update(name="/etc/passwd"), "leads out of the output directory"),
        (lambda v: v["subject"][0].pop("digest"), "KeyError: 'digest'"),
    ],
)
def test_what_is_no_statement(store: Store, root: Path, change: Any, why: str) -> None:
    paths = make(store, root, tasks())
    value = json.loads(paths[LIBRARY].read_bytes())
    change(value)
    paths[LIBRARY].write_text(json.dumps(value))
    error = failing(paths[LIBRARY], store)
    assert isinstance(error, InputError)
    assert error.what == "not a statement of llmbuild"
    assert why in str(error.why)


def test_damaged_statements_never_end_in_a_traceback(store: Store, root: Path) -> None:
    path = make(store, root, tasks())[WEIGHTS]
    data = path.read_bytes()
    chosen = random.Random(3)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chosen.randrange(len(data))] = chosen.randrange(256)
        path.write_bytes(damaged[: chosen.randrange(len(data))] if chosen.random() < 0.3 else damaged)
        try:
            check(path, recorded(store))
        except LlmbuildError:
            continue
    path.unlink()
    assert failing(path, store).what == "the statement cannot be read"


def rewritten(path: Path, change: Any) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def _artifact(value: Any, name: str) -> None:
    value["predicate"]["buildDefinition"]["externalParameters"]["artifact"] = name


def _no_steps(value: Any) -> None:
    value["predicate"]["buildDefinition"]["resolvedDependencies"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(subject=[]), "it names no file"),
        (_no_steps, "its dependencies are not the steps"),
        (
            lambda value: (value.update(subject=[]), _no_steps(value), _artifact(value, "nonexistent")),
            "it names no file",
        ),
        (lambda value: _artifact(value, "m-q-MLC/params_shard_0.bin"), "is no part of"),
        (lambda value: _artifact(value, "other-MLC"), "is no part of"),
        (lambda value: value.update(subject=value["subject"] * 2), "or one twice"),
    ],
)
def test_a_statement_without_its_content_is_none(store: Store, root: Path, change: Any, words: str) -> None:
    path = make(store, root, tasks())[WEIGHTS]
    rewritten(path, change)
    with pytest.raises(InputError, match="not a statement") as refused:
        check(path, recorded(store), root / WEIGHTS)
    assert words in str(refused.value)


def test_a_statement_is_about_what_was_asked(store: Store, root: Path) -> None:
    paths = make(store, root, tasks())
    check(paths[WEIGHTS], recorded(store), root / WEIGHTS)
    with pytest.raises(VerifyError, match="about another result"):
        check(paths[WEIGHTS], recorded(store), root / LIBRARY)
    # The statement of the library in the place of the directory's: everything in it is true, of something else.
    paths[WEIGHTS].write_bytes(paths[LIBRARY].read_bytes())
    with pytest.raises(VerifyError, match="about another result"):
        check(paths[WEIGHTS], recorded(store))


def test_what_a_link_leads_to_is_not_covered(store: Store, root: Path, tmp_path: Path) -> None:
    path = make(store, root, tasks())[WEIGHTS]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "params_shard_9.bin").write_bytes(b"others")
    (root / WEIGHTS / "sub").symlink_to(elsewhere)
    with pytest.raises(VerifyError, match="a file that the statement does not have") as refused:
        check(path, recorded(store), root / WEIGHTS)
    assert "sub" in str(refused.value)


def test_a_statement_that_is_nested_without_end_is_none(store: Store, root: Path) -> None:
    path = make(store, root, tasks())[WEIGHTS]
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(InputError, match="not a statement") as refused:
        check(path, recorded(store))
    assert "nested too deeply" in str(refused.value)
