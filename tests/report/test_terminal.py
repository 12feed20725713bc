"""What a build prints, to the character, from a recorded sequence of events."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from textwrap import dedent

import pytest

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.plan.reasons import NeverBuilt, ParameterChanged
from llmbuild.report.events import Explained, Installed
from llmbuild.report.live import LiveView
from llmbuild.report.style import Style, style_for
from llmbuild.report.terminal import View
from llmbuild.report.units import amount, seconds, size

CONFIG, LOWER = "config[smollm2, q4f32_1]", "lower[smollm2, q4f32_1, native]"
KEY = "3f" * 32


def finished(label: str, wall: float, size: int, rss: int = 0) -> events.Event:
    return events.Finished(
        time=0, label=label, action=KEY, output=KEY, output_size=size, wall_s=wall, cpu_s=wall, peak_rss=rss
    )


def summary(ran: int, cached: int, failed: int = 0, skipped: int = 0, *, stop: bool = False) -> events.Summary:
    return events.Summary(
        time=0, ran=ran, cached=cached, failed=failed, skipped=skipped, wall_s=12.34, interrupted=stop
    )


BUILD: Sequence[events.Event] = (
    events.PlanMade(time=0, tasks=(CONFIG, LOWER), jobs=2),
    Explained(time=0, label=CONFIG, reasons=(ParameterChanged("metadata/context-window-size", 2048, 4096),)),
    events.Started(time=0, label=CONFIG, action=KEY),
    events.TaskProgress(time=0, label=CONFIG, done=1, total=2, unit="files"),
    finished(CONFIG, 0.05, 3_500_000),
    Explained(time=0, label=LOWER, reasons=(NeverBuilt(),)),
    events.Started(time=0, label=LOWER, action=KEY),
    finished(LOWER, 31.4, 2_100_000, 730_000_000),
    Installed(
        time=0, written=("dist/a",) * 9, outputs=("dist/smollm2-q4f32_1-MLC", "dist/libs/smollm2-q4f32_1-native.so")
    ),
)


def show(view_type: type[View], stream: io.StringIO, sequence: Sequence[events.Event], end: events.Summary) -> str:
    view = view_type(stream, Style(80))
    for event in sequence:
        view(event)
    view.summary(end)
    return stream.getvalue()


def test_notes_are_said_once() -> None:
    def noted(label: str, *notes: str) -> events.Event:
        return dataclasses.replace(finished(label, 1, 1), notes=notes)

    taken = events.CachedTask(
        time=0, label="c", action=KEY, output=KEY, source="remote", remote="r", notes=("one", "three")
    )
    stored = events.CachedTask(time=0, label="d", action=KEY, output=KEY, source="store", notes=("four",))
    said = show(View, io.StringIO(), (noted("a", "one", "two"), noted("b", "two"), taken, stored), summary(2, 3))
    assert [line for line in said.splitlines() if line.startswith("note")] == [
        "note   a: one",
        "note   a: two",
        "note   c: three",
    ]


def test_a_build_in_plain_lines() -> None:
    assert show(View, io.StringIO(), BUILD, summary(2, 3)) == dedent(
        """\
        run    config[smollm2, q4f32_1]: context-window-size 2048 -> 4096
        done   [1/2] config[smollm2, q4f32_1] in 0.05 s, 3.5 MB
        run    lower[smollm2, q4f32_1, native]: never built
        done   [2/2] lower[smollm2, q4f32_1, native] in 31.4 s, 2.1 MB, peak 730.0 MB of memory
        built 2 tasks in 12.3 s (3 cached)
          dist/smollm2-q4f32_1-MLC
          dist/libs/smollm2-q4f32_1-native.so
        """
    )


def test_a_null_build_is_one_line() -> None:
    cached = [
        events.CachedTask(time=0, label=CONFIG, action=KEY, output=KEY, source="store"),
        Installed(time=0, outputs=("dist/x",)),
    ]
    assert show(View, io.StringIO(), cached, summary(0, 5)) == "up to date: 5 tasks cached (12.3 s)\n"


def test_a_restored_file_is_told() -> None:
    restored = [Installed(time=0, restored=("dist/x",), outputs=("dist/x",))]
    assert (
        show(View, io.StringIO(), restored, summary(0, 5)) == "up to date: 5 tasks cached, 1 file put back (12.3 s)\n"
    )


FAILURE = events.Failed(
    time=0,
    label=LOWER,
    action=KEY,
    failure=TaskFailure(
        "the model needs 24 GB and the target has 16",
        why="context_window_size is 131072",
        fix="set a smaller context-window-size",
        log="/store/logs/x.log",
        log_tail="building\nestimating memory\n",
    ),
)


def test_a_failure_at_80_columns() -> None:
    assert show(View, io.StringIO(), [FAILURE], summary(1, 2, failed=1, skipped=1)) == dedent(
        f"""\
        error: lower[smollm2, q4f32_1, native] failed: the model needs 24 GB and the
          target has 16
          why: context_window_size is 131072
          fix: set a smaller context-window-size
          the end of its log:
          | building
          | estimating memory
          log: /store/logs/x.log
          to run it alone: llmbuild exec {KEY[:16]}
        failed after 12.3 s: 1 failed, 1 built, 2 cached, 1 not run
        """
    )


def test_an_interrupted_build() -> None:
    assert show(View, io.StringIO(), [], summary(1, 2, skipped=2, stop=True)) == (
        "interrupted after 12.3 s: 1 built, 2 cached, 2 not run\n"
    )


def test_waiting_and_taking() -> None:
    sequence = [
        events.WaitingForLock(time=0, label=LOWER, action=KEY, owner_pid=42, owner_label=LOWER),
        events.CachedTask(time=0, label=LOWER, action=KEY, output=KEY, source="process"),
    ]
    assert show(View, io.StringIO(), sequence, summary(0, 5)) == dedent(
        """\
        wait   lower[smollm2, q4f32_1, native]: process 42 is building it
        taken  lower[smollm2, q4f32_1, native]: another process built it
        up to date: 5 tasks cached (12.3 s)
        """
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_build_ends_in_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = show(LiveView, Terminal(), BUILD, summary(2, 3))
    assert "done   [1/2] config[smollm2, q4f32_1] in 0.05 s, 3.5 MB" in text
    assert text.endswith(
        "built 2 tasks in 12.3 s (3 cached)\n  dist/smollm2-q4f32_1-MLC\n  dist/libs/smollm2-q4f32_1-native.so\n"
    )


def test_quiet_leaves_failures_and_the_summary() -> None:
    stream = io.StringIO()
    view = View(stream, Style(80), quiet=True)
    for event in BUILD:
        view(event)
    view.summary(summary(2, 3))
    assert stream.getvalue().splitlines()[0] == "built 2 tasks in 12.3 s (3 cached)"


def test_the_added_events_are_json() -> None:
    value = json.loads(json.dumps(BUILD[1].to_json()))
    assert value["type"] == "explained"
    assert value["label"] == CONFIG
    assert value["reasons"][0]["text"] == "context-window-size 2048 -> 4096"
    assert json.loads(json.dumps(BUILD[-1].to_json()))["outputs"][0] == "dist/smollm2-q4f32_1-MLC"


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style_for(Terminal()).color
    assert not style_for(io.StringIO()).color
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style_for(Terminal()).color


def test_units() -> None:
    assert [seconds(value) for value in (0.004, 0.5, 12.34, 75, 3700)] == [
        "0.00 s", "0.5 s", "12.3 s", "1 min 15 s", "1 h 1 min",
    ]  # fmt: skip
    assert [size(value) for value in (12, 1500, 105_454_432, 7.2e12)] == ["12 B", "1.5 kB", "105.5 MB", "7200.0 GB"]
    assert amount(5, 10, "bytes") == "5 B of 10 B"
    assert amount(3, 30, "layers") == "3 of 30 layers"
    assert amount(3, 0, "files") == "3 files"
    assert [amount(1, 0, "files"), amount(0, 1, "libraries")] == ["1 file", "0 of 1 library"]
    assert [amount(1, 30, "layers"), amount(1, 1, "objects")] == ["1 of 30 layers", "1 of 1 object"]
