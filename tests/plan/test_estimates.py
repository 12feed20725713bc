"""What a plan will take: totals, downloads, honesty where nothing is known; and how it is told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import pytest

from llmbuild.canonical import Digest, Json
from llmbuild.engine.predict import Estimate, Predictor
from llmbuild.engine.task import InputRef, Task
from llmbuild.plan.estimates import PlanEstimate, Schedule, TaskEstimate, estimate, simulate
from llmbuild.plan.planner import Plan
from llmbuild.report.plan_json import plan_json
from llmbuild.report.plan_text import estimate_lines
from llmbuild.sources.kind import Observation
from tests.helpers.plans import KINDS, Memory, edit_model, observed, project, tasks_of

BASE = project()
SECONDS = {"fetch": 12.0, "inspect": 0.5, "quantize": 50.0, "config": 0.05, "lower": 30.0, "link": 0.1}


def known(task: Task, _input_size: int | None) -> Estimate:
    return Estimate(SECONDS[task.kind], 100_000_000, 2_000_000, 3)


def unknown(task: Task, _input_size: int | None) -> Estimate:
    return Estimate(SECONDS[task.kind], 100_000_000, 0, 0)


def of(
    plan: Plan,
    memory: Memory,
    predict: Callable[[Task, int | None], Estimate] = known,
    have: Callable[[Digest], bool] = lambda _digest: False,
    jobs: int = 2,
    *,
    ask: Callable[[Task], int | None] = lambda _task: None,
    budget: int | None = None,
) -> PlanEstimate:
    found = estimate(plan, predict, memory.tree, have, ask, jobs, budget)
    assert found is not None
    return found


def hub(files: Mapping[str, Json]) -> tuple[Task, ...]:
    """The tasks of a project whose model comes from a hub with these promised files."""
    world = observed(BASE)
    source = Observation({"source": {"kind": "hf", "repo": "org/name"}, "files": {}}, {"files": files})
    return tasks_of(BASE, dataclasses.replace(world, sources={"smollm2": source}))


def test_nothing_to_run_needs_no_estimate() -> None:
    memory = Memory()
    memory.build(tasks_of(BASE))
    assert estimate(memory.plan(tasks_of(BASE)), known, memory.tree, lambda _: False, lambda _: None, 2) is None


def test_the_totals_of_a_first_build() -> None:
    memory = Memory()
    found = of(memory.plan(tasks_of(BASE)), memory, ask=lambda _: 2_000_000)
    # fetch, inspect, and then quantize beside config, lower and link.
    assert found.certain.wall_s == pytest.approx(12 + 0.5 + 50)
    assert found.certain.peak_rss == 200_000_000
    assert found.certain.disk == 6 * 2_000_000
    assert found.certain == found.most
    assert estimate_lines(found) == [
        "estimate: 1 min 2 s, 200.0 MB of memory, 12.0 MB of new disk, nothing to download",
        "from 3 earlier runs of each task",
    ]


def test_one_job_takes_the_sum() -> None:
    memory = Memory()
    found = of(memory.plan(tasks_of(BASE)), memory, jobs=1)
    assert found.certain.wall_s == pytest.approx(sum(SECONDS.values()))
    assert found.certain.peak_rss == 100_000_000


def test_what_may_follow_is_told_apart() -> None:
    memory = Memory()
    memory.build(tasks_of(BASE))
    found = of(memory.plan(tasks_of(edit_model(BASE, generation={"temperature": 0.7}))), memory)
    assert found.certain.wall_s == pytest.approx(0.05)
    assert found.most.wall_s == pytest.approx(30.15)
    assert estimate_lines(found) == [
        "estimate: 0.05 s, 100.0 MB of memory, 2.0 MB of new disk, nothing to download",
        "if all follow: 30.2 s, 100.0 MB of memory, 6.0 MB of new disk",
        "from 3 earlier runs of each task",
    ]


def test_without_earlier_runs_it_says_so() -> None:
    memory = Memory()
    found = of(memory.plan(tasks_of(BASE)), memory, unknown)
    assert (found.fewest, found.most_runs) == (0, 0)
    assert found.guessed == ("fetch", "inspect", "quantize", "config", "lower", "link")
    assert estimate_lines(found) == ["estimate: no earlier runs, so time and memory are unknown; nothing to download"]
    assert {one.runs for one in found.tasks.values()} == {0}
    assert {one.output_size for one in found.tasks.values()} == {None}


def test_kinds_that_never_ran_are_named() -> None:
    memory = Memory()
    found = of(
        memory.plan(tasks_of(BASE)), memory, lambda task, size: (unknown if task.kind == "lower" else known)(task, size)
    )
    assert estimate_lines(found)[-1] == "no earlier runs of lower: what it takes is a guess"


FILES: Mapping[str, Json] = {
    "model.safetensors": {"sha256": "a" * 64, "size": 900_000_000},
    "config.json": {"git-sha1": "b" * 40, "size": 1_000},
}


def test_a_download_is_the_sum_of_the_promised_files() -> None:
    memory = Memory()
    found = of(memory.plan(hub(FILES)), memory, unknown)
    assert found.certain.download == 900_001_000
    assert found.tasks["fetch[smollm2]"].output_size == 900_001_000
    assert estimate_lines(found) == ["estimate: no earlier runs, so time and memory are unknown; 900.0 MB to download"]


def test_what_the_store_has_is_not_downloaded() -> None:
    memory = Memory()
    found = of(memory.plan(hub(FILES)), memory, have=lambda digest: digest == "a" * 64)
    assert found.certain.download == 1_000


def test_a_download_of_unknown_size() -> None:
    memory = Memory()
    found = of(memory.plan(hub({})), memory, unknown)
    assert found.unknown == ("fetch[smollm2]",)
    assert estimate_lines(found) == [
        "estimate: no earlier runs, so time and memory are unknown; 1 download of unknown size"
    ]


def url(form: str, files: Mapping[str, Json] | None = None) -> tuple[Task, ...]:
    """The tasks of a project whose model is behind a URL; the lock knows these files."""
    identity: Mapping[str, Json] = {"kind": "https", "sha256": "c" * 64, "form": form}
    source = Observation({"source": identity, "files": {}}, {"files": files} if files else {})
    return tasks_of(BASE, dataclasses.replace(observed(BASE), sources={"smollm2": source}))


def test_what_other_models_weigh_says_nothing_of_a_source() -> None:
    memory = Memory()
    # Three other models were fetched, of 2 MB each.
    for tasks in (hub({}), url("gguf"), url("tar")):
        found = of(memory.plan(tasks), memory, known)
        assert (found.tasks["fetch[smollm2]"].output_size, found.tasks["fetch[smollm2]"].download) == (None, None)
        assert estimate_lines(found)[0] == (
            "estimate: 1 min 2 s, 200.0 MB of memory, at least 10.0 MB of new disk, 1 download of unknown size"
        )
        value = json.loads(json.dumps(plan_json(memory.plan(tasks), found)))
        assert value["estimate"]["run"]["download"] is None and value["estimate"]["run"]["disk"] is None
        assert value["tasks"][0]["estimate"]["download"] is None
        assert value["tasks"][0]["estimate"]["output-size"] is None


def test_a_source_is_asked_for_its_size() -> None:
    memory = Memory()
    gguf = of(memory.plan(url("gguf")), memory, ask=lambda _: 7_000_000).tasks["fetch[smollm2]"]
    assert (gguf.output_size, gguf.download) == (7_000_000, 7_000_000)
    # Of an archive the lock knows what is in it, and the server how large it is.
    archive = of(memory.plan(url("tar", FILES)), memory, ask=lambda _: 7_000_000).tasks["fetch[smollm2]"]
    assert (archive.output_size, archive.download) == (900_001_000, 7_000_000)
    local = of(memory.plan(tasks_of(BASE)), memory, ask=lambda _: 7_000_000).tasks["fetch[smollm2]"]
    assert (local.output_size, local.download) == (7_000_000, 0)


def test_a_file_that_the_store_has_is_not_downloaded() -> None:
    memory = Memory()
    gguf = of(memory.plan(url("gguf")), memory, have=lambda digest: digest == "c" * 64).tasks["fetch[smollm2]"]
    assert (gguf.output_size, gguf.download) == (None, 0)
    whole = {name: {**entry, "sha256": "a" * 64} for name, entry in FILES.items() if isinstance(entry, Mapping)}
    archive = of(memory.plan(url("tar", whole)), memory, have=lambda digest: digest == "a" * 64).tasks["fetch[smollm2]"]
    assert (archive.output_size, archive.download) == (900_001_000, 0)


def test_a_fetch_like_others_takes_longer_where_there_is_more() -> None:
    memory = Memory()
    found = of(memory.plan(hub(FILES)), memory, others)
    assert found.tasks["fetch[smollm2]"].wall_s == pytest.approx(12 * 900_001_000 / 2_000_000)


def others(task: Task, _input_size: int | None) -> Estimate:
    return Estimate(SECONDS[task.kind], 100_000_000, 2_000_000, 5, "others")


def test_figures_from_other_models_say_so() -> None:
    memory = Memory()
    plan = memory.plan(tasks_of(BASE))
    found = of(plan, memory, others, ask=lambda _: 2_000_000)
    assert estimate_lines(found) == [
        "estimate: about 1 min 2 s, 200.0 MB of memory, 12.0 MB of new disk, nothing to download",
        "about, from 5 runs of other models: fetch, inspect, quantize, config, lower, link",
    ]
    mixed = of(
        plan, memory, lambda task, size: (others if task.kind == "lower" else known)(task, size), ask=lambda _: 1
    )
    assert estimate_lines(mixed)[1:] == [
        "from 3 earlier runs of each task: fetch, inspect, quantize, config, link",
        "about, from 5 runs of other models: lower",
    ]
    value = json.loads(json.dumps(plan_json(plan, mixed)))
    assert value["estimate"]["runs-of-others"] == {"lower": {"runs": 5, "of": "others"}}
    assert [task["estimate"]["of"] for task in value["tasks"]] == ["task", "task", "task", "task", "others", "task"]
    near = of(plan, memory, lambda task, size: dataclasses.replace(others(task, size), runs=1, of="model"))
    assert "about, from 1 run of other tasks of the model: fetch" in estimate_lines(near)[1]


def test_sizes_of_inputs_reach_the_prediction() -> None:
    seen: dict[str, int | None] = {}

    def predict(task: Task, size: int | None) -> Estimate:
        seen[task.kind] = size
        return known(task, size)

    memory = Memory()
    memory.build(tasks_of(BASE)[:1])
    of(memory.plan(tasks_of(BASE)), memory, predict)
    # fetch is cached with one weight file of 64 bytes, config reads none of it; lower reads fields only.
    assert seen == {"inspect": 64, "quantize": 64, "config": 0, "lower": 0, "link": 2_000_000}


def test_the_input_of_an_unknown_task_is_unknown() -> None:
    seen: dict[str, int | None] = {}

    def predict(task: Task, size: int | None) -> Estimate:
        seen[task.kind] = size
        return unknown(task, size)

    memory = Memory()
    of(memory.plan(tasks_of(BASE)), memory, predict)
    assert seen == {"fetch": 0, "inspect": None, "quantize": None, "config": None, "lower": 0, "link": None}


def test_with_the_real_predictor() -> None:
    predictor = Predictor(lambda _kind: (), KINDS.__getitem__)
    memory = Memory()
    found = of(memory.plan(tasks_of(BASE)), memory, predictor)
    assert found.tasks["lower[smollm2, q4f32_1, native]"].wall_s == KINDS["lower"].typical_seconds


def test_json() -> None:
    memory = Memory()
    plan = memory.plan(hub(FILES))
    value = json.loads(json.dumps(plan_json(plan, of(plan, memory))))
    assert value["estimate"]["run"]["download"] == 900_001_000
    assert value["estimate"]["runs"] == [3, 3] and value["estimate"]["no-runs-of"] == []
    assert value["estimate"]["runs-of-others"] == {}
    assert value["tasks"][0]["estimate"] == {
        "wall-s": 12.0, "peak-rss": 100_000_000, "output-size": 900_001_000, "download": 900_001_000,
        "runs": 3, "of": "task",
    }  # fmt: skip
    assert json.loads(json.dumps(plan_json(plan)))["estimate"] is None


def chain(label: str, *needs: str) -> Task:
    return Task("k", label, 1, {}, {need: InputRef(need) for need in needs}, {})


def test_simulation_runs_the_longest_path_first() -> None:
    tasks = [chain("short"), chain("long"), chain("after", "long"), chain("other")]
    each = {
        "short": TaskEstimate(2, 1, 0, 0, 1),
        "long": TaskEstimate(5, 10, 0, 0, 1),
        "after": TaskEstimate(5, 100, 0, 0, 1),
        "other": TaskEstimate(2, 1, 0, 0, 1),
    }
    assert simulate(tasks, each, 2) == Schedule({"long": 0, "short": 0, "other": 2, "after": 5}, 10, 100)
    assert simulate(tasks, each, 1) == Schedule({"long": 0, "after": 5, "short": 10, "other": 12}, 14, 100)
    assert simulate(tasks, each, 4) == Schedule({"long": 0, "short": 0, "other": 0, "after": 5}, 10, 100)
    assert simulate([], {}, 2) == Schedule({}, 0, 0)


def test_simulation_keeps_within_the_memory() -> None:
    tasks = [chain(name) for name in ("huge", "small", "little")]
    each = {
        "huge": TaskEstimate(5, 100, 0, 0, 1),
        "small": TaskEstimate(2, 30, 0, 0, 1),
        "little": TaskEstimate(2, 30, 0, 0, 1),
    }
    assert simulate(tasks, each, 3, 60) == Schedule({"huge": 0, "small": 5, "little": 5}, 7, 100)
    assert simulate(tasks, each, 3, 130) == Schedule({"huge": 0, "small": 0, "little": 2}, 5, 130)
    assert simulate(tasks, each, 3) == Schedule({"huge": 0, "small": 0, "little": 0}, 5, 160)


def test_the_budget_reaches_the_prediction() -> None:
    memory = Memory()
    plan = memory.plan(tasks_of(BASE))
    found = of(plan, memory, budget=150_000_000)
    assert found.certain.wall_s == pytest.approx(sum(SECONDS.values()))
    assert found.certain.peak_rss == 100_000_000
