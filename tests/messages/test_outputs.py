"""What commands print when all is well, at 80 and 120 columns, with and without a terminal: golden/outputs.txt.

plan, why, build and report are in tests/report/golden.  Tools, times and sizes are fixed ones here.
"""

from __future__ import annotations

import io
import os
import pty
import select
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuild.cli import cache, chat, exec_
from llmbuild.cli.common import print_note
from llmbuild.cli.main import main
from llmbuild.engine.store import Store
from llmbuild.errors import ToolchainError
from llmbuild.report import cache_text
from llmbuild.report.style import style_for
from llmbuild.workspace import locking, targets
from llmbuild.workspace.platform_tools import Machine
from llmbuild.workspace.tool_identities import Toolchain
from tests.cli.test_cache import NOW, collected, sample
from tests.helpers import engine_kinds, golden
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST
from tests.helpers.engine_build import build, write_task
from tests.helpers.screen import Screen

GOLDEN = Path(__file__).parent / "golden" / "outputs.txt"
TOOLS = {"python": "3.12.4", "llmbuild": "0.1.0", "apache-tvm": f"0.27.0.post1+sha256.{'a' * 64}"}
STYLES = [(width, terminal) for terminal in (False, True) for width in (80, 120)]
Step = Callable[[Path, pytest.MonkeyPatch], object]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def commands(*lines: str) -> Step:
    """Commands one after another; `! COMMAND` may fail."""

    def step(path: Path, patch: pytest.MonkeyPatch) -> None:
        for line in lines:
            print(f"$ llmbuild {line}")
            code = main(line.split())
            if code:
                print(f"exit code {code}")

    return step


def lock(path: Path, patch: pytest.MonkeyPatch) -> None:
    commands("lock --check", "lock", "lock")(path, patch)
    (path / "checkpoint/config.json").write_text("{}")
    (path / "checkpoint/merges.txt").write_text("")
    (path / "checkpoint/tokenizer_config.json").unlink()
    patch.setattr(
        locking, "toolchain_of", lambda project, observed: TOOLS | {"apache-tvm": "0.28.0", "linker native": "ld 2.40"}
    )
    commands("lock --check", "lock")(path, patch)


def init(path: Path, patch: pytest.MonkeyPatch) -> None:
    commands("init checkpoint --output mine.toml", "init checkpoint --force", "init mistral_7b --output it.toml")(
        path, patch
    )


def show_targets(path: Path, patch: pytest.MonkeyPatch) -> None:
    def linker(self: Machine, link: Any, artifact: str) -> str:
        if link["triple"].startswith("aarch64"):
            raise ToolchainError(
                "there is no linker for aarch64", why="neither zig nor ld.lld is here", fix="`pip install x`"
            )
        return "cc: gcc 13.2.0"

    def lacking(self: Machine, part: Any) -> list[ToolchainError]:
        return [ToolchainError("TVM has no code generator for vulkan")] if part["device"]["kind"] == "vulkan" else []

    patch.setattr(Machine, "linker", linker)
    patch.setattr(Machine, "missing_for_device", lacking)
    patch.setattr(
        targets, "target_names", lambda user: ["aarch64-linux-cpu", "x86_64-linux-cpu", "x86_64-linux-vulkan"]
    )
    commands("targets")(path, patch)


def verify(path: Path, patch: pytest.MonkeyPatch) -> None:
    from llmbuild.cli import verify as command
    from llmbuild.runtime import verify as runtime

    found = SimpleNamespace(
        label="tiny, q4f32_1, native", library=path / "dist/libs/tiny.so", weights=path / "dist/tiny"
    )
    result = runtime.Verified(23, 2, 98_300_000, 5, 3.2e-6)
    patch.setattr(command, "select_built", lambda args: [found])
    patch.setattr(runtime, "verify", lambda library, weights: result)
    commands("verify", "verify --json")(path, patch)


class Talker:
    """In place of a model."""

    statistics = SimpleNamespace(
        prefilled_tokens=12, prefill_rate=61.4, answer_tokens=3, decode_rate=20.0, finish="length"
    )

    def say(self, text: str, *_: object, **__: object) -> Iterator[str]:
        if text == "stop":
            yield "a"
            raise KeyboardInterrupt
        yield from ("an", " answer")


