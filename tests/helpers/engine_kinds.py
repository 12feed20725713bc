"""Tiny task kinds for engine tests.  Workers find them through LLMBUILD_TASK_MODULES.

Each run appends a line to the file `$LLMBUILD_TEST_RUNS`, so that a test can count runs across processes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from llmbuild.errors import InputError
from llmbuild.tasks.kind import Job, TaskKind

MODULE = "tests.helpers.engine_kinds"
RUNS = "LLMBUILD_TEST_RUNS"


def _note(kind: str, job: Job) -> None:
    path = os.environ.get(RUNS)
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{kind} {json.dumps(job.params, sort_keys=True)} {os.getpid()}\n".encode())
        os.close(fd)


def _write(job: Job) -> None:
    """params: files {name: text}; hints: sleep seconds, fail text."""
    _note("write", job)
    print("writing", sorted(job.params["files"]))
    time.sleep(float(job.hints.get("sleep", 0)))
    if job.hints.get("fail"):
        raise InputError(str(job.hints["fail"]), fix="do not ask for it")
    for name, text in job.params["files"].items():
        path = job.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    job.progress(1, 1, "files")


def _join(job: Job) -> None:
    """Concatenates all files of all inputs in order, with the text of the parameter in front."""
    _note("join", job)
    time.sleep(float(job.hints.get("sleep", 0)))
    parts = [str(job.params["text"])]
    for name in sorted(job.inputs):
        path = job.inputs[name]
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        parts += [p.read_text() for p in files]
    (job.out / "joined").write_text("|".join(parts))


def _misbehave(job: Job) -> None:
    """Ends its process in the way the parameter says."""
    _note("misbehave", job)
    print("about to misbehave")
    way = job.params["way"]
    if way == "raise":
        raise ValueError("a bug")
    if way == "exit":
        os._exit(3)
    if way == "outside-link":
        (job.out / "link").symlink_to(Path("/etc/hostname"))
        return
    if way == "sleep":
        (job.out / "half").write_text("half")
        time.sleep(60)
        return
    import sys

    sys.stdout.flush()
    os.kill(os.getpid(), int(way))
    time.sleep(5)


KINDS = (
    TaskKind("write", 1, ("files",), (), (), _write),
    TaskKind("join", 1, ("text",), (), (), _join),
    TaskKind("misbehave", 1, ("way",), (), (), _misbehave),
)
