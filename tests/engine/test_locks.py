"""Locks between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmbuild.engine.locks import FileLock, Owner, guard, is_held
from llmbuild.errors import StoreError
from tests.helpers.engine_fixtures import ROOT

HOLD = """
import sys, time
from pathlib import Path
from llmbuild.engine.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.try_acquire("lower[x]")
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_lock_excludes_and_names_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    process = hold(path)
    try:
        lock = FileLock(path)
        assert not lock.try_acquire("mine")
        assert not lock.held
        assert lock.owner() == Owner(process.pid, "lower[x]")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_frees_the_lock_at_once(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a"
    process = hold(path)
    lock = FileLock(path)
    polls: list[Owner | None] = []

    def poll(owner: Owner | None) -> None:
        if not polls:
            os.kill(process.pid, number)
        polls.append(owner)
        time.sleep(0.01)

    started = time.monotonic()
    lock.acquire("mine", poll=poll)
    assert time.monotonic() - started < 2
    assert polls[0] == Owner(process.pid, "lower[x]")
    assert lock.owner() == Owner(os.getpid(), "mine")
    lock.release()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside = 0
    most = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            lock = FileLock(tmp_path / "a")
            lock.acquire(poll=lambda _owner: time.sleep(0.0005))
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.0002)
            with guard:
                inside -= 1
            lock.release(remove=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_removed_lock_file_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = FileLock(path)
    assert first.try_acquire()
    path.unlink()
    second = FileLock(path)
    assert second.try_acquire()
    assert not FileLock(path).try_acquire()
    first.release()
    assert not FileLock(path).try_acquire()
    second.release()
    with pytest.raises(RuntimeError):
        _ = second.fd


def test_a_damaged_owner_record_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in (b"", b"{", b"[]", b'{"pid": "x", "label": 1}'):
        path.write_bytes(text)
        assert FileLock(path).owner() is None


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "pipe"])
def test_what_is_no_file_of_a_lock_is_neither_followed_nor_written(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "target", tmp_path / "lock"
    target.write_text("precious")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nothing")
    with pytest.raises(StoreError, match="cannot take a lock") as caught:
        FileLock(path).try_acquire("install")
    assert str(path) in str(caught.value)
    with pytest.raises(StoreError, match="cannot take a lock"), guard(path, exclusive=True):
        pass
    assert not is_held(path)
    assert FileLock(path).owner() is None
    assert target.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
