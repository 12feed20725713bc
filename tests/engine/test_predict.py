"""Estimates from earlier runs, and the longest remaining path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmbuild.engine.index import RunSummary
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.engine.predict import Estimate, Predictor, predict, remaining_path
from llmbuild.engine.task import InputRef, Task

MIB = 1 << 20


def nothing(job: Job) -> None:
    del job


KIND = TaskKind("pack", 1, (), (), (), nothing, typical_seconds=7.0, typical_memory=300 * MIB)


def run(wall: float, peak: int, output: int, size: int, label: str = "pack[m]", project: str = "p") -> RunSummary:
    return RunSummary("0" * 64, "pack", label, project, output, wall, wall, peak, 0.0, size)


def task(label: str, *inputs: str) -> Task:
    return Task("pack", label, 1, {}, {one: InputRef(one) for one in inputs}, {})


def test_a_kind_that_never_ran_has_its_declared_numbers() -> None:
    assert predict(KIND, [], label="pack[m]") == Estimate(7.0, 300 * MIB, 0, 0)


def test_the_same_task_is_the_best_witness() -> None:
    runs = [
        run(100, 9 * MIB, 9, 50 * MIB, label="pack[big]"),
        run(2, 5 * MIB, 70, 50 * MIB),
        run(4, 3 * MIB, 90, 50 * MIB),
    ]
    assert predict(KIND, runs, label="pack[m]", project="p") == Estimate(3.0, 5 * MIB, 80, 2)


def test_another_project_with_the_same_label_is_not_the_same_task() -> None:
    runs = [run(1, MIB, 1, 50 * MIB, project="q"), run(9, MIB, 9, 80 * MIB, label="pack[n]")]
    assert predict(KIND, runs, label="pack[m]", project="p", input_size=80 * MIB) == Estimate(9, MIB, 9, 1, "others")


def test_the_same_task_with_inputs_of_another_size_tells_little() -> None:
    runs = [run(1, MIB, 1, 10 * MIB), run(9, 2 * MIB, 9, 100 * MIB, label="pack[n]")]
    assert predict(KIND, runs, label="pack[m]", project="p", input_size=110 * MIB) == Estimate(
        9, 2 * MIB, 9, 1, "others"
    )


def test_runs_of_other_sizes_are_scaled() -> None:
    runs = [run(10, 100 * MIB, 40 * MIB, 100 * MIB, label="pack[n]")]
    assert predict(KIND, runs, label="pack[m]", input_size=1000 * MIB) == Estimate(
        100, 1000 * MIB, 400 * MIB, 1, "others"
    )
    # Less input does not make the process itself smaller.
    assert predict(KIND, runs, label="pack[m]", input_size=10 * MIB) == Estimate(1, 100 * MIB, 4 * MIB, 1, "others")


def test_small_inputs_all_count_as_the_same_size() -> None:
    runs = [run(3, MIB, 5, 700, label="pack[n]")]
    assert predict(KIND, runs, label="pack[m]", input_size=90_000) == Estimate(3, MIB, 5, 1, "others")


def test_it_is_said_what_the_runs_were_of() -> None:
    def of(*runs: RunSummary, model: str = "m") -> str:
        return predict(KIND, runs, label="pack[m, q4]", project="p", model=model).of

    own, near, far = run(1, 1, 1, 0, "pack[m, q4]"), run(1, 1, 1, 0, "pack[m, q3]"), run(1, 1, 1, 0, "pack[m2, q4]")
    elsewhere = run(1, 1, 1, 0, "pack[m, q4]", "q")
    assert (of(far, own), of(near), of(far), of(near, far)) == ("task", "model", "others", "others")
    # Another project may call another model so, but what serves all models is the same everywhere.
    assert (of(elsewhere), of(elsewhere, model="")) == ("others", "task")


def test_only_the_latest_runs_count() -> None:
    runs = [run(1000, 500 * MIB, 1, 0)] + [run(1, MIB, 1, 0)] * 5
    assert predict(KIND, runs, label="pack[m]", project="p") == Estimate(1, MIB, 1, 5)


def test_a_predictor_asks_once_for_each_kind() -> None:
    asked: list[str] = []

    def runs(kind: str) -> list[RunSummary]:
        asked.append(kind)
        return [run(2, MIB, 3, 0)]

    predictor = Predictor(runs, lambda _name: KIND, "p")
    assert predictor(task("pack[m]")) == Estimate(2, MIB, 3, 1)
    assert predictor(task("pack[z]")) == Estimate(2, MIB, 3, 1, "others")
    assert asked == ["pack"]


def test_the_remaining_path_is_the_longest_chain() -> None:
    tasks = [task("fetch"), task("quick", "fetch"), task("slow", "fetch"), task("last", "quick", "slow"), task("alone")]
    seconds = {"fetch": 1.0, "quick": 2.0, "slow": 30.0, "last": 4.0}
    assert remaining_path(tasks, seconds) == {"last": 4.0, "slow": 34.0, "quick": 6.0, "fetch": 35.0, "alone": 0.0}


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=30), st.randoms(use_true_random=False))
def test_every_task_has_a_path_not_shorter_than_those_behind_it(edges: list[list[int]], random: object) -> None:
    del random
    tasks = [task(str(n), *{str(m % n) for m in upstream if n}) for n, upstream in enumerate(edges)]
    paths = remaining_path(tasks, {one.label: 1.0 for one in tasks})
    assert paths.keys() == {one.label for one in tasks}
    for one in tasks:
        for ref in one.inputs.values():
            assert paths[ref.task] >= paths[one.label] + 1.0
