"""The command line itself: help, unknown words, exit codes, and what is said of a bug."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.cli import main as cli
from llmbuild.engine import warning
from llmbuild.errors import UsageError


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_command_with_the_words_of_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    width = max(map(len, cli.COMMANDS))
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"  {name:<{width}}  {summary}\n" in out


@pytest.mark.parametrize("name", ["build", "plan", "why", "exec"])
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert f"example:\n  llmbuild {name} " in out
    assert cli.COMMANDS[name][1] == importlib.import_module(cli.COMMANDS[name][0]).HELP


CACHE = ["stats", "gc", "verify", "export", "import"]


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS), *(["cache", name] for name in CACHE)])
def test_help_has_80_columns(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_every_command_exists() -> None:
    assert all(importlib.util.find_spec(module) for module, _ in cli.COMMANDS.values())


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from llmbuild import __version__

    assert run(capsys, "--version") == (0, f"llmbuild {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("biuld",), "error: there is no command 'biuld'\n  fix: did you mean 'build'?\n"),
        (
            ("build", "--jobs", "x"),
            "error: argument -j/--jobs: invalid int value: 'x'\n  fix: `llmbuild build --help` lists the options\n",
        ),
        (("build", "--jobs", "0"), "error: --jobs must be 1 to 1024, not 0\n  fix: write --jobs 4, or leave it out\n"),
        (("exec", "xyz"), "error: 'xyz' is not an action's digest\n  why: that is 6 to 64 hexadecimal digits\n"),
        (
            ("plan", "-f", "none.toml"),
            "error: there is no manifest none.toml\n  fix: `llmbuild init` writes a starter manifest\n",
        ),
    ],
)  # fmt: skip
def test_wrong_command_lines(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *arguments) == (2, "", message)


@pytest.mark.parametrize("words", [("build",), ("plan", "--json"), ("cache", "export", "c.tar")])
def test_options_stand_before_between_and_after_names(words: tuple[str, ...]) -> None:
    name, *more = words
    parser = cli._parser(name, importlib.import_module(cli.COMMANDS[name][0]))
    for line in (["-m", "x", "a", "b"], ["a", "-m", "x", "b"], ["a", "b", "-m", "x"]):
        args = parser.parse_args([*more, *line])
        assert (args.tasks, args.model) == (["a", "b"], ["x"]), line
    assert parser.parse_args([*more, "a", "--", "-b"]).tasks == ["a", "-b"]


@pytest.mark.parametrize("command", [("init", "tinyllama_1b_chat_v1.0"), ("schema",)])
def test_an_output_makes_no_directory(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, *command, "--output", str(tmp_path / "none" / "file"))
    assert code == 2
    assert f"there is no directory {tmp_path}/none" in " ".join(err.split())
    assert not (tmp_path / "none").exists()


def test_a_bug_is_one_line_with_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> int:
        raise RuntimeError("surprise")

    monkeypatch.setattr("llmbuild.cli.schema.run", broken)
    monkeypatch.delenv("LLMBUILD_DEBUG", raising=False)
    (tmp_path / ".llmbuild").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "schema")
    assert code == 70
    assert err.startswith(
        "internal error: RuntimeError: surprise (a bug in llmbuild; the traceback is in .llmbuild/logs/"
    )
    assert err.count("\n") == 1
    (log,) = (tmp_path / ".llmbuild/logs").iterdir()
    assert "in broken" in log.read_text()


def test_a_workflow_reads_errors_and_bugs_as_commands_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buildfile.toml").write_text("[projekt]\n[models.a]\nsauce = 1\n")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    code, _, plain = run(capsys, "plan")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    again, _, annotated = run(capsys, "plan")
    assert code == again == 2 and annotated.startswith(plain)
    commands = annotated.removeprefix(plain).splitlines()
    assert len(commands) == int(plain.split()[-2])
    assert any(line.startswith("::error file=buildfile.toml,line=1::buildfile.toml:1: projekt: ") for line in commands)
    assert any(line.startswith("::error file=buildfile.toml,line=3::buildfile.toml:3: ") for line in commands)

    def broken(_: object) -> int:
        raise RuntimeError("surprise")

    monkeypatch.setattr("llmbuild.cli.schema.run", broken)
    monkeypatch.delenv("LLMBUILD_DEBUG", raising=False)
    code, _, err = run(capsys, "schema")
    assert code == 70 and "\n::error::internal error: RuntimeError: surprise" in err


def test_a_workflow_reads_warnings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(warning, "_said", set())
    warning.warn(UsageError("no index"), "estimates are missing")
    text = "no index: estimates are missing"
    assert capsys.readouterr().err == f"warning: {text}\n::warning::{text}\n"


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmbuild.cli.schema.run", interrupted)
    assert run(capsys, "schema") == (130, "", "interrupted\n")


def test_help_imports_nothing_heavy() -> None:
    heavy = ("argparse", "json", "pydantic", "networkx", "tvm", "rich", "numpy", "dataclasses")
    code = (
        "import sys; from llmbuild.cli.main import main; before = set(sys.modules); main(['--help']);"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"


ROOT = Path(__file__).parent.parent.parent
