"""Quick stacks say what `inspect` says."""

from __future__ import annotations

import inspect

from llmbuild.compiler.frames import quick_stacks


def test_the_same_frames_and_lines() -> None:
    slow_function = inspect.stack
    with quick_stacks():
        quick, slow = inspect.stack(), slow_function()
    assert inspect.stack is slow_function
    assert [frame.frame for frame in quick] == [frame.frame for frame in slow]
    assert [(frame.filename, frame.function) for frame in quick] == [(frame.filename, frame.function) for frame in slow]
    assert quick[0].code_context == ["        quick, slow = inspect.stack(), slow_function()\n"] == slow[0].code_context
