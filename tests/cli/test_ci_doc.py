"""docs/ci.md: its pipeline is YAML whose parts fit together, and llmbuild understands every command in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llmbuild.cli.main import COMMANDS, _parser
from llmbuild.plan.reasons import OutputMissing
from llmbuild.report.plan_ci import github_matrix
from tests.helpers import web_runtime
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import make_project
from tests.helpers.plans import Memory, edit_platform, project, tasks_of
from tests.helpers.wheel import build_distributions, unpack

TEXT = (Path(__file__).parent.parent.parent / "docs/ci.md").read_text()
PIPELINE = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[0]
PARTS = ("fetch", "inspect", "quantize", "config", "lower", "link")

ANYWHERE = "bash sh env cat cp mv rm mkdir ls sort head tail grep sed tr uname dirname basename readlink"
"""The programs of any machine that the pipeline, its shell or a launcher may call."""

PROGRAMS = {
    "gcc": "gcc cc as ld",
    "libc6-dev": "",
    "emscripten": "emcc em-config node wasm-emscripten-finalize wasm-opt",
}
"""By package of Debian: what it brings, and what the packages that it needs bring."""


def absent_programs() -> list[str]:
    return [name for name in " ".join(PROGRAMS.values()).split() if shutil.which(name) is None]


def pipeline() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    value: dict[str, Any] = yaml.safe_load(PIPELINE)
    return value


def commands() -> list[str]:
    """Every llmbuild command of the pipeline, with its expressions and variables filled in."""
    found = []
    for job in pipeline()["jobs"].values():
        for step in job["steps"]:
            filled = re.sub(r"\$\{\{.*?\}\}|\$\w+", "value", step.get("run", ""))
            found += re.findall(r"\bllmbuild [^\n|>)]*", filled.replace("pip install llmbuild", ""))
    return found


def test_every_command_is_understood() -> None:
    assert len(commands()) == 16
    for command in commands():
        words = shlex.split(command)[1:]
        module = import_module(COMMANDS[words[0]][0])
        arguments = _parser(words[0], module).parse_args(words[1:])
        for task in getattr(arguments, "tasks", []):
            assert task in PARTS


def test_jobs_need_jobs_that_exist_and_know_their_outputs() -> None:
    jobs = pipeline()["jobs"]
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= jobs.keys()
    for job, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", PIPELINE):
        assert output in jobs[job]["outputs"]
    for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", PIPELINE):
        run = next(one["run"] for one in jobs["plan"]["steps"] if one.get("id") == step)
        assert f'echo "{output}=' in run


def test_the_matrix_has_what_the_pipeline_uses() -> None:
    memory = Memory()
    memory.build(tasks_of(project(platforms=("native",))))
    of = project(platforms=("native", "web"))
    # A library for a GPU has a record beside it, which is no library of its own.
    of = edit_platform(of, "web", compile={"device": {"kind": "cuda"}, "host": {"mtriple": "x86_64-web"}})
    plan = memory.plan(tasks_of(of))
    assert sum(bool(task.installs) for task in tasks_of(of) if task.platform == "web") == 2
    include: Any = github_matrix(plan, of.platforms)["include"]
    assert [(one["platform"], one["stale"]) for one in include] == [("native", False), ("web", True)]
    assert [one["library"] for one in include] == [cell.library for cell in of.matrix]
    assert [one["install"]["pip"] for one in include] == ["llmbuild", "llmbuild[cuda]"]
    assert github_matrix(plan, of.platforms, stale_only=True)["include"] == include[1:]
    assert set(re.findall(r"matrix\.install\.(\w+)", PIPELINE)) == set(include[0]["install"])
    assert set(re.findall(r"matrix\.(model|quantization|platform|label|\w+) }}", PIPELINE)) - {"outputs"} <= set(
        include[0]
    )
    assert all(f"`{name}`" in TEXT for name in include[0])


def test_a_stale_weight_makes_every_library_of_the_pair_stale() -> None:
    of = project(schemes=("q4f16_1", "q4f32_1"), platforms=("native", "web"))
    memory = Memory()
    memory.build(tasks_of(of))
    memory.wrong["quantize[smollm2, q4f32_1]"] = (OutputMissing("x"),)  # Put back from the cache: not stale.
    forced = frozenset({"quantize[smollm2, q4f16_1]"})
    include: Any = github_matrix(memory.plan(tasks_of(of), forced), of.platforms)["include"]
    assert {(one["quantization"], one["platform"]) for one in include if one["stale"]} == {
        ("q4f16_1", "native"), ("q4f16_1", "web"),
    }  # fmt: skip


def test_files_that_a_step_reads_were_written_by_one_before() -> None:
    for name, job in pipeline()["jobs"].items():
        text = str(job["steps"])
        for tar in set(re.findall(r"cache import (\S+?\.tar)", text)):
            stem = tar.rpartition("/")[2]
            assert f"cache export {stem}" in PIPELINE, (name, tar)


def test_an_empty_matrix_is_what_the_condition_says() -> None:
    assert pipeline()["jobs"]["weights"]["if"].endswith(f"'{json.dumps({'include': []}, separators=(',', ':'))}'")


MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[metadata]
context-window-size = 64
prefill-chunk-size = 32

[platforms.gpu]
target = "x86_64-linux-cuda"
device = { archs = ["sm_80"] }

[platforms.phone]
target = "aarch64-android-adreno-so"

[platforms.browser]
target = "wasm32-webgpu"

[[build]]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu", "gpu", "browser", "phone"]
"""
INSTALLS = {
    "x86_64-linux-cpu": "llmbuild + gcc libc6-dev",
    "gpu": "llmbuild[cuda] + gcc libc6-dev",
    "browser": "llmbuild + emscripten",
    "phone": "llmbuild[cross] + ",
}


