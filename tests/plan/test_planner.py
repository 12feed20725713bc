"""The planner on a store in memory: states, early cutoff, and every reason."""

from __future__ import annotations

import dataclasses

import pytest

from llmbuild.canonical import digest_json
from llmbuild.manifest.project import Project
from llmbuild.plan.observed import Observed
from llmbuild.plan.planner import Lost, Plan
from llmbuild.plan.reasons import (
    Cascade,
    Evicted,
    Forced,
    InputChanged,
    NeverBuilt,
    OutputCorrupt,
    OutputMissing,
    ParameterChanged,
    Reason,
    ToolChanged,
    reason_from_json,
    reason_to_json,
    sentence,
)
from llmbuild.sources.kind import Observation
from tests.helpers.plans import Memory, edit_model, edit_platform, edit_tool, observed, project, tasks_of

BASE = project()
LOWER, LINK = "lower[smollm2, q4f32_1, native]", "link[smollm2, q4f32_1, native]"
CONFIG, QUANTIZE = "config[smollm2, q4f32_1]", "quantize[smollm2, q4f32_1]"
FETCH, INSPECT = "fetch[smollm2]", "inspect[smollm2]"


def built() -> Memory:
    memory = Memory()
    memory.sources.update(observed(BASE).source_files)
    memory.build(tasks_of(BASE))
    return memory


def states(plan: Plan) -> dict[str, str]:
    return {verdict.task.kind: verdict.state for verdict in plan.verdicts}


def reasons(plan: Plan, label: str) -> tuple[Reason, ...]:
    return next(verdict.reasons for verdict in plan.verdicts if verdict.task.label == label)


def after(changed: Project, world: Observed | None = None) -> tuple[Memory, Plan]:
    memory = built()
    memory.sources.update((world or observed(BASE)).source_files)
    return memory, memory.plan(tasks_of(changed, world))


def test_first_plan_runs_everything() -> None:
    plan = Memory().plan(tasks_of(BASE))
    assert set(states(plan).values()) == {"run"}
    assert {verdict.reasons for verdict in plan.verdicts} == {(NeverBuilt(),)}


def test_after_a_build_everything_is_cached_and_silent() -> None:
    plan = built().plan(tasks_of(BASE))
    assert not plan.stale
    assert {(verdict.state, verdict.reasons) for verdict in plan.verdicts} == {("cached", ())}


def test_temperature_runs_config_only() -> None:
    changed = edit_model(BASE, generation={"temperature": 0.7})
    memory, plan = after(changed)
    assert states(plan) == {
        "fetch": "cached", "inspect": "cached", "quantize": "cached", "config": "run", "lower": "maybe", "link": "maybe",
    }  # fmt: skip
    assert reasons(plan, CONFIG) == (ParameterChanged("generation/temperature", 1.0, 0.7),)
    assert reasons(plan, LINK) == (Cascade(CONFIG),)
    assert plan.impact() == {CONFIG: 2}
    assert memory.build(tasks_of(changed)) == [CONFIG]


def test_context_window_of_the_model_runs_config_lower_and_link() -> None:
    changed = edit_model(BASE, metadata={"context-window-size": 4096})
    memory, plan = after(changed)
    assert [sentence(reason) for reason in reasons(plan, CONFIG)] == ["context-window-size 2048 -> 4096"]
    assert memory.build(tasks_of(changed)) == [CONFIG, LOWER, LINK]


def test_what_follows_tells_the_changed_field_once_it_is_known() -> None:
    changed = edit_model(BASE, metadata={"context-window-size": 4096})
    memory = built()
    memory.build([task for task in tasks_of(changed) if task.kind in ("fetch", "inspect", "quantize", "config")])
    plan = memory.plan(tasks_of(changed))
    assert states(plan)["lower"] == "run"
    assert [sentence(reason) for reason in reasons(plan, LOWER)] == [
        "context-window-size 2048 -> 4096 (from config[smollm2, q4f32_1])"
    ]


