"""Without TVM's checks a schedule fails where it did, with an error that does not show the function, and TVM's checks return."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from tvm import s_tir, te

from llmbuild.compiler.checks import unchecked


def failed_step() -> str:
    """The error of a step that cannot be taken: an output has nothing to be inlined into."""
    a = te.placeholder((4,), name="a")
    function = te.create_prim_func([a, te.compute((4,), lambda i: a[i] + 1, name="block_of_four")])
    schedule = s_tir.Schedule(function)
    with pytest.raises(s_tir.ScheduleError) as error:
        schedule.compute_inline(schedule.get_sblock("block_of_four"))
    return str(error.value)


@pytest.mark.parametrize(("context", "shown"), [(unchecked, False), (nullcontext, True)])
def test_an_error_of_a_schedule(context: Any, shown: bool) -> None:
    within: AbstractContextManager[None] = context()
    with within:
        assert ("T.sblock" in failed_step()) == shown


def test_types_are_checked_again() -> None:
    with unchecked():
        pass
    function = te.create_prim_func([te.compute((4,), lambda i: i, name="one")])
    with pytest.raises(TypeError, match="block"):
        s_tir.Schedule(function).get_loops(3)
