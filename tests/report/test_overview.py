"""Where a build stands after each of its events."""

from __future__ import annotations

from collections.abc import Sequence

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.report.overview import Overview
from tests.helpers.build_events import BEGAN, BUILD, CONFIG, FAILED, FETCH, KEY, LOWER, NULL, QUANTIZE, WEB_LOWER


def after(sequence: Sequence[events.Event]) -> Overview:
    overview = Overview()
    for event in sequence:
        overview.take(event)
    return overview


def test_cached_tasks_count() -> None:
    assert after(NULL).count == "[7/7]"
    assert after(BUILD).count == "[7/7]"
    assert Overview().count == ""
    started = [number for number, event in enumerate(BUILD) if isinstance(event, events.Started)]
    overview = after(BUILD[: started[2] + 1])
    assert overview.count == "[3/7]"
    assert list(overview.running) == [LOWER, WEB_LOWER]


def test_a_failure_counts_and_what_cannot_run_does_not() -> None:
    overview = after(FAILED)
    assert (overview.count, overview.failed, dict(overview.running)) == ("[5/7]", 1, {})


def test_the_number_has_the_width_of_all() -> None:
    labels = tuple(f"fetch[{number}]" for number in range(12))
    plan = events.PlanMade(time=0, tasks=labels, jobs=2)
    cached = events.CachedTask(time=0, label=labels[0], action=KEY, output=KEY, source="store")
    assert after([plan, cached]).count == "[ 1/12]"


def test_a_task_whose_result_vanished_counts_when_it_is_there_again() -> None:
    cached = events.CachedTask(time=0, label=CONFIG, action=KEY, output=KEY, source="store")
    queued = events.Queued(time=0, label=CONFIG, action=KEY)
    assert [after([BUILD[0], cached, *more]).ended for more in ((), (queued,), (queued, cached))] == [1, 0, 1]


def running(seconds: tuple[float | None, ...], *more: events.Event, jobs: int = 2) -> Overview:
    """Fetch is cached; config (after fetch), and quantize (too) run since the begin; lower needs config, link lower."""
    tasks = (FETCH, CONFIG, QUANTIZE, LOWER, "link[smollm2, q4f32_1, native]")
    return after(
        [
            events.PlanMade(time=BEGAN, tasks=tasks, jobs=jobs, needs=((), (0,), (0,), (1,), (3,))),
            events.CachedTask(time=BEGAN, label=FETCH, action=KEY, output=KEY, source="store"),
            events.Predicted(time=BEGAN, seconds=seconds),
            events.Started(time=BEGAN, label=CONFIG, action=KEY),
            events.Started(time=BEGAN, label=QUANTIZE, action=KEY),
            *more,
        ]
    )


def test_the_longest_chain_or_all_work_on_all_jobs() -> None:
    overview = running((None, 4.0, 10.0, 20.0, 1.0))
    assert overview.left(BEGAN) == 25.0
    assert overview.left(BEGAN + 3) == 22.0
    assert running((None, 4.0, 30.0, 20.0, 1.0)).left(BEGAN) == 30.0
    assert running((None, 4.0, 30.0, 20.0, 1.0), jobs=1).left(BEGAN) == 55.0


def test_progress_counts_more_than_earlier_runs() -> None:
    half = events.TaskProgress(time=BEGAN + 10, label=QUANTIZE, done=50, total=100, unit="bytes")
    overview = running((None, 4.0, 3.0, 2.0, 1.0), half)
    assert overview.left_of(QUANTIZE, BEGAN + 10) == 10.0
    assert overview.left_of(CONFIG, BEGAN + 10) == -6.0
    assert overview.left(BEGAN + 10) == 10.0


def test_one_unknown_task_leaves_the_whole_unknown() -> None:
    assert running((None, 4.0, 10.0, None, 1.0)).left(BEGAN) is None
    assert running((None, 4.0, None, 20.0, 1.0)).left(BEGAN) is None
    failed = events.Failed(time=BEGAN, label=QUANTIZE, action=KEY, failure=TaskFailure("no"))
    assert running((None, 4.0, None, 20.0, 1.0), failed).left(BEGAN) == 25.0
    assert Overview().left(BEGAN) == 0


def test_a_task_without_earlier_runs_takes_what_its_siblings_took() -> None:
    """The middle one of those that ended in this build."""
    labels = tuple(f"lower[m, q4f16_1, p{number}]" for number in range(5))
    sequence: list[events.Event] = [events.PlanMade(time=0, tasks=labels, jobs=4)]
    sequence.append(events.Predicted(time=0, seconds=(None,) * 5))
    sequence += [events.Started(time=0, label=label, action=KEY) for label in labels[:4]]
    assert after(sequence).left(1) is None
    for label, took in zip(labels, (9, 2, 4), strict=False):
        measured = {"wall_s": took, "cpu_s": took, "peak_rss": 0, "output_size": 0}
        sequence.append(events.Finished(time=took, label=label, action=KEY, output=KEY, **measured))
    overview = after(sequence)
    assert overview.left_of(labels[3], 9) == 4 - 9
    assert overview.left(9) == 4.0
