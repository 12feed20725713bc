"""What a project's own targets name runs only when the user has said so."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from llmbuild import linkers
from llmbuild.canonical import Json, digest_json
from llmbuild.cli.main import main
from llmbuild.engine.action import Action
from llmbuild.engine.store import ActionRecord, Store
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.trust import Trust, remember, require_asked, trust_file, words_of
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project

TARGET = '[target]\nextends = "x86_64-linux-cpu"\n[link]\n'
LABEL = "[tiny, q4f32_1, mine]"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LLMBUILD_TRUST", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    """A project whose own compiler leaves a mark where it runs."""
    made = make_project(
        tmp_path / "project", TINY_MANIFEST.replace('["x86_64-linux-cpu"]', '["mine"]'), cached_checkpoint("llama")
    )
    compiler = tmp_path / "mycc"
    compiler.write_text(f'#!/bin/sh\necho ran >> {tmp_path}/marks\nexec cc "$@"\n')
    compiler.chmod(0o755)
    (made.root / "targets").mkdir()
    (made.root / "targets/mine.toml").write_text(f'{TARGET}compiler = "{compiler}"\n')
    return made


def test_nothing_of_a_project_runs_before_it_is_trusted(project: ProjectDir, home: Path) -> None:
    marks, compiler = home / "marks", home / "mycc"
    plan = project.run("plan", "--json")
    assert plan.code == 0
    [link] = [one for one in json.loads(plan.out)["tasks"] if one["state"] == "blocked"]
    assert (link["task"], link["reasons"][0]["what"]) == (f"link{LABEL}", f"not trusted: {compiler}")
    shown = project.run("plan")
    assert f"not trusted: {compiler} (read it, and run `llmbuild trust`" in shown.out
    why = project.run("why", "link")
    assert (why.code, "is blocked" in why.out, "not trusted" in why.out) == (1, True, True)
    targets = project.run("targets", "mine")
    assert (targets.code, f"missing   not trusted: {compiler}" in targets.out) == (0, True)
    lock = project.run("lock")
    assert (lock.code, f"the linker of mine is not recorded, not trusted: {compiler}" in lock.err) == (0, True)
    assert project.run("plan", "--locked", "--strict").code == ExitCode.USAGE
    build = project.run("build")
    assert build.code == ExitCode.USAGE
    assert f"error: platform mine: not trusted: {compiler}\n" in build.err
    assert "run `llmbuild trust`" in build.err
    kept = project.run("build", "-k")
    assert kept.code == ExitCode.USAGE and "1 failed, 5 built" in kept.text
    assert project.run("cache", "export", str(home / "all.tar")).code == 0
    assert not marks.exists()

    assert project.run("trust", "--dry-run").out == f"{compiler}\n  links for mine\n"
    assert project.run("plan").out == project.run("plan").out and not marks.exists()
    assert project.run("trust").out.startswith(f"{compiler}\n  links for mine\ntrusted in {project.root}, ")
    assert project.build() == {"link": 1}
    assert marks.exists()

    # Exactly these words are trusted, and this directory.
    marks.unlink()
    target = project.root / "targets/mine.toml"
    target.write_text(target.read_text().replace(f'"{compiler}"', f'["{compiler}", "-O2"]'))
    assert "not trusted" in project.run("plan").out
    assert project.run("trust", "--forget").code == 0
    target.write_text(target.read_text().replace(f'["{compiler}", "-O2"]', f'"{compiler}"'))
    assert "not trusted" in project.run("plan").out
    assert not marks.exists()
    # In CI.
    assert project.run("plan", "--trust", "--check").code == 0
    assert project.run("plan", "--check").code == 1


def test_flags_count_when_something_is_linked(project: ProjectDir, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "targets/mine.toml").write_text(f'{TARGET}flags = ["-Wl,--gc-sections"]\n')
    plan = json.loads(project.run("plan", "--json").out)
    assert plan["counts"] == {"run": 6, "maybe": 0, "restore": 0, "blocked": 0, "cached": 0}
    assert project.run("plan", "--strict").code == 0
    build = project.run("build")
    assert build.code == ExitCode.USAGE and "not trusted: the flags -Wl,--gc-sections" in build.err
    monkeypatch.setenv("LLMBUILD_TRUST", "1")
    assert project.run("build").code == 0
    monkeypatch.delenv("LLMBUILD_TRUST")
    # Nothing is linked any more, so that there is nothing to trust.
    assert project.run("build").code == 0
    assert project.run("plan", "--check").code == 0


def test_no_compiler_is_asked_with_flags_that_are_not_trusted(
    project: ProjectDir, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question behind them can be the value of the last one, so that the compiler does what the others say."""
    asked = home / "asked"
    compiler = home / "cc"
    compiler.write_text(f'#!/bin/sh\necho "$*" >> {asked}\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    (project.root / "targets/mine.toml").write_text(f'{TARGET}flags = ["-s", "-o"]\n')
    for command in (("plan",), ("lock",), ("why", "link"), ("build", "-n"), ("targets",)):
        assert project.run(*command).code in (0, 1)
    shown = project.run("targets", "mine").out
    assert "missing   not trusted: the flags -s -o\n" in shown and ".so       not here" in shown
    assert "-print-search-dirs" in asked.read_text() and "-s -o" not in asked.read_text()
    assert project.run("plan", "--trust").code == 0
    assert "-s -o" in asked.read_text()


def test_no_program_of_a_project_is_called_by_a_triple(project: ProjectDir, home: Path) -> None:
    shutil.copy(home / "mycc", project.root / "x-linux-gnu-gcc")
    target = '[target]\nextends = "x86_64-linux-cpu"\n[host]\ntriple = "./x-linux-gnu"\n[link]\nlinker = "cc"\n'
    (project.root / "targets/mine.toml").write_text(target)
    for command in ("plan", "targets", "lock", "build"):
        refused = project.run(command)
        assert refused.code == ExitCode.USAGE
        assert "targets/mine.toml:4: host.triple: './x-linux-gnu' is no triple" in refused.err
    with pytest.raises(UsageError, match="is no triple"):
        linkers.identity({"triple": "./x-linux-gnu", "linker": "cc"}, "so")
    assert not (home / "marks").exists()


def test_a_project_without_such_words_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_project(tmp_path / "plain", checkpoint=cached_checkpoint("llama"))
    assert "there is nothing to trust" in made.run("trust").out
    assert not trust_file().exists()
    trust_file().parent.mkdir(parents=True)
    trust_file().write_text("{")
    monkeypatch.setattr("llmbuild.workspace.trust._read", lambda path: pytest.fail("the record was read"))
    assert made.run("plan").code == 0


def test_exec_runs_what_a_project_here_asked_for(project: ProjectDir, home: Path) -> None:
    assert project.run("trust").code == 0
    assert project.run("build").code == 0
    action = json.loads(project.run("plan", "--json").out)["tasks"][-1]["action"]
    assert project.run("exec", action).code == 0
    assert project.run("cache", "export", str(home / "all.tar")).code == 0
    assert project.run("trust", "--forget").code == 0
    refused = project.run("exec", action)
    assert refused.code == ExitCode.USAGE and "not trusted" in refused.err
    assert project.run("exec", action, "--trust").code == 0

    other = Store(home / "other")
    cache = ("--cache-dir", str(other.root))
    assert project.run("cache", "import", str(home / "all.tar"), *cache).code == 0
    assert project.run("trust").code == 0
    refused = project.run("exec", action, *cache)
    assert refused.code == ExitCode.USAGE
    assert f"no project on this machine asked for this action: link{LABEL}" in refused.err
    assert other.get_action(action).project == ""
    # Who builds it asks for it.
    assert project.run("build", "--force", "link", *cache).code == 0
    assert other.get_action(action).project == str(project.root)
    assert project.run("exec", action, *cache).code == 0


def test_a_wrong_record_or_variable_is_said(
    project: ProjectDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    trust_file().parent.mkdir(parents=True)
    trust_file().write_text('{"format": 2}')
    assert main(["plan"]) == 0
    assert "the record of what is trusted cannot be read (remove it, " in capsys.readouterr().out
    for command in ("build", "trust"):
        assert main([command]) == ExitCode.USAGE
        assert str(trust_file()) in capsys.readouterr().err
    assert trust_file().read_text() == '{"format": 2}'
    monkeypatch.setenv("LLMBUILD_TRUST", "yes")
    assert main(["build"]) == ExitCode.USAGE
    assert "LLMBUILD_TRUST is 'yes'" in capsys.readouterr().err


def test_a_record_that_is_no_file_is_not_waited_for(project: ProjectDir) -> None:
    trust_file().parent.mkdir(parents=True)
    os.mkfifo(trust_file())
    for command, code in (("plan", 0), ("trust", ExitCode.USAGE)):
        done = project.run(command, timeout=60)
        assert done.code == code and "the record of what is trusted cannot be read" in done.text
    lock = project.run("lock")
    assert lock.code == 0 and "the linker of mine is not recorded, the record of what is trusted cannot" in lock.err


def test_exec_refuses_what_nobody_here_asked_for(project: ProjectDir, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(project.store)
    for asked, why in (("", "its record came from elsewhere"), ("/no/such/project", "/no/such/project is gone")):
        action = store.put_action(ActionRecord(Action("link", 1, {}, {}, {}, {}), f"link{LABEL}", asked))
        assert main(["exec", action, "--cache-dir", str(project.store)]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert f"no project on this machine asked for this action: link{LABEL}" in said and why in said


@pytest.mark.parametrize("link", [{}, None, {"compiler": "/evil"}])
def test_words_of_a_record_count_wherever_they_stand(tmp_path: Path, link: Json) -> None:
    action = Action("runtime", 1, {"compiler": ["/evil"], "link": link}, {}, {}, {})
    with pytest.raises(UsageError, match="not trusted: /evil"):
        require_asked(ActionRecord(action, "runtime[emcc]", str(tmp_path)), everything=False)


def test_a_directory_and_the_digests_of_words_are_remembered(tmp_path: Path) -> None:
    words = words_of({"compiler": "gcc-13", "flags": ["-s"], "triple": "x86_64-linux-gnu"})
    assert words == {"compiler": ["gcc-13"], "flags": ["-s"]}
    remember(tmp_path, [words])
    (tmp_path / "other").mkdir()
    remember(tmp_path / "other", [words_of({"flags": ["-x"]})])
    value = json.loads(trust_file().read_text())
    assert value["projects"][str(tmp_path)] == [digest_json(words)]
    assert trust_file().stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path)
    assert Trust(tmp_path / "link").holds(words) and not Trust(tmp_path / "other").holds(words)
    assert not Trust(tmp_path).holds(words_of({"compiler": "gcc-13"}))
    with pytest.raises(UsageError, match="not trusted: gcc-13\n"):
        Trust(tmp_path).require_compiler({"compiler": "gcc-13"})