@pytest.mark.slow
@pytest.mark.skipif(bool(absent_programs()), reason=f"needs {', '.join(absent_programs())}")
def test_the_pipeline_runs(tmp_path: Path) -> None:
    """Every job's steps in order, each job on a machine of its own: a fresh checkout, a fresh store, its artifacts, and of all
    tools only those that its steps install."""
    _, wheel = build_distributions(tmp_path)
    source = make_project(tmp_path / "source", MANIFEST, cached_checkpoint("llama"))
    jobs = pipeline()["jobs"]

    def machine(name: str) -> Machine:
        return Machine(tmp_path / name, source.root, wheel)

    # The lock file is written where all platforms can be built.
    developer = machine("developer")
    developer.install("pip install llmbuild[cross,cuda]")
    developer.install("sudo apt-get install -y gcc libc6-dev emscripten")
    developer.shell("llmbuild lock")
    shutil.copy(developer.checkout / "llmbuild.lock", source.root)

    plan = machine("plan")
    plan.run(jobs["plan"], {})
    include = json.loads(plan.outputs()["matrix"])["include"]
    assert {one["platform"]: f"{one['install']['pip']} + {one['install']['apt']}" for one in include} == INSTALLS
    assert "### tiny: 13 tasks: 13 to run" in (plan.root / "summary.md").read_text()

    weights = machine("weights")
    weights.run(jobs["weights"], {})
    collect = machine("collect")
    artifacts = {"shared": weights.checkout / "shared.tar"}
    for index, entry in enumerate(include):
        library = machine(f"library of {entry['platform']}")
        if entry["platform"] == "browser":
            # TVM's runtime for browsers is compiled once for all tests.
            web_runtime.seed(library.store)
        shutil.copy(weights.checkout / "shared.tar", library.checkout)
        library.run(jobs["library"], entry)
        # Of a browser's the sixth is the runtime.
        assert re.search("built 2 of [67] tasks", (library.checkout / "report.html").read_text())
        artifacts[f"library-{index}"] = library.checkout / "library.tar"
    for name, archive in artifacts.items():
        (collect.checkout / "parts" / name).mkdir(parents=True)
        shutil.copy(archive, collect.checkout / "parts" / name)
    collect.run(jobs["collect"], {})
    summary = (collect.root / "summary.md").read_text()
    assert "### tiny: up to date: 13 tasks cached" in summary, summary
    assert all((collect.checkout / entry["library"]).is_file() for entry in include)

    again = machine("again")
    shutil.copy(collect.checkout / "cache.tar", again.checkout)
    again.run(jobs["plan"], {})
    assert json.loads(again.outputs()["matrix"]) == {"include": []}


