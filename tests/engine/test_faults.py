"""A build that fails or dies at any operation: no wrong byte, and the next build completes without help."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.locks import FileLock
from llmbuild.engine.store import Store
from llmbuild.engine.task import Files, InputRef, JsonFields, Task
from llmbuild.errors import LlmbuildError, StoreError
from tests.helpers.engine_build import build, install_all, join_task, snapshot, text_of, write_task
from tests.helpers.faulty_fs import FaultyFs, Killed, Way


def tasks(text: str) -> list[Task]:
    return [
        write_task("a", {"x": text, "sub/c.json": f'{{"v": "{text}", "w": 1}}'}, dest="dist/m"),
        join_task("b", "b", "a", InputRef("a", JsonFields("sub/c.json", ("v",))), dest="dist/libs/b.so"),
        join_task("c", "c", "b", InputRef("a", Files(("x",))), dest="dist/libs/c.so"),
    ]


def build_and_install(root: Path, text: str) -> dict[str, bytes]:
    """A whole build as one process does it."""
    store = Store(root / "store")
    try:
        plan = tasks(text)
        result, _ = build(store, plan)
        for outcome in result.outcomes.values():
            if outcome.failure is not None:
                raise outcome.failure.to_error()
        install_all(store, root / "project", plan, result)
        assert text_of(store, result, "c") == expected(text)["dist/libs/c.so"].decode()
        return snapshot(root / "project")
    finally:
        abandon(store)


def abandon(store: Store) -> None:
    """Let the store's locks go as the death of its process would, without any clean-up."""
    lock: FileLock | None = store._scratch_lock
    store._scratch_lock = None
    if lock is not None:
        lock.release()


def expected(text: str) -> dict[str, bytes]:
    b = f'b|{{"v": "{text}", "w": 1}}|{text}|{{"v":"{text}"}}'
    return {
        "dist/m/x": text.encode(),
        "dist/m/sub/c.json": f'{{"v": "{text}", "w": 1}}'.encode(),
        "dist/libs/b.so": b.encode(),
        "dist/libs/c.so": f"c|{b}|{text}".encode(),
    }


def check_no_wrong_byte(found: dict[str, bytes], texts: tuple[str, ...]) -> None:
    for path, data in found.items():
        if ".llmbuild-tmp-" in path:
            # A temporary file of a killed install is not an output; the next build removes it.
            continue
        assert data in [expected(text)[path] for text in texts], path


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many operations one build has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBUILD_TASK_MODULES", "tests.helpers.engine_kinds")
        counting = FaultyFs()
        patch.setattr(fs, "current", counting)
        root = tmp_path_factory.mktemp("count")
        (root / "project").mkdir()
        build_and_install(root, "one")
        return counting.count


def fault(root: Path, at: int, way: Way, number: int, text: str) -> tuple[bool, BaseException | None]:
    """Build with one fault; returns whether it happened, and what the build raised."""
    with pytest.MonkeyPatch.context() as patch:
        faulty = FaultyFs(at, way, number)
        patch.setattr(fs, "current", faulty)
        raised: BaseException | None = None
        try:
            build_and_install(root, text)
        except (LlmbuildError, Killed, OSError) as error:
            raised = error
        return faulty.fired, raised


SLICES = 4


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize(
    ("way", "number"),
    [("kill", 0), ("error", errno.ENOSPC), ("error", errno.EIO), ("error", errno.EACCES), ("short", 0)],
    ids=["kill", "ENOSPC", "EIO", "EACCES", "short"],
)
def test_a_fault_at_any_operation_of_a_first_build(
    tmp_path: Path, operations: int, way: Way, number: int, part: int
) -> None:
    assert operations > 60
    for at in range(part, operations + 1, SLICES):
        root = tmp_path / str(at)
        (root / "project").mkdir(parents=True)
        if way == "short" and at >= operations:
            break
        fired, raised = fault(root, at, way, number, "one")
        if way == "kill" and fired:
            assert isinstance(raised, Killed), at
        if way == "error" and raised is not None:
            assert isinstance(raised, StoreError | LlmbuildError), (at, raised)
            assert raised.exit_code == 6, (at, raised)
        check_no_wrong_byte(snapshot(root / "project"), ("one",))
        assert build_and_install(root, "one") == expected("one"), at


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize("way", ["kill", "error"])
def test_a_fault_at_any_operation_of_a_second_build(tmp_path: Path, operations: int, way: Way, part: int) -> None:
    for at in range(part, operations + 20, SLICES):
        root = tmp_path / str(at)
        (root / "project").mkdir(parents=True)
        build_and_install(root, "one")
        fired, _ = fault(root, at, way, errno.ENOSPC, "two")
        check_no_wrong_byte(snapshot(root / "project"), ("one", "two"))
        # Going back is as good as going on.
        text = "two" if at % 2 else "one"
        assert build_and_install(root, text) == expected(text), at
        if not fired:
            break


def test_loss_and_flips_of_blobs_are_all_found(tmp_path: Path) -> None:
    import random

    root = tmp_path
    (root / "project").mkdir()
    build_and_install(root, "one")
    generator = random.Random(7)
    blobs = sorted((root / "store" / "blobs").glob("??/*"))
    for _ in range(60):
        present = [path for path in blobs if path.exists()]
        for path in present:
            chance = generator.random()
            if chance < 0.1:
                path.unlink()
            elif chance < 0.2 and path.stat().st_size:
                # A flip through the blob's own name reaches the project's hard link too, which must be mended.
                data = bytearray(path.read_bytes())
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                path.chmod(0o644)
                path.write_bytes(bytes(data))
        assert build_and_install(root, "one") == expected("one")