def talk(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stdin", io.StringIO("hello\n/stats\n/help\n/reset\nstop\n/exit\n"))
    chat._converse(Talker, None, SimpleNamespace(seed=None, max_tokens=3))  # type: ignore[arg-type]


def execute(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    store = Store(path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    action = result.outcomes["a"].action
    store.close()
    patch.setattr("llmbuild.report.units.seconds", lambda value: "0.1 s")
    exec_.run(SimpleNamespace(cache_dir=path / "store", digest=action, trust=True, out=None, dump=None))  # type: ignore[arg-type]


def caches(path: Path, patch: pytest.MonkeyPatch) -> None:
    style = style_for(sys.stdout)
    print(cache_text.stats_text("/home/user/.cache/llmbuild", sample(), NOW, style))
    print(cache_text.collected_text(collected(True, leftovers=1), style))
    print(cache_text.collected_text(collected(False, forced=1, over=500), style))


def notes(path: Path, patch: pytest.MonkeyPatch) -> None:
    for note in ("platforms.spare is in no build", f"a note with a path that is long: {'/long' * 30}", "word " * 30):
        print_note(note)


def bug(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("llmbuild.cli.common.write_crash_log", lambda error: ".llmbuild/logs/llmbuild-crash-1.log")
    patch.setattr("llmbuild.cli.schema.run", lambda args: {}["nothing"])
    commands("schema")(path, patch)


def interrupt(path: Path, patch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    patch.setattr("llmbuild.cli.schema.run", interrupted)
    commands("schema")(path, patch)


STEPS: dict[str, Step] = {
    "lock": lock,
    "init": init,
    "targets": show_targets,
    "verify": verify,
    "chat": talk,
    "exec": execute,
    "cache": caches,
    "notes": notes,
    "a bug": bug,
    "an interrupt": interrupt,
    "help": commands("--help", "help schema"),
}


def said(name: str, path: Path, width: int, terminal: bool) -> str:
    """The two streams as they come, in a project of its own."""
    stream = Terminal() if terminal else io.StringIO()
    project = path / f"{name}-{width}-{terminal}"
    project.mkdir()
    shutil.copytree(cached_checkpoint("llama"), project / "checkpoint")
    (project / "buildfile.toml").write_text(TINY_MANIFEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for variable, value in {
            "LLMBUILD_CACHE": str(project / "store"),
            "COLUMNS": str(width),
            "TERM": "xterm",
        }.items():
            patch.setenv(variable, value)
        patch.delenv("NO_COLOR", raising=False)
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        patch.setattr(locking, "toolchain_of", lambda project, observed: TOOLS)
        patch.setattr(Toolchain, "tools_of", lambda self, kind: ({}, {}))
        patch.setattr(Machine, "missing_for_device", lambda self, part: [])
        STEPS[name](project, patch)
    return stream.getvalue().replace(str(project), "/project").replace("\r", "␍")


def test_outputs_read_as_in_the_golden_file(tmp_path: Path) -> None:
    text = ""
    for name in STEPS:
        named: dict[str, list[str]] = {}
        for width, terminal in STYLES:
            label = f"{width}{' on a terminal' if terminal else ''}"
            named.setdefault(said(name, tmp_path, width, terminal), []).append(label)
        text += f"# {name}\n" + "".join(f"[{', '.join(labels)}]\n{shown}\n" for shown, labels in named.items())
    golden.check(GOLDEN, text)


def read_up_to(terminal: int, end: str) -> str:
    """What was written to a pseudo-terminal, which hands it on in parts."""
    said = ""
    while end not in said and select.select([terminal], [], [], 30)[0]:
        said += os.read(terminal, 65536).decode()
    return said


@pytest.mark.parametrize("columns", [80, 120])
def test_the_progress_line_of_the_cache(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real pseudo-terminal: one line that is written over, and nothing of it afterwards."""
    ours, theirs = pty.openpty()
    monkeypatch.setattr(cache, "_PROGRESS_AFTER_S", 0.0)
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with cache._progress("verify") as progress:
            progress(1, 3, "blobs")
            progress(2, 3, "blobs")
            middle = read_up_to(ours, "2 of 3 blobs")
        after = read_up_to(ours, "\x1b[K")
    os.close(ours)
    screen = Screen(columns)
    screen.feed(middle)
    assert screen.text == "verify 2 of 3 blobs\n"
    screen.feed(after)
    assert screen.text == "\n"


def test_there_is_no_progress_line_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PROGRESS_AFTER_S", 0.0)
    with cache._progress("verify") as progress:
        progress(1, 3, "blobs")
    assert capsys.readouterr() == ("", "")
