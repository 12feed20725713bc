"""One line for many tasks that start for the same reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from llmbuild.engine import events
from llmbuild.plan.reasons import Forced, NeverBuilt, ParameterChanged, Reason
from llmbuild.report.events import Explained
from llmbuild.report.starts import Starts

KEY = "3f" * 32


def queued(starts: Starts, labels: Iterable[str], *reasons: Reason) -> None:
    for label in labels:
        starts.take(Explained(time=0, label=label, reasons=reasons or (NeverBuilt(),)))


def lowers(count: int) -> list[str]:
    return [f"lower[m, q4f32_1, p{number}]" for number in range(count)]


def test_many_are_one_line() -> None:
    starts = Starts()
    queued(starts, [*lowers(33), "quantize[m, q4f32_1]"])
    assert starts.started("quantize[m, q4f32_1]") == "quantize[m, q4f32_1]: never built"
    assert starts.started(lowers(33)[7]) == "33 x lower: never built"
    assert {starts.started(label) for label in lowers(33) if label != lowers(33)[7]} == {""}


def test_few_have_a_line_each_and_so_has_every_one_that_comes_later() -> None:
    starts = Starts()
    queued(starts, lowers(3))
    assert [starts.started(label) for label in lowers(3)] == [f"{label}: never built" for label in lowers(3)]
    queued(starts, ["lower[m, q4f32_1, late]"])
    assert starts.started("lower[m, q4f32_1, late]") == "lower[m, q4f32_1, late]: never built"


def test_other_reasons_and_kinds_have_their_own_line() -> None:
    starts = Starts()
    changed = ParameterChanged("scheme/packing", ["a"], {"b": [1]})
    queued(starts, lowers(4))
    queued(starts, [f"link{label[5:]}" for label in lowers(4)])
    queued(starts, ["lower[other, q4f32_1, p0]"], changed)
    assert starts.started("lower[other, q4f32_1, p0]").startswith("lower[other, q4f32_1, p0]: packing ")
    assert starts.started(lowers(4)[0]) == "4 x lower: never built"
    assert starts.started("link[m, q4f32_1, p3]") == "4 x link: never built"


def test_what_has_a_result_already_does_not_count() -> None:
    starts = Starts()
    queued(starts, lowers(5))
    taken = events.CachedTask(time=0, label=lowers(5)[0], action=KEY, output=KEY, source="remote", remote="r")
    starts.take(taken)
    assert starts.started(lowers(5)[1]) == "4 x lower: never built"
    starts = Starts()
    queued(starts, lowers(4))
    starts.take(dataclasses.replace(taken, label=lowers(5)[3]))
    assert starts.started(lowers(4)[0]) == f"{lowers(4)[0]}: never built"


def test_a_task_that_runs_again_is_named_again() -> None:
    starts = Starts()
    queued(starts, lowers(4))
    for label in lowers(4):
        starts.started(label)
    queued(starts, lowers(1), Forced())
    assert starts.started(lowers(1)[0]) == f"{lowers(1)[0]}: forced"


def test_each_has_a_line_where_nothing_is_folded() -> None:
    starts = Starts(fold=False)
    queued(starts, lowers(9))
    assert [starts.started(label) for label in lowers(9)] == [f"{label}: never built" for label in lowers(9)]
    assert starts.started("nobody[knows]") == "nobody[knows]"
