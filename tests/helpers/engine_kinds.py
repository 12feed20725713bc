"""Tiny task kinds for engine tests.  Workers find them through LLMBUILD_TASK_MODULES.

Each run appends a line to the file `$LLMBUILD_TEST_RUNS`, so that a test can count runs across processes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError

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
    if job.dump is not None:
        (job.dump / "seen.txt").write_text(str(sorted(job.params["files"])))
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
    _note("combine", job)
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
    if way == "memory":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        bytearray(4 << 30)
    import sys

    sys.stdout.flush()
    os.kill(os.getpid(), int(way))
    time.sleep(5)


def _tell(job: Job) -> None:
    """Writes what a worker's process is like; with the hint `way` it then ends as `misbehave` does."""
    _note("tell", job)
    import signal
    import sys

    print("telling")
    for text in ("a note of\n {}/x", "a note of\n {}/x", "y" * 5000):
        job.note(text.format(job.scratch.parent / "inputs"))
    facts = {
        "hash": hash("a text"),
        "preloaded": "tests.helpers.slow_module" in sys.modules,
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "path": sys.path,
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "stdin": str(Path("/proc/self/fd/0").readlink()).split(":")[0],
        "log": Path("/proc/self/fd/1").readlink().parent.name,
        "same log": Path("/proc/self/fd/1").readlink() == Path("/proc/self/fd/2").readlink(),
        "cwd": Path.cwd().parent.name,
        "leads its group": os.getpgid(0) == os.getpid() == os.getsid(0),
        "umask": os.umask(0o22),
    }
    (job.out / "facts.json").write_text(json.dumps(facts, sort_keys=True))
    job.progress(1, 1, "facts")
    if "way" in job.hints:
        _misbehave(Job({"way": job.hints["way"]}, {}, {}, job.out, job.scratch, job.progress))


def _vary(job: Job) -> None:
    """Gives other bytes, other files or nothing when it runs again, as the parameter says."""
    _note("vary", job)
    first = Path(str(job.hints["memory"])) / str(job.params["way"])
    again = first.exists()
    first.touch()
    way = job.params["way"]
    text = bytearray(b"a" * 3_000_000)
    if again and way == "byte":
        text[2_345_678] = 0x62
    if again and way == "shorter":
        del text[1000:]
    if again and way == "fail":
        raise InputError("no more")
    (job.out / "big").write_bytes(text)
    if again and way == "mode":
        (job.out / "big").chmod(0o755)
    if again and way == "extra":
        (job.out / "more").write_text("x")
    if not again and way == "missing":
        (job.out / "gone").write_text("x")


def _count(job: Job) -> None:
    """Takes `steps` steps, each of which it does not do again when it is killed after it (hint `die` after a step)."""
    assert job.resume is not None or job.hints.get("alone")
    for step in range(int(job.params["steps"])):
        done = None if job.resume is None else job.resume / str(step)
        if done is None or not done.exists():
            _note(f"step {step}", job)
            if done is not None:
                done.touch()
        if Path(str(job.hints.get("die", "/nowhere")), str(step)).exists():
            Path(str(job.hints["die"]), str(step)).unlink()
            os.kill(os.getpid(), 9)
    (job.out / "steps").write_text(str(job.params["steps"]))


KINDS = (
    TaskKind("write", 1, ("files",), (), (), _write, dumps=True),
    TaskKind("combine", 1, ("text",), (), (), _join),
    TaskKind("tell", 1, ("name",), (), (), _tell, preload=("tests.helpers.slow_module",)),
    TaskKind("vary", 1, ("way",), (), (), _vary),
    TaskKind("count", 1, ("steps",), (), (), _count, resumable=True),
    TaskKind("misbehave", 1, ("way",), (), (), _misbehave),
)
