"""What the engine costs: seconds a task beside the task's own work, and restoring a large tree by links.

    python benchmarks/scheduler.py [--tasks N] [--directory DIR] [--json]

- *Engine*: tasks that write four bytes, run in this process, in a wide graph and in a chain.  `durable` flushes each trace
  to the disk as a build does; `not durable` leaves flushing out.  Goals: 5 ms and 1 ms a task.
- *Workers*: the same tasks with a process each, started alone and forked by a server that has imported NumPy.
- *Restore*: a tree of 320 files of 32 MiB (10 GiB) installed into an empty project on the same file system, and again
  after one file was deleted.  The files are sparse and are put into the store by renaming, with their digests recorded as
  verified.  Goal: 0.1 s.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from llmbuild.canonical import digest_file
from llmbuild.engine import fs
from llmbuild.engine.executor import Executor
from llmbuild.engine.install import Installation, install
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.engine.registry import EXTRA_MODULES
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import InputRef, Install, Task
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.verified import stamp_of
from llmbuild.executors.inline import InlineExecutor
from llmbuild.executors.local import LocalExecutor

FILES, FILE_SIZE, DELETED = 320, 32 << 20, 7


def _write(job: Job) -> None:
    (job.out / "file").write_text(f"{job.params['number']:4}")


KINDS = (
    TaskKind("bench", 1, ("number",), (), (), _write),
    TaskKind("bench-preload", 1, ("number",), (), (), _write, preload=("numpy",)),
)


class NotDurable(fs.FileSystem):
    """The file system without flushing."""

    def fsync(self, fd: int) -> None:
        pass


def wide(count: int, kind: str = "bench") -> list[Task]:
    return [Task(kind, f"wide[{n}]", 1, {"number": n}, {}, {}) for n in range(count)]


def chain(count: int) -> list[Task]:
    links: list[Task] = []
    for n in range(count):
        inputs = {"before": InputRef(links[-1].label)} if links else {}
        links.append(Task("bench", f"chain[{n}]", 1, {"number": n}, inputs, {}))
    return links


def build(directory: Path | None, tasks: list[Task], local: bool = False, jobs: int = 1) -> tuple[float, float]:
    """Milliseconds a task of a first build in a new store: wall clock, and CPU time of this process."""
    with tempfile.TemporaryDirectory(dir=directory) as root:
        store = Store(Path(root))
        executor: Executor = LocalExecutor(store) if local else InlineExecutor(store)
        started, cpu = time.perf_counter(), time.process_time()
        result = Scheduler(store, executor, jobs=jobs, project="benchmark").run(tasks)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        executor.terminate()
        store.close()
        assert result.ok, result.outcomes
    return seconds / len(tasks) * 1000, cpu / len(tasks) * 1000


def restore(directory: Path | None) -> tuple[float, float, float]:
    """Seconds to install the tree, to see that it is there, and to put one deleted file back."""
    with tempfile.TemporaryDirectory(dir=directory) as root:
        store, project = Store(Path(root) / "store"), Path(root) / "project"
        project.mkdir()
        entries = []
        for n in range(FILES):
            scratch = store.scratch() / str(n)
            with scratch.open("wb") as file:
                file.truncate(FILE_SIZE)
            # The digests are made up, for hashing 10 GiB is not what is measured and what is verified is not hashed
            # again.  Only the one that is deleted is hashed: taking a link away changes the blob's ctime.
            digest = digest_file(scratch) if n == DELETED else hashlib.sha256(str(n).encode()).hexdigest()
            scratch.chmod(0o444)
            path = store.cas.blob_path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(path)
            store.cas.memo.record(digest, stamp_of(path.stat()))
            entries.append(FileEntry(f"params_shard_{n}.bin", digest, FILE_SIZE, False))
        items = [Installation("quantize", Tree.of(entries), Install("", "dist/model"))]
        times = []
        for _ in range(2):
            started = time.perf_counter()
            install(store, project, items)
            times.append(time.perf_counter() - started)
        (project / "dist" / "model" / f"params_shard_{DELETED}.bin").unlink()
        started = time.perf_counter()
        report = install(store, project, items)
        times.append(time.perf_counter() - started)
        assert report.restored == [f"dist/model/params_shard_{DELETED}.bin"]
        assert sum(path.stat().st_size for path in (project / "dist").rglob("*.bin")) == FILES * FILE_SIZE
        store.close()
    return times[0], times[1], times[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the stores are made (made if missing; its disk matters)"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # Workers import this file under its own name.
    sys.modules.setdefault("scheduler", sys.modules[__name__])
    os.environ[EXTRA_MODULES] = "scheduler"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)

    directory, count = arguments.directory, arguments.tasks
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"cannot make {directory}: {error.strerror}")
    few = max(4, count // 20)
    numbers: dict[str, float] = {}

    def measure(name: str, tasks: list[Task], local: bool = False) -> None:
        # The best of three: other work on the machine only adds.
        runs = [build(directory, tasks, local) for _ in range(1 if local else 3)]
        numbers[f"{name} (ms a task)"] = min(wall for wall, _ in runs)
        numbers[f"{name}, CPU (ms a task)"] = min(cpu for _, cpu in runs)

    build(directory, wide(5))
    measure("durable, wide", wide(count))
    measure("durable, chain", chain(count))
    usual, fs.current = fs.current, NotDurable()
    measure("not durable, wide", wide(count))
    measure("not durable, chain", chain(count))
    fs.current = usual
    measure("a process each", wide(few), local=True)
    measure("forked processes", wide(few, "bench-preload"), local=True)
    first, null, again = restore(directory)
    numbers[f"restore {FILES * FILE_SIZE / 2**30:.0f} GiB (s)"] = first
    numbers["restore, nothing to do (s)"] = null
    numbers["restore one file (s)"] = again
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in numbers.items()}, indent=2))
    else:
        print(f"{count} tasks, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs")
        for name, value in numbers.items():
            print(f"  {name:40} {value:8.3f}")


if __name__ == "__main__":
    main()
