"""A build that has nothing to do, at 100, 1,000 and 10,000 tasks, beside ninja and doit in the same run.

    python benchmarks/null_build.py [--sizes 100,1000,10000] [--repeat 5] [--skip-cli]

Three things are measured, each as the best of some repetitions:

- engine: a process whose store and tasks are loaded; looking everything up and finding that nothing is to be done
  (Scheduler.run and install), in this process;
- driver: a whole process that makes the tasks, opens the store, and does the same;
- cli: `llmbuild build` as a user starts it, with a manifest whose matrix has that many tasks (models x platforms).

The peers get a graph of the same shape: for each chain a source file, a copy of it, and so on, one command a file.
A peer that is not installed is skipped, saying so (`pip install ninja doit`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CHAIN = 5
"""Tasks a chain: fetch, quantize, config, lower and link are five too."""

KINDS_MODULE = "null_build_kinds"
KINDS_SOURCE = """
from llmbuild.engine.kind import TaskKind

def run(job):
    for name, text in job.params["files"].items():
        (job.out / name).write_text(text)

KIND = TaskKind("emit", 1, ("files",), (), (), run)
"""


def environment(place: Path, **extra: str) -> dict[str, str]:
    """For child processes: this llmbuild, compiled to bytecode once as an installed one is."""
    values = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    values["PYTHONPYCACHEPREFIX"] = str(place / "bytecode")
    values["PYTHONPATH"] = f"{ROOT}{os.pathsep}{place}"
    return {**values, **extra}


def best(repeat: int, work: Callable[[], object]) -> float:
    """The shortest of some runs, in seconds."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def tasks(count: int) -> list:
    """Chains of tasks; each reads part of what the one before wrote, and every last one is installed."""
    from llmbuild.engine.task import Files, InputRef, Install, JsonFields, Task

    made = []
    for number in range(count):
        place = number % CHAIN
        before = f"emit[{number - 1}]"
        select = Files(("a.*",)) if place % 2 else JsonFields("c.json", ("x", "y"))
        made.append(
            Task(
                "emit",
                f"emit[{number}]",
                1,
                {"files": {"a.txt": f"{number}", "c.json": json.dumps({"x": number, "y": place, "z": 0})}},
                {"input": InputRef(before, select)} if place else {},
                {"llmbuild sources": "0" * 64},
                installs=(Install("a.txt", f"dist/{number}.txt"),) if place == CHAIN - 1 else (),
            )
        )
    return made


def null_build(root: Path, count: int) -> tuple[float, int]:
    """One build in this process; returns engine seconds and how many tasks ran."""
    from llmbuild.engine.install import Installation, install
    from llmbuild.engine.outcome import Status
    from llmbuild.engine.scheduler import Scheduler
    from llmbuild.engine.store import Store
    from llmbuild.executors.inline import InlineExecutor

    graph = tasks(count)
    begin = time.perf_counter()
    store = Store(root / "store")
    result = Scheduler(store, InlineExecutor(store), project=str(root)).run(graph)
    items = [Installation(t.label, result.outcomes[t.label].tree, one) for t in graph for one in t.installs]
    install(store, root / "project", items, known=[t.label for t in graph])
    store.close()
    return time.perf_counter() - begin, len(result.labels(Status.RAN))


def driver(root: Path, count: int) -> None:
    """What `--drive` runs as a process of its own."""
    seconds, ran = null_build(root, count)
    print(json.dumps({"engine": seconds, "ran": ran}))


def measure_engine(place: Path, count: int, repeat: int) -> dict[str, float]:
    (place / "project").mkdir(parents=True)
    (place / f"{KINDS_MODULE}.py").write_text(KINDS_SOURCE)
    os.environ["LLMBUILD_TASK_MODULES"] = KINDS_MODULE
    sys.path.insert(0, str(place))
    with redirect_stdout(io.StringIO()):
        _, ran = null_build(place, count)
    assert ran == count, ran
    engine = min(null_build(place, count)[0] for _ in range(repeat))
    command = [sys.executable, __file__, "--drive", str(place), "--sizes", str(count)]
    variables = environment(place)
    subprocess.run(command, env=variables, check=True, capture_output=True)
    whole = best(repeat, lambda: subprocess.run(command, env=variables, check=True, capture_output=True))
    output = subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout
    assert json.loads(output)["ran"] == 0
    sys.path.remove(str(place))
    return {"engine": engine, "driver": whole}


def manifest(models: int, platforms: int) -> str:
    """A manifest of models x platforms on one tiny checkpoint each; models + models + models + 2 x cells tasks."""
    names = [f"m{n}" for n in range(models)]
    places = [f"p{n}" for n in range(platforms)]
    lines = ['[project]\nname = "null"\n']
    for name in names:
        lines.append(f'[models.{name}]\nsource = "checkpoints/{name}"\nconv-template = "chatml"\n')
    for n, place in enumerate(places):
        lines.append(
            f'[platforms.{place}]\ntarget = "x86_64-linux-cpu"\nmetadata = {{ prefill-chunk-size = {32 + n} }}\n'
        )
    lines.append("[metadata]\ncontext-window-size = 64\n")
    lines.append(
        f'[[build]]\nmodels = {json.dumps(names)}\nquantizations = ["q4f32_1"]\nplatforms = {json.dumps(places)}\n'
    )
    return "\n".join(lines)


