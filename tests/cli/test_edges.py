"""The edges of the process: streams, names, limits, environment.  What the system refuses is never called a bug."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbuild.cli import chat, edges
from llmbuild.cli import main as cli
from llmbuild.engine import fs
from llmbuild.engine.locks import FileLock
from llmbuild.errors import ExitCode, UsageError
from tests.helpers.checkpoints import CONFIGS
from tests.helpers.cli import TINY_MANIFEST

ROOT = Path(__file__).parent.parent.parent

RUN_AND_TELL = """
import time
wait = time.sleep
def tell(seconds):
    print(flush=True)
    wait(seconds)
time.sleep = tell
from llmbuild.cli.main import run
run()
"""
"""The command, which prints a line each time that it waits."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "checkpoint").mkdir(parents=True)
    (root / "buildfile.toml").write_text(TINY_MANIFEST)
    (root / "checkpoint/config.json").write_text(json.dumps(CONFIGS["llama"]))
    (root / "checkpoint/tokenizer.json").write_text("{}")
    (root / "checkpoint/model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return root


def shell(
    root: Path, line: str, env: Mapping[str, str | None] | None = None, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """A line for the shell in which `llmbuild` runs this llmbuild; a variable that is None is not set."""
    changed = {"LLMBUILD_CACHE": str(root.parent / "store"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **(env or {})}
    environment = {name: value for name, value in {**os.environ, **changed}.items() if value is not None}
    command = line.replace("llmbuild", f"{sys.executable} -m llmbuild")
    return subprocess.run(
        ["sh", "-c", command], cwd=root, env=environment, preexec_fn=limit,
        capture_output=True, text=True, errors="backslashreplace", check=False, timeout=60,
    )  # fmt: skip


def expect(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    for word in words:
        assert word in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize("columns", ["abc", "²", "-5", "0", "9" * 5000, ""])
def test_columns_that_are_no_number_are_as_if_not_set(columns: str, project: Path) -> None:
    done = shell(project, "llmbuild plan nothing", {"COLUMNS": columns})
    expect(done, 2, "no task")


def test_sigterm_ends_what_waits(project: Path) -> None:
    lock = FileLock(project / ".llmbuild/lock", fs.PROJECT)
    (project / ".llmbuild").mkdir()
    lock.acquire("test", poll=lambda _owner: None)
    command = [sys.executable, "-c", RUN_AND_TELL, "clean"]
    with subprocess.Popen(
        command, cwd=project, env={**os.environ, "LLMBUILD_CACHE": str(project.parent / "store")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "\n"
        process.terminate()
        out, err = process.communicate(timeout=60)
    lock.release()
    assert (process.returncode, out.strip(), err) == (130, "", "interrupted\n")


def test_a_chat_ends_at_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the answer only."""

    class Talker:
        def say(self, *_: object, **__: object) -> Iterator[str]:
            yield "an answer"
            os.kill(os.getpid(), signal.SIGTERM)
            yield " that goes on"

    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nhello again\n"))
    before = signal.getsignal(signal.SIGTERM)
    edges.end_at_sigterm()
    try:
        with pytest.raises(edges.Terminated):
            chat._converse(Talker, None, SimpleNamespace(seed=None, max_tokens=3))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        edges.end_at_sigterm()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_streams_that_are_closed_lead_nowhere(project: Path) -> None:
    for line in ("llmbuild plan --format json >&-", "llmbuild plan >&- 2>&-", "llmbuild plan <&- >&- 2>&-"):
        expect(shell(project, line), 0)
    expect(shell(project, "llmbuild plan nothing >&-"), 2, "no task")
    # A closed stream's number must not become that of a file of the store.
    assert not list((project.parent / "store").rglob("*.partial"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "line", ["llmbuild plan >/dev/full", "llmbuild --help >/dev/full", "llmbuild cache stats >/dev/full"]
)
def test_a_full_output_has_the_code_of_what_cannot_be_written(line: str, project: Path) -> None:
    expect(shell(project, line), 6, "standard output or standard error cannot be written", "No space left on device")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("line", "code"), [("plan nothing", 2), ("build fetch", 6), ("verify", 2), ("nothing", 2), ("plan >/dev/full", 6)]
)
def test_errors_that_cannot_be_said_keep_their_code(line: str, code: int, project: Path) -> None:
    assert shell(project, f"llmbuild {line} 2>/dev/full").returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_full_events_have_it_too(project: Path) -> None:
    expect(shell(project, "llmbuild build fetch --events /dev/full"), 6, "cannot write the events", "/dev/full")


def test_a_user_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LLMBUILD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for cache in (None, "~/cache"):
        if cache is not None:
            monkeypatch.setenv("LLMBUILD_CACHE", cache)
        assert cli.main(["cache", "stats"]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert "there is no home directory" in said and "LLMBUILD_CACHE" in said
    assert cli.main(["cache", "stats", "--cache-dir", str(tmp_path / "store")]) == ExitCode.OK
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    assert cli.main(["cache", "stats"]) == ExitCode.OK


@pytest.mark.parametrize("encoding", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_that_are_no_text_here(encoding: dict[str, str], project: Path) -> None:
    odd = os.fsencode(project.parent) + b"/caf\xe9"
    os.mkdir(odd)  # noqa: PTH102 - bytes.
    Path(os.fsdecode(odd), "buildfile.toml").write_text(TINY_MANIFEST)
    for line in ("cd ../caf?; llmbuild plan", "llmbuild plan -f ../caf?", "llmbuild plan --cache-dir ../caf?"):
        expect(shell(project, line, encoding), 2, "UTF-8")


def test_names_that_are_too_long(project: Path) -> None:
    long = "n" * 5000
    expect(shell(project, f"llmbuild plan -f {long}"), 2, "there is no manifest")
    expect(shell(project, f"llmbuild plan --cache-dir {long}"), 6, "File name too long")
    expect(shell(project, "llmbuild plan", {"LLMBUILD_CACHE": long}), 6, "File name too long")


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    expect(shell(tmp_path, "cd gone && rmdir ../gone && llmbuild plan"), 2, "the current directory is gone")


@pytest.mark.parametrize("files", [8, 10, 12, 16])
def test_few_open_files_are_no_bug(files: int, project: Path) -> None:
    done = shell(project, "llmbuild plan", limit=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    assert done.returncode in (0, 5, 6), done.stderr
    assert done.returncode == 0 or "open files" in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr


def test_numbers_of_thousands_of_digits(project: Path) -> None:
    digits = "9" * 5000
    expect(shell(project, f"llmbuild cache gc --max-size {digits}GB"), 2, "is not a size")
    expect(shell(project, f"llmbuild cache gc --max-age {digits}d"), 2, "is not an age")
    expect(shell(project, f"llmbuild build --jobs {digits[:20]}"), 2, "--jobs must be 1 to")
    expect(shell(project, "llmbuild build", {"LLMBUILD_MEMORY": f"{digits}G"}), 2, "is not a size")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "some/file"), 6, "some/file: the system refused"),
        (OSError(errno.EMFILE, "Too many open files"), 6, "ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied", b"a", None, b"b"), 6, "a -> b: "),
        (MemoryError(), 6, "not enough memory"),
        (RuntimeError("std::bad_alloc"), 6, "not enough memory"),
        (RuntimeError("can't start new thread"), 6, "ulimit -u"),
        (ImportError("no symbol", name="somewhere.native", path="/x.so"), 5, "somewhere.native cannot be loaded"),
    ],
)
def test_what_the_system_refuses(error: Exception, code: int, said: str) -> None:
    known = edges.expected(error)
    assert known is not None and known.exit_code == code
    assert said in str(known)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyError("x"), RuntimeError("x"), RecursionError(), ImportError(name="llmbuild.x"), OSError("x")],
)
def test_what_can_only_be_a_bug(error: Exception) -> None:
    assert edges.expected(error) is None


@pytest.mark.parametrize("further", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory", "report")])
def test_words_that_cannot_be_loaded_are_no_bug(
    further: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(error: Exception) -> int:
        raise further

    monkeypatch.setattr("llmbuild.cli.main._report", refuse)
    assert cli.main(["nothing"]) == ExitCode.STORE
    assert "no more memory or files: there is no command 'nothing'" in capsys.readouterr().err


def test_a_crash_log_follows_no_link_and_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> int:
        raise RuntimeError("surprise\x1b[2J")

    monkeypatch.setattr("llmbuild.cli.schema.run", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("LLMBUILD_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / f"llmbuild-crash-{os.getpid()}.log").symlink_to(victim)
    (tmp_path / ".llmbuild").symlink_to(tmp_path / "temporary")
    assert cli.main(["schema"]) == ExitCode.INTERNAL
    assert victim.read_text() == "mine"
    assert not (tmp_path / "temporary/logs").exists()
    said = capsys.readouterr().err
    assert str(tmp_path / "temporary") in said and "surprise\\x1b[2J" in said
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert cli.main(["schema"]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    assert "in broken" in said and "the traceback is above" in said


def test_json_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from llmbuild.cli.common import print_json

    print_json({"a\x9b": "\x1b[2J\u202e\x7f"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a\x9b": "\x1b[2J\u202e\x7f"} and out.isascii()


def test_arguments_are_text() -> None:
    edges.require_text(["plan", "-f", "é"])
    with pytest.raises(UsageError, match="not text"):
        edges.require_text(["plan", "\udce9"])


@pytest.mark.parametrize("thread", ["", "import threading; threading.Timer(0.2, print, ['late']).start(); "])
def test_a_process_that_leaves_writes_all_and_runs_what_was_registered(thread: str) -> None:
    code = (
        f"import atexit, sys; {thread}atexit.register(print, 'bye'); sys.stdout.write('text '); "
        "from llmbuild.cli.edges import leave; leave(3)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == ("text late\nbye\n" if thread else "text bye\n")
