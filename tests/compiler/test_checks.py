"""Without TVM's checks a library has the same bytes and a schedule fails where it did, with an error that does not show the
function; and TVM's checks return."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
from tvm import s_tir, te

from llmbuild.compiler.checks import unchecked
from llmbuild.compiler.scripts import quick_scripts
from tests.compiler.test_reuse import lowered


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


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "scheme"), [("cpu", "q4f32_1"), ("metal", "q4f16_1"), ("adreno", "q4f16_0"), ("webgpu", "q4f32_1")]
)
def test_a_checked_library_has_the_same_bytes(
    name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvm.s_tir.schedule import _type_checker

    from llmbuild.compiler import lower

    check, checked = _type_checker._type_check, []

    def counted(*arguments: Any) -> Any:
        checked.append(arguments[1])
        return check(*arguments)

    monkeypatch.setattr(_type_checker, "_type_check", counted)
    without = lowered(tmp_path / "without", name, scheme, None)
    assert not checked
    monkeypatch.setattr(lower, "lower", quick_scripts()(unwrap(lower.lower)))
    assert lowered(tmp_path / "with", name, scheme, None) == without
    assert checked
