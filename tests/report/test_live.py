"""The live view as a person sees it, on a real pseudo-terminal of 80 columns and 24 lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.helpers.screen import Screen

ROOT = Path(__file__).parent.parent.parent
LINES = """\
run    config[smollm2, q4f32_1]: context-window-size 2048 -> 4096
done   [3/7] config[smollm2, q4f32_1] in 0.05 s, 3.5 MB
"""
ROWS = """\
0:19 ━━━━       lower[smollm2, q4f32_1, native] 12 of 30 layers, 30 s left
0:19            lower[smollm2, q4f32_1, web] about 20 s left
[3/7] ━━━━━━━━╸            0:20, about 30 s left
"""


class Replay:
    """The recorded build in a process on a terminal."""

    def __init__(self, directory: Path, name: str = "BUILD", **variables: str) -> None:
        env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "tests.helpers.replay", name, str(directory)],
            cwd=str(ROOT),
            env={**env, "TERM": "xterm", "NO_COLOR": "1", **variables},
            encoding="utf-8",
            dimensions=(24, 80),
            timeout=60,
        )
        self.directory = directory
        self.raw = ""
        self.screen = Screen(80)

    def until(self, pattern: str) -> str:
        """Read up to what a pattern matches, which ends where rows do; returns the whole screen."""
        self.child.expect(pattern)
        text = self.child.before + self.child.after
        self.raw += text
        self.screen.feed(text)
        return self.screen.text

    def go_on(self) -> str:
        """Let the build go on to its end."""
        (self.directory / "go").touch()
        self.child.expect(pexpect.EOF)
        self.raw += self.child.before
        self.screen.feed(self.child.before)
        self.child.close()
        assert self.child.exitstatus == 0
        return self.screen.text


def test_what_runs_is_below_the_lines_and_gone_at_the_end(tmp_path: Path) -> None:
    replay = Replay(tmp_path)
    middle = replay.until("about 30 s left")
    assert middle.startswith(LINES)
    assert middle.endswith(ROWS)
    assert "layers" not in (end := replay.go_on())
    assert end.endswith("built 4 tasks in 40.2 s (3 cached)\n  dist/libs/smollm2-q4f32_1-native.so\n")


def test_a_terminal_that_becomes_narrower_and_wider(tmp_path: Path) -> None:
    """The rows follow.  Of those that a narrower terminal broke into more, parts may stay above, as rich leaves them."""
    replay = Replay(tmp_path)
    replay.until("about 30 s left")
    replay.screen.resize(50)
    replay.child.setwinsize(24, 50)
    narrow = replay.until(r"… 40%.*?about 30 s left")
    assert narrow.replace("\n", "").startswith(LINES.replace("\n", ""))
    assert narrow.splitlines()[-3:] == [
        "0:19 ━━━━       lower[smollm2, q4f32_1, nati… 40%",
        "0:19            lower[smollm2, q4f32_1, web]",
        "[3/7] ━━━━━━━━╸            0:20, about 30 s left",
    ]
    replay.screen.columns = 100
    replay.child.setwinsize(24, 100)
    wide = replay.until(r"12 of 30 layers, 30 s left.*?\[3/7\].*?about 30 s left")
    assert wide.splitlines()[-3].endswith("lower[smollm2, q4f32_1, native] 12 of 30 layers, 30 s left")
    end = replay.go_on()
    assert end.endswith("built 4 tasks in 40.2 s (3 cached)\n  dist/libs/smollm2-q4f32_1-native.so\n")


def test_what_other_code_prints_stands_above_the_rows(tmp_path: Path) -> None:
    replay = Replay(tmp_path, NOTE="note: a model has two end tokens")
    middle = replay.until("about 30 s left")
    assert "note: a model has two end tokens\n" in middle
    assert middle.endswith(ROWS)
    assert "note: a model has two end tokens\n" in replay.go_on()


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}])
def test_terminals_that_can_less(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "go").touch()
    replay = Replay(tmp_path, **variables)
    end = replay.go_on()
    assert end.splitlines()[-2] == "built 4 tasks in 40.2 s (3 cached)"
    assert replay.raw.isascii()
    assert ("\x1b" in replay.raw) is (variables.get("TERM") != "dumb")
