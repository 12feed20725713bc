"""What TVM does for whoever writes a schedule or a model by hand, and that a lowering has no use for.

It checks every argument of every step of a schedule against its type, which takes longer than many of the steps.  Where a step
cannot be taken, the error shows the function: its rules for GPUs try two hundred such steps and drop the errors.  And it looks
whether an exported model is well formed, and drops the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def unchecked() -> Iterator[None]:
    """Within this context arguments and models are not checked, and the errors of schedules show no function."""
    from tvm.relax import analysis
    from tvm.s_tir.schedule import _type_checker, schedule

    brief = schedule._parse_error_render_level("fast")
    with ExitStack() as replaced:
        for owner, name, value in (
            (analysis, "well_formed", None),
            (_type_checker, "_type_check", None),
            (schedule, "_parse_error_render_level", brief),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, lambda *_, value=value: value)
        yield
