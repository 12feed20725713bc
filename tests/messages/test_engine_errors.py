"""Errors of the engine that no other test provokes in this process without a long build."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.install import Installation, install
from llmbuild.engine.settings import read_settings
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.errors import LlmbuildError
from tests.helpers import engine_kinds
from tests.helpers.engine_build import build, write_task

Case = Callable[[Path, pytest.MonkeyPatch], object]
DIGEST = "3f9c02d417aa".ljust(64, "0")


def settings(text: str) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        (path / "llmbuild").mkdir()
        (path / "llmbuild/config.toml").write_text(text)
        read_settings({"XDG_CONFIG_HOME": str(path), "HOME": str(path)})

    return provoke


def installing(*tasks: tuple[str, str, str], foreign: str = "") -> Case:
    """Tasks (label, file, place) that put their files into one project."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        store = Store(path / "store")
        items = []
        for label, file, place in tasks:
            tree = path / label
            tree.mkdir()
            (tree / "out").write_text(label)
            items.append(Installation(label, store.cas.put_tree(tree), Install(file, place)))
        if foreign:
            (path / "project" / foreign).mkdir(parents=True)
        install(store, path / "project", items)

    return provoke


def version(text: str | None) -> Case:
    """A cache with this in its `version`; None: it is a directory."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        Store(path / "store").close()
        place = path / "store/version"
        place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.mkdir() if text is None else place.write_text(text)
        Store(path / "store").cas.put_bytes(b"x")

    return provoke


def action(name: str, content: bytes = b"{}") -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        store = Store(path / "store")
        file = store.action_path(DIGEST)
        file.parent.mkdir(parents=True, exist_ok=True)
        if content:
            file.write_bytes(content)
        getattr(store, name)(DIGEST if name == "get_action" else DIGEST[:12])

    return provoke


def another_action(path: Path, patch: pytest.MonkeyPatch) -> None:
    """The record of one action under the name of another."""
    patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    store = Store(path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    digest = result.outcomes["a"].action
    assert digest is not None
    other = store.action_path(DIGEST)
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(Path(store.action_path(digest)).read_bytes())
    store.get_action(DIGEST)


def another_version(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.engine import execute

    patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    store = Store(path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    digest = result.outcomes["a"].action
    assert digest is not None
    patch.setattr(execute, "load_kind", lambda name: engine_kinds.KINDS[1])
    execute.execute(store, digest)


def an_odd_name(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "out").mkdir()
    (path / "out" / "a\nb").write_bytes(b"")
    Store(path / "store").cas.put_tree(path / "out")


def unreadable(path: Path, patch: pytest.MonkeyPatch) -> None:
    Store(path / "store").stat_cache.digest(path / "model.safetensors")


def twice_interrupted(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.engine.scheduler import Scheduler
    from llmbuild.executors.inline import InlineExecutor

    store = Store(path / "store")
    scheduler = Scheduler(store, InlineExecutor(store))
    scheduler._signalled()
    scheduler._signalled()


class Vanishing:
    """An executor whose outputs are gone at once."""

    def run(self, *_: object) -> None:
        return None

    def expect(self, kind: str, count: int) -> None:
        pass

    def terminate(self) -> None:
        pass


def vanished(path: Path, patch: pytest.MonkeyPatch) -> object:
    patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    result, _ = build(Store(path / "store"), [write_task("a", {"x": "1"})], executor=Vanishing())  # type: ignore[arg-type]
    return result.outcomes["a"].failure


def tasks(*given: tuple[str, str]) -> Case:
    """Tasks (label, what it needs) that cannot be built."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from tests.helpers.engine_build import join_task

        patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
        build(Store(path / "store"), [join_task(label, label, *filter(None, [needs])) for label, needs in given])

    return provoke


def failing(error: Exception) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> object:
        from llmbuild.executors.inline import failure_of

        return failure_of(error)

    return provoke


def ended(path: Path, patch: pytest.MonkeyPatch) -> object:
    from llmbuild.executors.inline import InlineExecutor

    executor = InlineExecutor(Store(path / "store"))
    executor.terminate()
    return executor.run(DIGEST, lambda *_: None)


def crash(status: int, out_of_memory: bool | None = None) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> object:
        from llmbuild.executors.local import _crash

        return _crash(status, 9 << 30, 42.0, DIGEST, out_of_memory)

    return provoke


def age(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.engine.limits import parse_age

    parse_age("soon")


CASES: dict[str, Case] = {
    "an unknown setting": settings('cache-dirs = "/x"\nverbosity = 7\n'),
    "a relative cache": settings('cache-dir = "cache"\n'),
    "no size": settings('max-size = "lots"\n'),
    "no jobs": settings("jobs = 0\n"),
    "no age": age,
    "out of the project": installing(("a", "out", "../out")),
    "nothing to install": installing(("a", "lib.so", "dist/lib.so")),
    "one file of two tasks": installing(("a", "out", "dist/x"), ("b", "out", "dist/x")),
    "a file in the way of a directory": installing(("a", "out", "dist"), ("b", "out", "dist/x")),
    "a directory of the user": installing(("a", "out", "dist/x"), foreign="dist/x"),
    "a cache of another version": version("99"),
    "a cache that cannot be read": version(None),
    "no action": action("get_action", b""),
    "a damaged action": action("get_action"),
    "another action": another_action,
    "an action of another version": another_version,
    "a name that no result can have": an_odd_name,
    "a file that cannot be read": unreadable,
    "two interrupts": twice_interrupted,
    "an output that vanished": vanished,
    "two tasks of one name": tasks(("a", ""), ("a", "")),
    "a task that is not there": tasks(("a", "b")),
    "a circle": tasks(("a", "b"), ("b", "a")),
    "a bug in a task": failing(ValueError("a bug")),
    "no memory": failing(MemoryError()),
    "an interrupted task": ended,
    "a worker that ended": crash(3),
    "a worker that crashed": crash(-signal.SIGSEGV),
    "a worker that was killed": crash(-signal.SIGKILL),
    "a worker that was killed for memory": crash(-signal.SIGKILL, out_of_memory=True),
    "a worker that was killed by somebody": crash(-signal.SIGKILL, out_of_memory=False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> NoReturn:
        failure = CASES[name](tmp_path, monkeypatch)
        assert isinstance(failure, TaskFailure)
        raise failure.to_error()

    with pytest.raises(LlmbuildError):
        check()
