"""The engine's modules stay light: a null build imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.engine_fixtures import ROOT

HEAVY = (
    "tvm",
    "pydantic",
    "networkx",
    "rich",
    "numpy",
    "huggingface_hub",
    "tokenizers",
    "diskcache",
    "sqlite3",
    "torch",
)

NULL_BUILD = """
import sys
from pathlib import Path
from llmbuild.engine.install import install
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.executors.local import LocalExecutor
from tests.helpers.engine_build import write_task, join_task, install_all
root = Path(sys.argv[1])
store = Store(root / "store")
tasks = [write_task("a", {"x": "1"}, dest="dist/a"), join_task("b", "b", "a", dest="dist/b.so")]
result = Scheduler(store, LocalExecutor(store), project="p").run(tasks)
install_all(store, root, tasks, result)
print([one.status.value for one in result.outcomes.values()], sorted(set(sys.argv[2].split(",")) & set(sys.modules)))
"""


def test_a_null_build_imports_nothing_heavy(tmp_path: object) -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", NULL_BUILD, str(tmp_path), ",".join(HEAVY)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert outputs[0].startswith("['ran', 'ran']")
    assert outputs[1] == "['cached', 'cached'] []\n"


@pytest.mark.parametrize("module", ["llmbuild.executors.worker", "llmbuild.engine.execute", "llmbuild.engine.index"])
def test_modules_import_nothing_heavy(module: str) -> None:
    heavy = [name for name in HEAVY if name != "sqlite3"]
    code = f"import sys, {module}; print(sorted(set({heavy!r}) & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
