"""Every message of plan, why, build and report at 80 and 120 columns, with and without a terminal, to the character.

The texts are in golden/.  The live view runs on a real pseudo-terminal; what is compared is the screen.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.task import InputRef, Task
from llmbuild.plan.planner import Plan, Verdict
from llmbuild.plan.reasons import (
    MISSING,
    Blocked,
    Cascade,
    Evicted,
    Forced,
    InputChanged,
    NeverBuilt,
    OutputCorrupt,
    OutputMissing,
    ParameterChanged,
    Reason,
    ToolChanged,
)
from llmbuild.report.build_report import build_report
from llmbuild.report.build_text import build_text
from llmbuild.report.events import Explained, Installed
from llmbuild.report.plan_text import plan_text, why_text
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from tests.helpers import build_events, golden
from tests.helpers.build_events import BEGAN, BUILD, CONFIG, FAILED, FETCH, KEY, KILLED, LOWER, NULL, QUANTIZE
from tests.helpers.screen import Screen

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
STYLES = {
    f"{width}{'-terminal' if color else ''}": Style(width, color) for width in (80, 120) for color in (False, True)
}
A, B = "a" * 64, "b" * 64

REASONS: dict[str, tuple[Reason, ...]] = {
    "never built": (NeverBuilt(),),
    "a scheme's parameter": (ParameterChanged("scheme/group_size", 32, 64),),
    "metadata": (ParameterChanged("metadata/context-window-size", 2048, 4096),),
    "an override that is new": (ParameterChanged("overrides/prefill_chunk_size", MISSING, 512),),
    "a value that is no longer set": (ParameterChanged("generation/temperature", 0.7, MISSING),),
    "a target": (ParameterChanged("target/host/mcpu", "x86-64-v2", "x86-64-v3"),),
    "a conversation template": (ParameterChanged("conversation/system_template", "a", "a longer\ntext " * 9),),
    "none and a value": (ParameterChanged("system-lib-prefix", None, "phone_"),),
    "a kind's version": (ParameterChanged("task version", 1, 2),),
    "a source file": (InputChanged("source", "model.safetensors", A, B),),
    "an input file": (InputChanged(FETCH, "tokenizer.json", A, B),),
    "a new and a removed file": (InputChanged(FETCH, "a.bin", None, B), InputChanged(FETCH, "b.bin", A, None)),
    "an input that nobody remembers": (InputChanged(FETCH, "", A, B),),
    "a field of an input": (InputChanged(CONFIG, "", 32000, 32064, field="vocab_size"),),
    "a field twice": (
        InputChanged(CONFIG, "", 2048, 4096, field="context_window_size"),
        InputChanged(CONFIG, "", 2048, 4096, field="model_config/context_window_size"),
    ),
    "a tool's version": (ToolChanged("apache-tvm", f"0.26.0+sha256.{A}", f"0.27.0.post1+sha256.{B}"),),
    "a tool's bytes": (ToolChanged("apache-tvm", f"0.27.0.post1+sha256.{A}", f"0.27.0.post1+sha256.{B}"),),
    "a new tool": (ToolChanged("numpy", None, "2.4.0"),),
    "a tool that is gone": (ToolChanged("numpy", "2.4.0", None),),
    "a source file of llmbuild": (ToolChanged("llmbuild sources", A, B, "compiler/pipeline.py"),),
    "source files of llmbuild": tuple(
        ToolChanged("llmbuild sources", *change, file)
        for change, file in [
            ((A, B), "compiler/pipeline.py"),
            ((None, B), "compiler/kernels/attention.py"),
            ((A, None), "compiler/old.py"),
            ((A, B), "compiler/schedules.py"),
            ((A, B), "compiler/target.py"),
            ((A, B), "errors.py"),
        ]
    ),
    "source files that nobody remembers": (ToolChanged("llmbuild sources", A, B),),
    "a missing output": (OutputMissing("dist/libs/smollm2-q4f32_1-native.so"),),
    "an edited output": (OutputCorrupt("dist/smollm2-q4f32_1-MLC/mlc-chat-config.json"),),
    "a damaged blob": (OutputCorrupt("params_shard_0.bin", cached=True),),
    "evicted": (Evicted(),),
    "forced": (Forced(),),
    "blocked": (Blocked("no linker for aarch64 Linux", "install lld"),),
    "many": (
        ParameterChanged("metadata/context-window-size", 2048, 4096),
        ParameterChanged("opt/cudagraph", False, True),
        ParameterChanged("opt/flashinfer", False, True),
        ParameterChanged("opt/cutlass", False, True),
        ToolChanged("linker", "GNU ld 2.40", "GNU ld 2.41"),
    ),
}


def plan_for(reasons: tuple[Reason, ...]) -> Plan:
    """config runs for these reasons (or its files are put back), and lower may follow."""
    restore = all(
        isinstance(one, OutputMissing) or one == OutputCorrupt("dist/smollm2-q4f32_1-MLC/mlc-chat-config.json")
        for one in reasons
    )
    config = Task("config", CONFIG, 1, {}, {}, {})
    lower = Task("lower", LOWER, 1, {}, {"config": InputRef(CONFIG)}, {})
    follow = Verdict(lower, "cached") if restore else Verdict(lower, "maybe", (Cascade(CONFIG),))
    return Plan("assistants", (Verdict(config, "restore" if restore else "run", reasons), follow))


@pytest.mark.parametrize("style", STYLES)
def test_every_reason_in_a_plan(style: str) -> None:
    text = "".join(f"# {name}\n{plan_text(plan_for(these), STYLES[style])}\n\n" for name, these in REASONS.items())
    golden.check(GOLDEN / f"plan-{style}.txt", text)


@pytest.mark.parametrize("style", STYLES)
def test_every_reason_in_why(style: str) -> None:
    text = ""
    for name, these in REASONS.items():
        plan = plan_for(these)
        shown = "\n".join(why_text(plan, verdict, STYLES[style]) for verdict in plan.verdicts)
        text += f"# {name}\n{shown}\n\n"
    golden.check(GOLDEN / f"why-{style}.txt", text)


def many() -> Plan:
    """A first build for many platforms, two of which are blocked for the same reason, and what is cached."""
    tasks = [Task("lower", f"lower[smollm2, q4f32_1, platform-{number}]", 1, {}, {}, {}) for number in range(33)]
    blocked = [Task("link", f"link[smollm2, q4f32_1, platform-{number}]", 1, {}, {}, {}) for number in range(6)]
    lacking = (Blocked("no linker for aarch64 Linux", "install lld"),)
    return Plan(
        "assistants",
        (
            *(Verdict(Task("fetch", f"fetch[m{number}]", 1, {}, {}, {}), "cached") for number in range(7)),
            *(Verdict(task, "run", (NeverBuilt(),)) for task in tasks),
            *(Verdict(task, "blocked", lacking) for task in blocked),
        ),
    )


@pytest.mark.parametrize("style", STYLES)
def test_many_tasks_in_a_plan(style: str) -> None:
    text = f"{plan_text(many(), STYLES[style])}\n\n{plan_text(many(), STYLES[style], fold=False)}\n"
    golden.check(GOLDEN / f"plan-many-{style}.txt", text)


def test_every_kind_of_reason_is_among_them() -> None:
    import typing

    shown = {type(reason) for these in REASONS.values() for reason in these}
    assert shown | {Cascade} == set(typing.get_args(Reason))


def summary(**changes: object) -> events.Event:
    values = {"ran": 1, "cached": 2, "failed": 0, "skipped": 0, "wall_s": 75.0} | changes
    return events.Summary(time=BEGAN, **values)  # type: ignore[arg-type]


def failed(failure: TaskFailure, action: str | None = KEY) -> events.Event:
    return events.Failed(time=BEGAN, label=QUANTIZE, action=action, failure=failure)


def cached(source: str) -> events.Event:
    return events.CachedTask(time=BEGAN, label=QUANTIZE, action=KEY, output=KEY, source=source)


def waiting(pid: int | None) -> events.Event:
    return events.WaitingForLock(time=BEGAN, label=QUANTIZE, action=KEY, owner_pid=pid, owner_label=QUANTIZE)


PLATFORMS = tuple(f"lower[smollm2, q4f32_1, platform-{number}]" for number in range(5))


def begun(label: str) -> tuple[events.Event, ...]:
    return (
        events.Queued(time=BEGAN, label=label, action=KEY),
        Explained(time=BEGAN, label=label, reasons=(NeverBuilt(),)),
        events.Started(time=BEGAN, label=label, action=KEY),
    )


def finished(label: str) -> events.Event:
    return events.Finished(
        time=BEGAN, label=label, action=KEY, output=KEY, output_size=1, wall_s=1, cpu_s=1, peak_rss=1
    )


BUILDS: dict[str, Sequence[events.Event]] = {
    "a build": BUILD,
    "a failure": FAILED,
    "nothing to do": NULL,
    "a first build of many": (
        events.PlanMade(time=BEGAN, tasks=(CONFIG, *PLATFORMS), jobs=2),
        cached("store"),
        *(event for label in PLATFORMS for event in begun(label)[:2]),
        *(begun(label)[2] for label in PLATFORMS),
        finished(PLATFORMS[0]),
        summary(ran=5),
    ),
    "files put back": (Installed(time=BEGAN, restored=("dist/a", "dist/b"), outputs=("dist",)), summary(ran=0)),
    "files written and put back": (
        Installed(time=BEGAN, written=("dist/a", "dist/b"), restored=("dist/c",), outputs=("dist",)),
        summary(ran=0),
    ),
    "one file put back": (Installed(time=BEGAN, restored=("dist/a",)), summary(ran=0, cached=1)),
    "an obsolete file that was edited": (Installed(time=BEGAN, kept=("dist/old-MLC/mlc-chat-config.json",)), summary()),
    "another process": (waiting(4242), cached("process"), summary(ran=0)),
    "another process that nobody knows": (waiting(None), cached("process"), summary(ran=0)),
    "no memory": (
        events.WaitingForMemory(
            time=BEGAN, label=QUANTIZE, action=KEY, needs=14_000_000_000, taken=9_000_000_000, budget=16_000_000_000
        ),
        summary(),
    ),
    "an equal task": (cached("build"), summary()),
    "a damaged blob": (events.CorruptBlob(time=BEGAN, digest=KEY, path="/cache/blobs/3f/3f3f"), summary()),
    "an interrupt": (summary(interrupted=True, skipped=3),),
    "a failure that tells all": (
        failed(
            TaskFailure(
                "the process was ended by signal 9 (SIGKILL)",
                where="model.safetensors",
                why="the kernel may have ended it because the memory was used up",
                fix="give the build less to do at a time: --jobs 1, or --memory with a smaller size",
                signal=9,
                log="/cache/logs/3f.log",
                log_tail="\n".join(f"line {number} of the log" for number in range(20)),
            )
        ),
        summary(ran=0, failed=1, skipped=4),
    ),
    "a failure without an action": (failed(TaskFailure("cannot be read"), None), summary(failed=1)),
    "a long label and reason": (
        Explained(
            time=BEGAN,
            label="lower[a-model-with-a-long-name-1.5b-instruct, q4f16_1, aarch64-linux-android-opencl]",
            reasons=(
                ParameterChanged("metadata/context-window-size", 2048, 4096),
                InputChanged(CONFIG, "", 1, 2, field="vocab_size"),
            ),
        ),
        events.Started(
            time=BEGAN,
            label="lower[a-model-with-a-long-name-1.5b-instruct, q4f16_1, aarch64-linux-android-opencl]",
            action=KEY,
        ),
        summary(),
    ),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(build: Sequence[events.Event], style: Style, *, quiet: bool = False) -> str:
    stream = Terminal() if style.color else io.StringIO()
    view = View(stream, style, quiet=quiet)
    for event in build:
        if isinstance(event, events.Summary):
            view.summary(event)
        else:
            view(event)
    return stream.getvalue()


@pytest.mark.parametrize("style", STYLES)
def test_every_message_of_a_build(style: str) -> None:
    text = "".join(f"# {name}\n{show(build, STYLES[style])}\n" for name, build in BUILDS.items())
    golden.check(GOLDEN / f"build-{style}.txt", text)


def test_every_message_of_a_quiet_build() -> None:
    text = "".join(f"# {name}\n{show(build, Style(80), quiet=True)}\n" for name, build in BUILDS.items())
    golden.check(GOLDEN / "build-80-quiet.txt", text)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_a_terminal_passes_its_width(width: int) -> None:
    for build in BUILDS.values():
        for line in re.sub(r"\x1b\[\d+m", "", show(build, Style(width, color=True))).splitlines():
            assert len(line) <= width


@pytest.mark.parametrize("style", STYLES)
def test_every_report(style: str) -> None:
    interrupted = (*KILLED, summary(interrupted=True, skipped=4))
    builds = {"build": BUILD, "failed": FAILED, "cut off": KILLED, "interrupted": interrupted, "nothing to do": NULL}
    text = ""
    for name, build in builds.items():
        text += f"# {name}\n{build_text(build_report(build_events.lines(build)), STYLES[style])}\n\n"
    golden.check(GOLDEN / f"report-{style}.txt", text)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("build", ["BUILD", "FAILED"])
def test_the_live_view_on_a_terminal(tmp_path: Path, build: str, columns: int) -> None:
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "30"}
    env.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.replay", build, str(tmp_path)],
        cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    raw, ready_at, middle, deadline = b"", 0.0, "", time.monotonic() + 120
    with contextlib.suppress(OSError):  # The end of the child is an input/output error on this side.
        while True:
            if select.select([ours], [], [], 0.05)[0]:
                raw += os.read(ours, 65536)
                continue
            assert time.monotonic() < deadline
            # Nothing is on its way between two refreshes: the screen is whole.
            if not ready_at and (tmp_path / "ready").exists():
                ready_at = time.monotonic()
            if ready_at and not middle and time.monotonic() - ready_at > 0.3:
                middle = screen(raw, columns)
                (tmp_path / "go").touch()
    os.close(ours)
    assert child.wait(timeout=30) == 0
    golden.check(GOLDEN / f"live-{build.lower()}-{columns}.txt", f"{middle}---\n{screen(raw, columns)}")
    assert b"\x1b[33mrun" in raw


def screen(raw: bytes, columns: int) -> str:
    """What is on the screen."""
    shown = Screen(columns)
    shown.feed(raw.decode())
    return shown.text