FAKE_KINDS = '''
"""Stands before llmbuild's task kinds: the same declarations, and no work, so that thousands of tasks can be "built"."""
import json
import llmbuild.tasks.config, llmbuild.tasks.fetch, llmbuild.tasks.link, llmbuild.tasks.lower, llmbuild.tasks.quantize
from dataclasses import replace

def fetch(job):
    for path in job.params["files"]:
        (job.out / path).write_text(json.dumps([path, job.params["files"][path]]))

def quantize(job):
    (job.out / "params_shard_0.bin").write_bytes(b"w")
    (job.out / "tensor-cache.json").write_text("{}")

def config(job):
    value = {"model_type": "llama", "quantization": job.params["quantization"], "context_window_size": 64}
    (job.out / "mlc-chat-config.json").write_text(json.dumps(value))

def lower(job):
    (job.out / "lib0.o").write_bytes(json.dumps(job.params, sort_keys=True).encode())

def link(job):
    (job.out / ("lib." + job.params["artifact"])).write_bytes(b"l")

for run in (fetch, quantize, config, lower, link):
    module = getattr(llmbuild.tasks, run.__name__)
    module.KIND = replace(module.KIND, run=run)
'''

FIRST_BUILD = """
import sys
sys.argv = ["llmbuild"]
import fake_kinds
from llmbuild.cli.main import main
sys.exit(main(["build", "--quiet", "--jobs", "1", "--executor", "inline"]))
"""


def measure_cli(place: Path, count: int, repeat: int) -> dict[str, float]:
    """`llmbuild build` on a manifest with about `count` tasks: chains of 3 tasks a model and 2 a library."""
    platforms = 5 if count >= 1000 else 1
    models = max(1, round(count / (3 + 2 * platforms)))
    place.mkdir(parents=True)
    (place / "buildfile.toml").write_text(manifest(models, platforms))
    for n in range(models):
        directory = place / "checkpoints" / f"m{n}"
        directory.mkdir(parents=True)
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "seed": n}
        (directory / "config.json").write_text(json.dumps(config))
        for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (directory / name).write_text(f"{name} {n}")
    (place / "fake_kinds.py").write_text(FAKE_KINDS)
    variables = environment(place, LLMBUILD_CACHE=str(place / "cache"), LLMBUILD_TASK_MODULES="")
    run = {"cwd": place, "env": variables, "capture_output": True, "text": True}
    first = subprocess.run([sys.executable, "-c", FIRST_BUILD], check=False, **run)
    if first.returncode != 0:
        raise SystemExit(first.stdout + first.stderr)
    # A file is remembered by its stat only when it is older than two seconds.
    time.sleep(2.1)
    command = [sys.executable, "-m", "llmbuild", "build"]
    for _ in range(2):
        output = subprocess.run(command, **run, check=True)
    total = models * (3 + 2 * platforms)
    seconds = best(repeat, lambda: subprocess.run(command, **run, check=True))
    return {"cli": seconds, "tasks": total, "said": output.stdout.strip().splitlines()[-1:]}


def measure_ninja(place: Path, count: int, repeat: int) -> float | None:
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:
        print("  ninja is not installed, skipped (pip install ninja)")
        return None
    place.mkdir(parents=True)
    lines = ["rule copy\n  command = cp $in $out\n"]
    for number in range(count):
        before = f"f{number - 1}" if number % CHAIN else f"s{number}"
        if number % CHAIN == 0:
            (place / before).write_text("s")
        lines.append(f"build f{number}: copy {before}\n")
    (place / "build.ninja").write_text("".join(lines))
    subprocess.run([ninja, "-C", str(place)], check=True, capture_output=True)
    return best(repeat, lambda: subprocess.run([ninja, "-C", str(place)], check=True, capture_output=True))


DODO = """
import shutil
def copy(dependencies, targets):
    shutil.copyfile(dependencies[0], targets[0])
def task_copy():
    for number in range({count}):
        before = f"f{{number - 1}}" if number % {chain} else f"s{{number}}"
        after = f"f{{number}}"
        action = (copy, [[before], [after]])
        yield {{"name": after, "actions": [action], "file_dep": [before], "targets": [after]}}
"""


def measure_doit(place: Path, count: int, repeat: int) -> float | None:
    doit = shutil.which("doit") or shutil.which("doit", path=str(Path(sys.executable).parent))
    if doit is None:
        print("  doit is not installed, skipped (pip install doit)")
        return None
    place.mkdir(parents=True)
    for number in range(0, count, CHAIN):
        (place / f"s{number}").write_text("s")
    (place / "dodo.py").write_text(DODO.format(count=count, chain=CHAIN))
    command = [doit, "-v0"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    return best(repeat, lambda: subprocess.run(command, cwd=place, check=True, capture_output=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--skip-cli", action="store_true")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if arguments.drive is not None:
        driver(arguments.drive, sizes[0])
        return
    rows = []
    for count in sizes:
        print(f"{count} tasks")
        with tempfile.TemporaryDirectory(prefix="llmbuild-null-") as name:
            place = Path(name)
            row: dict[str, object] = {"size": count, **measure_engine(place / "engine", count, arguments.repeat)}
            if not arguments.skip_cli:
                row |= measure_cli(place / "cli", count, arguments.repeat)
            row["ninja"] = measure_ninja(place / "ninja", count, arguments.repeat)
            row["doit"] = measure_doit(place / "doit", count, arguments.repeat)
        for key, value in row.items():
            print(f"  {key:8} {value:.3f} s" if isinstance(value, float) else f"  {key:8} {value}")
        rows.append(row)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
