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
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import make_project
from tests.helpers.plans import Memory, edit_platform, project, tasks_of

TEXT = (Path(__file__).parent.parent.parent / "docs/ci.md").read_text()
PIPELINE = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[0]
PARTS = ("fetch", "quantize", "config", "lower", "link")


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
    assert set(re.findall(r"matrix\.install\.(\w+)", PIPELINE)) <= set(include[0]["install"])
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


@pytest.mark.slow
def test_the_pipeline_runs(tmp_path: Path) -> None:
    """Every job's steps in order, each job on a machine of its own: a fresh checkout, a fresh store, its artifacts."""
    tools = tmp_path / "bin"
    tools.mkdir()
    root = Path(__file__).parent.parent.parent
    write_tool(tools / "llmbuild", f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m llmbuild "$@"\n')
    source = make_project(tmp_path / "source", checkpoint=cached_checkpoint("llama"))
    assert source.run("lock").code == 0
    jobs = pipeline()["jobs"]

    def machine(name: str) -> Machine:
        return Machine(tmp_path / name, source.root, tools)

    plan = machine("plan")
    plan.run(jobs["plan"], {})
    matrix = json.loads(plan.outputs()["matrix"])
    assert [entry["platform"] for entry in matrix["include"]] == ["x86_64-linux-cpu"]
    assert "### tiny: 5 tasks: 5 to run" in (plan.root / "summary.md").read_text()

    weights = machine("weights")
    weights.run(jobs["weights"], {})
    library = machine("library")
    shutil.copy(weights.checkout / "shared.tar", library.checkout)
    library.run(jobs["library"], matrix["include"][0])
    assert "built 2 of 5 tasks" in (library.checkout / "report.html").read_text()

    collect = machine("collect")
    for name, archive in (("shared", weights.checkout / "shared.tar"), ("library-0", library.checkout / "library.tar")):
        (collect.checkout / "parts" / name).mkdir(parents=True)
        shutil.copy(archive, collect.checkout / "parts" / name)
    collect.run(jobs["collect"], {})
    summary = (collect.root / "summary.md").read_text()
    assert "### tiny: up to date: 5 tasks cached" in summary, summary
    assert (collect.checkout / matrix["include"][0]["library"]).is_file()

    again = machine("again")
    shutil.copy(collect.checkout / "cache.tar", again.checkout)
    again.run(jobs["plan"], {})
    assert json.loads(again.outputs()["matrix"]) == {"include": []}


class Machine:
    """A job's machine."""

    def __init__(self, root: Path, project: Path, tools: Path) -> None:
        self.root, self.checkout = root, root / "checkout"
        shutil.copytree(project, self.checkout, ignore=shutil.ignore_patterns(".llmbuild", "dist"))
        (root / "output").touch()
        self.env = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LLMBUILD_CACHE": str(root / "store"),
            "GITHUB_STEP_SUMMARY": str(root / "summary.md"),
            "GITHUB_OUTPUT": str(root / "output"),
            "TVM_BIND_THREADS": "0",
        }

    def run(self, job: dict[str, Any], entry: dict[str, Any]) -> None:
        """Run the steps that are commands, with the shell and the options that GitHub Actions has."""
        for step in job["steps"]:
            condition = re.fullmatch(r"hashFiles\('(.*)'\) != ''", str(step.get("if", "")))
            if condition and not (self.checkout / condition[1]).exists():
                continue
            command = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: entry[found[1]], step.get("run", "true"))
            if command.startswith(("pip ", "sudo ")):
                continue
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
                cwd=self.checkout, env=self.env, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (command, done.stdout, done.stderr)

    def outputs(self) -> dict[str, str]:
        lines = (self.root / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


def write_tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