def test_platform_metadata_runs_that_lower_and_its_link() -> None:
    both = project(platforms=("native", "web"))
    memory = Memory()
    memory.build(tasks_of(both))
    changed = edit_platform(both, "web", metadata={"context-window-size": 768})
    plan = memory.plan(tasks_of(changed))
    assert [verdict.task.label for verdict in plan.verdicts if verdict.state != "cached"] == [
        "lower[smollm2, q4f32_1, web]",
        "link[smollm2, q4f32_1, web]",
    ]
    assert [sentence(reason) for reason in reasons(plan, "lower[smollm2, q4f32_1, web]")] == [
        "context-window-size set to 768"
    ]


def test_changed_weights_run_fetch_inspect_quantize_and_neither_config_nor_lower() -> None:
    world = observed(BASE)
    new = Observation(
        {"source": {"kind": "path"}, "files": {"model.safetensors": "f" * 64}}, world.sources["smollm2"].hints
    )
    world = dataclasses.replace(world, sources={"smollm2": new})
    memory, plan = after(BASE, world)
    assert [sentence(reason) for reason in reasons(plan, FETCH)] == [
        "model.safetensors changed 2d6e5b4efedb -> ffffffffffff (from source)"
    ]
    assert memory.build(tasks_of(BASE, world)) == [FETCH, INSPECT, QUANTIZE]


def test_group_size_is_told_in_the_fields_words() -> None:
    scheme = dataclasses.replace(BASE.schemes["q4f32_1"], group_size=64)
    _, plan = after(dataclasses.replace(BASE, schemes={"q4f32_1": scheme}))
    assert [sentence(reason) for reason in reasons(plan, QUANTIZE)] == ["group size 32 -> 64"]
    assert states(plan)["config"] == "cached"


def test_a_new_tvm_runs_lower_and_not_quantize() -> None:
    world = edit_tool(observed(BASE), "lower", "apache-tvm", f"0.28.0+sha256.{'b' * 64}")
    _, plan = after(BASE, world)
    assert states(plan) == {
        "fetch": "cached", "inspect": "cached", "quantize": "cached", "config": "cached", "lower": "run", "link": "maybe",
    }  # fmt: skip
    assert [sentence(reason) for reason in reasons(plan, LOWER)] == ["apache-tvm 0.27.0.post1 -> 0.28.0"]


def test_a_rebuilt_tvm_of_the_same_version_is_told_apart() -> None:
    world = edit_tool(observed(BASE), "lower", "apache-tvm", f"0.27.0.post1+sha256.{'b' * 64}")
    _, plan = after(BASE, world)
    assert [sentence(reason) for reason in reasons(plan, LOWER)] == [
        "apache-tvm 0.27.0.post1: the same version, other bytes (aaaaaaaaaaaa -> bbbbbbbbbbbb)"
    ]


def test_an_edited_source_file_of_llmbuild_is_named() -> None:
    world = observed(BASE)
    files = {"linkers/elf.py": "9" * 64, "linkers/archive.py": "2" * 64}
    digest = digest_json(files)
    world = edit_tool(world, "link", "llmbuild sources", digest)
    world = dataclasses.replace(world, source_files={**world.source_files, digest: files})
    _, plan = after(BASE, world)
    assert [verdict.task.kind for verdict in plan.verdicts if verdict.state == "run"] == ["link"]
    assert [sentence(reason) for reason in reasons(plan, LINK)] == ["llmbuild linkers sources: linkers/elf.py"]


def test_a_changed_linker_runs_link() -> None:
    world = dataclasses.replace(observed(BASE), linkers={"native": "GNU ld 2.41"})
    _, plan = after(BASE, world)
    assert reasons(plan, LINK) == (ToolChanged("linker", "GNU ld 2.40", "GNU ld 2.41"),)


@pytest.mark.parametrize("reason", [Evicted(), OutputCorrupt("model.bin")])
def test_a_lost_output_is_a_reason_of_its_own(reason: Reason) -> None:
    memory = built()
    tasks = tasks_of(BASE)
    quantize = next(verdict for verdict in memory.plan(tasks).verdicts if verdict.task.label == QUANTIZE)
    assert quantize.action is not None
    memory.traces[quantize.action.digest] = Lost(reason)
    assert reasons(memory.plan(tasks), QUANTIZE) == (reason,)
    assert memory.build(tasks) == [QUANTIZE]


