"""`report`, the forms of `plan` for CI and `why` as processes, after real builds of a tiny model (fetch and config)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project

ASKED = ("config",)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    return make_project(tmp_path, checkpoint=cached_checkpoint("llama"))


def edit(project: ProjectDir, old: str, new: str) -> None:
    path = project.root / "buildfile.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def timeless(text: str) -> str:
    """Text with durations and sizes replaced, which differ from run to run."""
    return re.sub(r"\d+\.\d+ (s|kB|MB|GB)\b", r"N \1", text)


def test_there_is_nothing_to_report_before_a_build(project: ProjectDir) -> None:
    done = project.run("report")
    assert done.code == 2
    assert done.err == dedent(
        """\
        error: there is no build to report on yet
          fix: run `llmbuild build`, which records its events
        """
    )
    done = project.run("report", "--events", "none.ndjson")
    assert done.code == 2 and done.err.startswith("error: there is no file none.ndjson\n")


def test_report_after_a_changed_value(project: ProjectDir) -> None:
    project.build(*ASKED)
    edit(project, "context-window-size = 64", "context-window-size = 128")
    project.build(*ASKED)
    done = project.run("report")
    assert done.code == 0 and done.err == ""
    assert re.sub(r" +", " ", timeless(done.out)) == dedent(
        """\
        tiny: built 1 of 3 tasks in N s, 2 cached

        1 root cause
         context-window-size 64 -> 128
         config[tiny, q4f32_1]

        critical path N s of N s
         N s config[tiny, q4f32_1]

        slowest tasks
         N s config[tiny, q4f32_1] N MB of memory, N kB

        cache 2 of 3 tasks from the cache, which once took N s (N MB)
        memory N MB at most, by config[tiny, q4f32_1]
        """
    )
    value = json.loads(project.run("report", "--json").out)
    assert value["project"] == "tiny" and value["causes"][0]["tasks"] == ["config[tiny, q4f32_1]"]
    assert project.run("report", "--markdown").out.startswith("### tiny: built 1 of 3 tasks in ")
    page = project.run("report", "--html", "page.html")
    assert (page.code, page.out) == (0, "wrote page.html\n")
    assert (project.root / "page.html").read_text().startswith("<!DOCTYPE html>")
    nowhere = project.run("report", "--html", "no/page.html")
    assert nowhere.code == 2 and "error: there is no directory" in nowhere.err
    full = project.run("report", "--html", "/dev/full")
    assert full.code == 6 and "error: /dev/full: cannot write the report" in full.err


def test_a_null_build_is_the_last_build(project: ProjectDir) -> None:
    project.build(*ASKED)
    project.build(*ASKED)
    assert project.run("report").out.startswith("tiny: up to date: 3 tasks cached (")


def test_events_are_what_report_reads(project: ProjectDir) -> None:
    project.run("build", *ASKED, "--events", "e.ndjson")
    assert (project.root / "e.ndjson").read_bytes() == (project.root / ".llmbuild/last-build.ndjson").read_bytes()
    shutil.rmtree(project.root / ".llmbuild")
    assert project.run("report", "--events", "e.ndjson").out.startswith("tiny: built 3 of 3 tasks")


def test_a_failed_build_is_reported(project: ProjectDir) -> None:
    (project.root / "checkpoint/tokenizer.json").write_text("{ cut off")
    assert project.run("build", *ASKED).code == 3
    done = project.run("report")
    assert done.code == 0 and "tiny: failed after " in done.out and "\nfailed\n  config[tiny, q4f32_1]: " in done.out


def test_the_summary_of_a_ci_job(project: ProjectDir, tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    project.build(*ASKED, env={"GITHUB_STEP_SUMMARY": str(page)})
    text = page.read_text()
    assert text.startswith("before\n### tiny: built 3 of 3 tasks in ")
    assert "| `config[tiny, q4f32_1]` | built | " in text
    # A page that cannot be written does not fail the build.
    project.build(*ASKED, env={"GITHUB_STEP_SUMMARY": str(tmp_path / "no/summary.md")})


def test_plan_for_ci(project: ProjectDir) -> None:
    done = project.run("plan", "--format", "github-matrix")
    assert done.code == 0 and done.out.count("\n") == 1
    assert json.loads(done.out) == {
        "include": [
            {
                "model": "tiny",
                "quantization": "q4f32_1",
                "platform": "x86_64-linux-cpu",
                "label": "link[tiny, q4f32_1, x86_64-linux-cpu]",
                "library": "dist/libs/tiny-q4f32_1-x86_64-linux-cpu.so",
                "stale": True,
                "install": {"pip": "llmbuild", "apt": "gcc libc6-dev"},
            }
        ]
    }
    assert (
        project.run("plan", "config", "--format", "markdown").out
        == dedent(
            """\
        ### tiny: 3 tasks: 3 to run

        | task | state | why |
        |---|---|---|
        | `fetch[tiny]` | run | never built |
        | `inspect[tiny]` | run | never built |
        | `config[tiny, q4f32_1]` | run | never built |

        estimate: no earlier runs, so time and memory are unknown; nothing to download
        """
        ).rstrip("\n")
        + "  \n"
    )


def test_plan_estimates_from_earlier_runs(project: ProjectDir) -> None:
    project.build(*ASKED)
    edit(project, "context-window-size = 64", "context-window-size = 128")
    assert timeless(project.run("plan", *ASKED).out) == dedent(
        """\
        tiny: 3 tasks: 1 to run, 2 cached
        1 root cause

          run      config[tiny, q4f32_1]  context-window-size 64 -> 128
          cached   fetch[tiny]
          cached   inspect[tiny]

        estimate: N s, N MB of memory, N kB of new disk, nothing to download
          from 1 earlier run of each task
        """
    )
    value = json.loads(project.run("plan", "--json", *ASKED).out)
    assert value["estimate"]["run"]["wall-s"] > 0 and value["estimate"]["runs"] == [1, 1]
    assert value["tasks"][2]["estimate"]["runs"] == 1 and value["tasks"][0]["estimate"] is None


def test_a_plan_makes_nothing_in_an_empty_store(project: ProjectDir) -> None:
    project.run("plan", *ASKED)
    assert not (project.store / "index").exists() and not (project.store / "traces").exists()


def test_a_lost_history_does_not_read_as_never_built(project: ProjectDir) -> None:
    project.build(*ASKED)
    edit(project, "context-window-size = 64", "context-window-size = 128")
    shutil.rmtree(project.store / "projects")
    assert "context-window-size 64 -> 128" in project.run("plan", *ASKED).out
    # The index is made from the traces again when it is lost, too.
    shutil.rmtree(project.store / "index", ignore_errors=True)
    done = project.run("why", "config*")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[:2] == ["config[tiny, q4f32_1] has to run", "  context-window-size 64 -> 128"]
    assert re.fullmatch("  action [0-9a-f]{64}", lines[2]) and len(lines) == 3


def test_a_key_that_nobody_remembers_is_told_as_evicted(project: ProjectDir) -> None:
    project.build(*ASKED)
    edit(project, "context-window-size = 64", "context-window-size = 128")
    for name in ("traces", "actions"):
        shutil.rmtree(project.store / name)
    done = project.run("why", "fetch*")
    assert done.code == 1 and "its output is no longer in the cache" in done.out
