"""The rows of the live view, to the character, at widths from 40 to 120 columns."""

from __future__ import annotations

import io
from textwrap import dedent

import pytest
from rich.console import Console

from llmbuild.engine import events
from llmbuild.report.live_rows import rows
from llmbuild.report.overview import Overview

KEY = "3f" * 32
FETCH, QUANTIZE = "fetch[smollm2]", "quantize[smollm2, q4f32_1]"
LOWER = "lower[a-model-with-a-long-name-1.5b-instruct, q4f16_1, aarch64-linux-android-opencl]"
TASKS = (FETCH, "inspect[smollm2]", QUANTIZE, LOWER, *(f"link[m{number}]" for number in range(13)))


def overview(*, predicted: bool = True, links: int = 0) -> Overview:
    """At second 20: two tasks ended, a download at a fifth, half a quantization, a compilation without progress."""
    found = Overview()
    running = (FETCH, QUANTIZE, LOWER, *TASKS[4 : 4 + links])
    for event in (
        events.PlanMade(time=0, tasks=TASKS, jobs=4),
        *([events.Predicted(time=0, seconds=(9.0, 9.0, 9.0, 31.0, *[0.5] * 13))] if predicted else []),
        events.CachedTask(time=0, label=TASKS[1], action=KEY, output=KEY, source="store"),
        events.CachedTask(time=0, label=TASKS[-1], action=KEY, output=KEY, source="store"),
        *[events.Started(time=8, label=label, action=KEY) for label in running],
        events.TaskProgress(time=20, label=FETCH, done=900_000_000, total=4_500_000_000, unit="bytes"),
        events.TaskProgress(time=20, label=QUANTIZE, done=15, total=30, unit="layers"),
    ):
        found.take(event)
    return found


def drawn(found: Overview, width: int, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """The rows as rich writes them to a terminal without colour."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(rows(found, 20, console.options))
    stream.seek(0)
    return stream.read().splitlines()


def text(width: int, encoding: str = "utf-8", *, predicted: bool = True) -> str:
    return "\n".join(line.rstrip() for line in drawn(overview(predicted=predicted), width, encoding=encoding)) + "\n"


def test_at_80_columns() -> None:
    assert text(80) == dedent(
        """\
        0:12 ━━         fetch[smollm2] 900.0 MB of 4.5 GB, 75.0 MB/s, 48 s left
        0:12 ━━━━━      quantize[smollm2, q4f32_1] 15 of 30 layers, 12 s left
        0:12            lower[a-model-with-a-long-name-1.5b-instruct, … about 19 s left
        [ 2/17] ━━                   0:20, about 48 s left
        """
    )


def test_at_120_columns() -> None:
    assert text(120) == dedent(
        """\
        0:12 ━━━              fetch[smollm2] 900.0 MB of 4.5 GB, 75.0 MB/s, 48 s left
        0:12 ━━━━━━━━         quantize[smollm2, q4f32_1] 15 of 30 layers, 12 s left
        0:12                  lower[a-model-with-a-long-name-1.5b-instruct, q4f16_1, aarch64-linux-android-ope… about 19 s left
        [ 2/17] ━━━╸                           0:20, about 48 s left
        """
    )


def test_numbers_make_room_for_a_label_at_40_columns_and_in_ascii() -> None:
    assert text(40, "ascii", predicted=False) == dedent(
        """\
        0:12 --         fetch[smollm2] 20%
        0:12 -----      quantize[smollm2, q4f32
        0:12            lower[a-model-with-a-lo
        [ 2/17] --                   0:20
        """
    )


@pytest.mark.parametrize("width", range(40, 130))
def test_rows_fit(width: int) -> None:
    for height in (4, 8, 24):
        found = drawn(overview(links=11), width, height)
        assert len(found) < height
        assert all(len(row) < width for row in found), found


@pytest.mark.parametrize("width", [1, 2, 10, 20])
def test_a_terminal_with_no_room_ends_nothing(width: int) -> None:
    assert all(len(row) <= width for row in drawn(overview(links=11), width, 2))


def test_what_a_low_terminal_has_no_room_for_is_counted() -> None:
    shown = [line.rstrip() for line in drawn(overview(links=11), 80, 8)]
    assert shown[4:] == ["                and 10 more", "[ 2/17] ━━                   0:20, about 48 s left"]


def test_failures_are_counted() -> None:
    from llmbuild.engine.executor import TaskFailure

    found = overview()
    found.take(events.Failed(time=20, label=QUANTIZE, action=KEY, failure=TaskFailure("no")))
    assert drawn(found, 80)[-1].rstrip().endswith("0:20, about 48 s left, 1 failed")