def test_a_deleted_file_of_dist_is_restored_without_a_run() -> None:
    memory = built()
    memory.wrong[QUANTIZE] = (OutputMissing("dist/smollm2-q4f32_1-MLC/params_shard_0.bin"),)
    plan = memory.plan(tasks_of(BASE))
    assert plan.stale
    assert states(plan)["quantize"] == "restore"
    assert plan.count("cached") == 5


def test_force_runs_the_named_task() -> None:
    plan = built().plan(tasks_of(BASE), force=frozenset({LOWER}))
    assert reasons(plan, LOWER) == (Forced(),)
    assert states(plan)["link"] == "maybe"


def test_own_reasons_are_told_below_a_task_that_runs() -> None:
    changed = edit_platform(edit_model(BASE, generation={"temperature": 0.7}), opt={"cudagraph": True})
    _, plan = after(changed)
    assert reasons(plan, LOWER) == (ParameterChanged("opt/cudagraph", False, True),)
    assert reasons(plan, LINK)[0] in (Cascade(CONFIG), Cascade(LOWER))


def test_a_lost_trace_with_an_unchanged_key_is_told_as_evicted() -> None:
    memory = built()
    memory.traces.clear()
    assert reasons(memory.plan(tasks_of(BASE)), FETCH) == (Evicted(),)


ALL: list[Reason] = [
    NeverBuilt(),
    ParameterChanged("metadata/context-window-size", 2048, 4096),
    InputChanged(FETCH, "model.safetensors", "a" * 64, "b" * 64),
    InputChanged(CONFIG, "", 1, 2, field="vocab_size"),
    ToolChanged("apache-tvm", "0.26.0", "0.27.0.post1"),
    ToolChanged("llmbuild sources", "a" * 64, "b" * 64, "linkers/elf.py"),
    OutputMissing("dist/x"),
    OutputCorrupt("dist/x"),
    Evicted(),
    Forced(),
    Cascade(CONFIG),
]


@pytest.mark.parametrize("reason", ALL, ids=lambda reason: type(reason).__name__)
def test_reasons_survive_json(reason: Reason) -> None:
    assert reason_from_json(reason_to_json(reason)) == reason


@pytest.mark.parametrize("reason", ALL, ids=lambda reason: type(reason).__name__)
def test_every_reason_is_one_short_sentence(reason: Reason) -> None:
    text = sentence(reason)
    assert text and "\n" not in text and not text.endswith(".") and "unknown" not in text


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (ParameterChanged("target/device/kind", "llvm", "metal"), "target device kind llvm -> metal"),
        (ParameterChanged("overrides/context_window_size", 2048, 4096), "context-window-size 2048 -> 4096"),
        (ParameterChanged("scheme/group_size", 32, 64), "group size 32 -> 64"),
        (ParameterChanged("conversation/stop_str", ["a"], ["b"]), 'conversation template stop-str ["a"] -> ["b"]'),
        (ParameterChanged("generation/temperature", 0.7, "\0missing"), "temperature 0.7 -> default"),
        (ParameterChanged("system-lib-prefix", None, "a_"), "system-lib-prefix none -> a_"),
        (InputChanged(FETCH, "a.bin", None, "b" * 64), "a.bin added (from fetch[smollm2])"),
        (InputChanged(FETCH, "a.bin", "b" * 64, None), "a.bin removed (from fetch[smollm2])"),
        (ToolChanged("llmbuild sources", None, "b" * 64, "linkers/pe.py"), "llmbuild linkers sources: linkers/pe.py is new"),
        (ToolChanged("llmbuild sources", "a" * 64, "b" * 64), "llmbuild sources aaaaaaaaaaaa -> bbbbbbbbbbbb"),
    ],
)  # fmt: skip
def test_wording(reason: Reason, text: str) -> None:
    assert sentence(reason) == text
