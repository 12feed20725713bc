"""Collections beside real builds: every build succeeds with the right bytes, whatever goes meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import Retention, collect
from llmbuild.engine.upkeep.survey import survey
from tests.helpers.engine_build import build, join_task, write_task
from tests.helpers.engine_fixtures import ROOT

VARIANTS = 40
BUILDERS = 3
GRACE_S = 2.0

BUILDER = """
import random, shutil, sys
from pathlib import Path
from llmbuild.engine.store import Store
from llmbuild.executors.inline import InlineExecutor
from llmbuild.executors.local import LocalExecutor
from tests.executors.test_gc_beside_builds import VARIANTS, expected, variant
from tests.helpers.engine_build import build, install_all

number, root, project = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
store = Store(root)
# With a grace of two seconds, a build that waits longer for a processor has to be known as a writer from its start.
store.scratch()
order = list(range(VARIANTS))
random.Random(number).shuffle(order)
for position, one in enumerate(order):
    tasks = variant(one)
    executor = LocalExecutor(store) if position % 8 == 0 else InlineExecutor(store)
    result, _ = build(store, tasks, executor=executor, jobs=2)
    assert result.ok, [outcome.failure for outcome in result.outcomes.values()]
    install_all(store, project, tasks, result)
    assert (project / "dist" / "c").read_text() == expected(one)
    shutil.rmtree(project / "dist")
store.close()
"""


def variant(number: int) -> list[Task]:
    """Three tasks; some of their files are those of other variants."""
    files = {"x": f"{number}", "y": "same", "z": f"{number % 5}"}
    return [
        write_task(f"a{number}", files),
        join_task(f"b{number}", "b", f"a{number}"),
        join_task(f"c{number}", "c", f"a{number}", f"b{number}", dest="dist/c"),
    ]


def expected(number: int) -> str:
    files = f"{number}|same|{number % 5}"
    return f"c|{files}|b|{files}"


def test_builds_and_collections_go_together(store: Store, tmp_path: Path) -> None:
    for number in range(VARIANTS):
        build(store, variant(number))
    store.close()
    long_ago = time.time() - 3600
    for action in store.traces.names():
        os.utime(store.traces.path(action), (long_ago, long_ago))
    time.sleep(GRACE_S + 0.2)

    builders = []
    for number in range(BUILDERS):
        project = tmp_path / f"project{number}"
        project.mkdir()
        command = [sys.executable, "-c", BUILDER, str(number), str(store.root), str(project)]
        builders.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    wanted = survey(store).size
    removed = passes = 0
    deadline = time.monotonic() + 120
    while any(process.poll() is None for process in builders) and time.monotonic() < deadline:
        wanted = wanted * 9 // 10
        done = collect(store, Retention(max_size=wanted, keep=0, grace=GRACE_S), lambda _project: None)
        removed += done.traces
        passes += 1
    errors = [process.communicate(timeout=60)[1].decode() for process in builders]
    assert [process.returncode for process in builders] == [0] * BUILDERS, "\n".join(errors)
    assert removed > 0
    assert passes > 3

    store.close()
    collect(store, Retention(keep=0, grace=0), lambda _project: None, now=time.time() + 3600)
    assert not audit(store).findings
    collect(store, Retention(max_size=0, keep=0, grace=0), lambda _project: None, now=time.time() + 3600)
    assert survey(store).size == 0