class Machine:
    """A job's machine: a fresh checkout with a store of its own, and no program but those that any has and those installed."""

    def __init__(self, root: Path, project: Path, wheel: Path) -> None:
        self.root, self.checkout, self.store = root, root / "checkout", root / "store"
        shutil.copytree(project, self.checkout, ignore=shutil.ignore_patterns(".llmbuild", "dist"))
        (root / "output").touch()
        (root / "bin").mkdir()
        self._wheel = wheel
        self._link(ANYWHERE)
        # Not a launcher that asks for its place on PATH.
        (root / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
        self.env = {
            **{name: value for name, value in os.environ.items() if name.startswith("OPENBLAS")},
            "PATH": str(root / "bin"),
            "HOME": str(root),
            "LLMBUILD_CACHE": str(self.store),
            "GITHUB_STEP_SUMMARY": str(root / "summary.md"),
            "GITHUB_OUTPUT": str(root / "output"),
            "TVM_BIND_THREADS": "0",
        }

    def run(self, job: dict[str, Any], entry: dict[str, Any]) -> None:
        """Run the steps that are commands, those that install something as they say."""
        for step in job["steps"]:
            condition = str(step.get("if", "always()"))
            files = re.fullmatch(r"hashFiles\('(.*)'\) != ''", condition)
            given = re.fullmatch(r"matrix\.install\.(\w+) != ''", condition)
            assert files or given or condition == "always()", condition
            if files and not (self.checkout / files[1]).exists():
                continue
            if given and not entry["install"][given[1]]:
                continue
            command = _filled(step.get("run", "true"), entry)
            if command.startswith(("pip ", "sudo ")):
                self.install(command)
            else:
                self.shell(command)

    def shell(self, command: str) -> None:
        """A command, with the shell and the options that GitHub Actions has."""
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
            cwd=self.checkout, env=self.env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def install(self, command: str) -> None:
        """What `pip install` and `apt-get install` bring, taken from this machine."""
        pip = re.fullmatch(r"pip install llmbuild(?:\[([\w,]+)\])?", command)
        apt = re.fullmatch(r"(?:sudo apt-get update && )?sudo apt-get install -y (.*)", command)
        if pip is not None:
            python = unpack(self._wheel, self.root / "python", (pip[1] or "").split(","))
            # Debian's places of LLVM's linkers, which are looked at besides PATH, have none here.
            (tools,) = (self.root / "python").glob("lib/python*/site-packages/llmbuild/linkers/tools.py")
            text = tools.read_text()
            assert text.count('Path("/usr/lib")') == 1
            tools.write_text(text.replace('Path("/usr/lib")', 'Path("/nonexistent")'))
            write_tool(self.root / "bin" / "llmbuild", f'#!/bin/sh\nexec "{python}" -m llmbuild "$@"\n')
            return
        assert apt is not None, command
        for package in apt[1].split():
            self._link(PROGRAMS[package])

    def _link(self, names: str) -> None:
        for name in names.split():
            (self.root / "bin" / name).symlink_to(str(shutil.which(name)))

    def outputs(self) -> dict[str, str]:
        lines = (self.root / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


def _filled(text: str, entry: dict[str, Any]) -> str:
    """The text with `${{ matrix.NAME }}` of an entry, where NAME may be a path of names."""

    def value(found: re.Match[str]) -> str:
        value: Any = entry
        for part in found[1].split("."):
            value = value[part]
        return str(value)

    return re.sub(r"\$\{\{ matrix\.([\w.]+) \}\}", value, text)


def write_tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
