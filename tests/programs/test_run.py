"""Running programs: what they see, what they say, and how a failure reads; the programs are scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.errors import ExitCode, ToolchainError
from llmbuild.programs.run import MOST_WORDS, Tool, ask_tool, compiler_of, run_tool


def script(path: Path, *lines: str) -> Tool:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return Tool((str(path),), "cc")


def test_it_works_in_the_directory_and_says_its_errors_first(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    tool = script(tmp_path / "cc", "echo out", "echo err >&2", 'echo "$*" > made')
    assert run_tool(tool, ["-o", "a b"], tmp_path / "work", makes="made") == "err\nout"
    assert (tmp_path / "work/made").read_text() == "-o a b\n"


def test_it_sees_the_variables_of_the_table_and_those_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = script(tmp_path / "cc", "echo $LC_ALL $TMPDIR $ADD_FLAGS $EMSDK $MORE")
    for name, value in {"LC_ALL": "de_DE.UTF-8", "ADD_FLAGS": "-g", "EMSDK": "seen", "MORE": "none"}.items():
        monkeypatch.setenv(name, value)
    assert run_tool(tool, [], tmp_path, {"MORE": "more"}, makes="cc") == f"C {tmp_path} seen more"
    asking = Tool(tool.command, "cc", variables=("ADD_FLAGS",))
    assert run_tool(asking, [], tmp_path, {"MORE": "more"}, makes="cc") == f"C {tmp_path} -g seen more"
    assert ask_tool(asking, "--version").endswith("-g seen")


def test_a_program_is_called_by_the_name_of_its_command(tmp_path: Path) -> None:
    real = script(tmp_path / "real", "echo real")
    tool = Tool(("other", "-m64"), "cc", executable=str(tmp_path / "real"))
    assert ask_tool(tool, "--version") == run_tool(tool, [], tmp_path, makes="real") == "real"
    assert [tool.name, real.name, Tool(("cc",), "cc", called="my cc").name] == ["other -m64", "real", "my cc"]


def test_a_failure_has_the_last_words_and_no_path_of_this_machine(tmp_path: Path) -> None:
    tool = script(tmp_path / "cc", f"printf '%0{2 * MOST_WORDS}d' 0", "echo last", "exit 3")
    with pytest.raises(ToolchainError) as caught:
        run_tool(tool, ["-o", "out"], tmp_path, makes="out", fix="do this")
    error = caught.value
    assert (error.exit_code, error.what) == (ExitCode.TOOLCHAIN, "cc failed with exit code 3")
    assert (error.where, error.fix) == ("cc -o out", "do this")
    assert error.why is not None and len(error.why) == MOST_WORDS and error.why.endswith("0last")
    with pytest.raises(ToolchainError, match="fix: check that silent works") as caught:
        run_tool(script(tmp_path / "silent", "exit 1"), [], tmp_path, makes="out")
    assert caught.value.why is None


def test_an_answer_is_asked_for_once(tmp_path: Path) -> None:
    tool = script(tmp_path / "cc", f"echo called >> {tmp_path}/calls", "echo cc 1.2", "echo more")
    assert [ask_tool(tool, "--version") for _ in range(2)] == ["cc 1.2\nmore"] * 2
    assert (tmp_path / "calls").read_text() == "called\n"


def test_a_program_that_does_not_run_is_said_with_its_words(tmp_path: Path) -> None:
    tool = script(tmp_path / "cc", "echo no LLVM here >&2", "exit 3")
    with pytest.raises(ToolchainError, match="'cc' does not run") as caught:
        ask_tool(tool, "--version")
    assert (caught.value.where, caught.value.why) == (f"{tmp_path}/cc --version", "no LLVM here")
    with pytest.raises(ToolchainError, match="returned non-zero exit status 3"):
        ask_tool(script(tmp_path / "silent", "exit 3"), "--version")
    with pytest.raises(ToolchainError, match=r"'missing' does not run\n.*No such file"):
        ask_tool(Tool((str(tmp_path / "missing"),), "cc"), "--version")


@pytest.mark.parametrize("made", ["true", "echo all is well", "mkdir out", "ln -s elsewhere out"])
def test_a_program_that_wrote_nothing_is_said(tmp_path: Path, made: str) -> None:
    tool = script(tmp_path / "cc", made)
    (tmp_path / "elsewhere").write_text("another file")
    with pytest.raises(ToolchainError, match="cc wrote no out") as caught:
        run_tool(tool, ["-o", "out"], tmp_path, makes="out")
    assert (caught.value.exit_code, caught.value.where) == (ExitCode.TOOLCHAIN, "cc -o out")
    assert ("all is well" in str(caught.value)) == made.startswith("echo")


def test_a_program_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"'missing' does not run\n.*No such file"):
        run_tool(Tool((str(tmp_path / "missing"),), "cc"), ["-o", "out"], tmp_path, makes="out")
    script(tmp_path / "empty", "")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ToolchainError, match="'empty' does not run"):
        run_tool(Tool((str(tmp_path / "empty"),), "cc"), [], tmp_path, makes="out")


def test_the_words_of_a_compiler() -> None:
    assert compiler_of({}) is None and compiler_of({"compiler": None}) is None
    assert compiler_of({"compiler": "a b"}) == ("a b",)  # One name: nothing is split.
    assert compiler_of({"compiler": ["ccache", "gcc"]}) == ("ccache", "gcc")
    for wrong in (5, [], {"a": 1}):
        with pytest.raises(TypeError, match="a name or a list of words"):
            compiler_of({"compiler": wrong})  # type: ignore[dict-item]
