"""The graph has exactly the sharing that design.md section 1 promises."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from llmbuild.canonical import Json
from llmbuild.engine.task import Files, InputRef, Install, JsonFields
from llmbuild.manifest.project import Project
from llmbuild.plan.graph import expand, labels
from tests.helpers.plans import (
    FIELDS,
    KINDS,
    Memory,
    edit_model,
    edit_platform,
    observed,
    project,
    tasks_of,
    with_package,
)

PLATFORMS = ("iphone", "android", "web", "cuda", "metal", "native")


def counts(of: Project) -> Counter[str]:
    return Counter(task.kind for task in tasks_of(of))


def test_one_model_one_scheme_six_platforms() -> None:
    of = project(platforms=PLATFORMS)
    assert counts(of) == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 6, "link": 6}


def test_two_models_three_schemes_two_platforms() -> None:
    of = project(("a", "b"), ("q4f16_1", "q4f32_1", "q0f16"), ("native", "web"))
    assert counts(of) == {"fetch": 2, "inspect": 2, "quantize": 6, "config": 6, "lower": 12, "link": 12}


def test_an_adapter_is_one_more_fetch_and_an_input_of_what_looks_at_tensors() -> None:
    of = project(("a",), ("q4f16_1", "q0f16"), adapter=("a",))
    assert counts(of)["fetch"] == 2
    inputs = {
        task.kind: {name: ref.task for name, ref in task.inputs.items()}
        for task in tasks_of(of)
        if task.kind in ("inspect", "quantize", "config")
    }
    weights = {"checkpoint": "fetch[a]", "adapter": "fetch[a, adapter]"}
    assert inputs == {
        "inspect": weights,
        "quantize": weights | {"facts": "inspect[a]"},
        "config": {"checkpoint": "fetch[a]", "facts": "inspect[a]"},
    }


def test_a_preset_has_no_weights_and_installs_only_libraries() -> None:
    tasks = tasks_of(project(preset=("smollm2",)))
    assert [task.kind for task in tasks] == ["config", "lower", "link"]
    assert tasks[0].params["preset"] == {"hidden_size": 64}
    assert not tasks[0].inputs
    assert [task.installs for task in tasks if task.installs] == [
        (Install("lib.so", "dist/libs/smollm2-q4f32_1-native.so"),)
    ]


def test_libraries_for_browsers_share_one_runtime() -> None:
    of = project(("a", "b"), ("q4f16_1", "q0f16"), ("web", "web2", "native"))
    of = edit_platform(edit_platform(of, "web", artifact="wasm"), "web2", artifact="wasm")
    assert counts(of) == {"fetch": 2, "inspect": 2, "quantize": 4, "config": 4, "lower": 12, "link": 12, "runtime": 1}
    assert labels(of) == {task.label for task in tasks_of(of)}
    links = [task for task in tasks_of(of) if task.kind == "link"]
    assert {task.platform: task.inputs.get("runtime") for task in links} == {
        "web": InputRef("runtime[emcc]", Files(("*.o",))),
        "web2": InputRef("runtime[emcc]", Files(("*.o",))),
        "native": None,
    }
    # Another Emscripten compiles a runtime of its own.
    other = edit_platform(of, "web2", link={"compiler": "emcc-next"})
    assert {task.label for task in tasks_of(other) if task.kind == "runtime"} == {
        "runtime[emcc]",
        "runtime[emcc-next]",
    }


def test_labels_order_and_installs() -> None:
    tasks = tasks_of(project())
    assert [task.label for task in tasks] == [
        "fetch[smollm2]",
        "inspect[smollm2]",
        "quantize[smollm2, q4f32_1]",
        "config[smollm2, q4f32_1]",
        "lower[smollm2, q4f32_1, native]",
        "link[smollm2, q4f32_1, native]",
    ]
    assert [install.dest for task in tasks for install in task.installs] == [
        "dist/smollm2-q4f32_1-MLC",
        "dist/smollm2-q4f32_1-MLC",
        "dist/libs/smollm2-q4f32_1-native.so",
    ]


def test_every_task_follows_what_it_depends_on() -> None:
    seen: set[str] = set()
    for task in tasks_of(project(("a", "b"), ("q4f16_1", "q0f16"), PLATFORMS, preset=("b",), adapter=("a",))):
        assert {ref.task for ref in task.inputs.values()} <= seen
        seen.add(task.label)


def test_labels_are_known_without_looking_at_the_world() -> None:
    of = project(("a", "b"), ("q4f16_1", "q0f16"), PLATFORMS, preset=("b",), adapter=("a",))
    assert labels(of) == {task.label for task in tasks_of(of)}


def test_platform_metadata_reaches_lower_and_not_config() -> None:
    of = edit_platform(project(), metadata={"context-window-size": 768, "prefill-chunk-size": 128})
    cell = dataclasses.replace(of.matrix[0], metadata={"prefill-chunk-size": 64})
    tasks = {task.kind: task for task in tasks_of(dataclasses.replace(of, matrix=(cell,)))}
    assert tasks["lower"].params["overrides"] == {"context_window_size": 768, "prefill_chunk_size": 64}
    assert tasks["config"].params["metadata"] == {"context-window-size": 2048}
    assert tasks["lower"].inputs["config"].select == JsonFields("mlc-chat-config.json", FIELDS)


def test_a_model_name_is_in_no_key_so_fine_tunes_share_libraries() -> None:
    of = project(("base", "tuned"))
    memory = Memory()
    assert memory.build(tasks_of(of)) == [
        "fetch[base]",
        "inspect[base]",
        "quantize[base, q4f32_1]",
        "config[base, q4f32_1]",
        "lower[base, q4f32_1, native]",
        "link[base, q4f32_1, native]",
        "fetch[tuned]",
        "inspect[tuned]",
        "quantize[tuned, q4f32_1]",
    ]


def test_the_same_cell_twice_is_refused() -> None:
    of = project()
    with pytest.raises(ValueError, match="twice"):
        tasks_of(dataclasses.replace(of, matrix=of.matrix * 2))


CHANGED: dict[str, tuple[Project, set[str]]] = {
    "temperature": (edit_model(project(), generation={"temperature": 0.7}), {"config"}),
    "template": (edit_model(project(), conversation={"name": "llama-2"}), {"config"}),
    "metadata": (edit_model(project(), metadata={"context-window-size": 4096}), {"config"}),
    "model-type": (edit_model(project(), model_type="mistral"), {"inspect", "config", "quantize"}),
    "ignore-keys": (edit_model(project(), ignore_keys=("use_bias",)), {"inspect", "config", "quantize"}),
    "source-format": (edit_model(project(), source_format="gguf"), {"inspect", "quantize"}),
    "float32": (edit_model(project(), float32="exact"), {"quantize"}),
    "platform metadata": (edit_platform(project(), metadata={"max-batch-size": 4}), {"lower"}),
    "opt": (edit_platform(project(), opt={"cudagraph": True}), {"lower"}),
    "target": (edit_platform(project(), compile={"device": {"kind": "metal"}}), {"lower"}),
    "link": (edit_platform(project(), link={"linker": "lld"}), {"link"}),
    "artifact": (edit_platform(project(), artifact="tar"), {"lower", "link"}),
    "prefix": (edit_platform(project(), system_lib_prefix="x_"), {"lower", "link"}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_each_manifest_value_changes_the_tasks_that_read_it_and_no_other(name: str) -> None:
    changed, kinds = CHANGED[name]
    before = {task.kind: task for task in tasks_of(project())}
    after = {task.kind: task for task in tasks_of(changed)}
    assert {kind for kind in before if dict(before[kind].params) != dict(after[kind].params)} == kinds


MEASURED = ("calibrate[smollm2]",)


@pytest.mark.parametrize("kind", KINDS)
def test_only_declared_parameters_enter_the_key(kind: str) -> None:
    """Every declared parameter flips the key of an action; one that is not declared would not, and is refused."""
    of = with_package(edit_platform(project(), artifact="wasm"), archive="")
    task = next(each for each in tasks_of(of, measured=MEASURED) if each.kind == kind)
    assert set(task.params) == set(KINDS[kind].params)
    for name in KINDS[kind].params:
        fewer = dataclasses.replace(KINDS[kind], params=tuple(p for p in KINDS[kind].params if p != name))
        with pytest.raises(KeyError, match=f"{kind} does not declare {name}"):
            expand(of, observed(of), {**KINDS, kind: fewer}, FIELDS, MEASURED)
        assert key(task.params | {name: "flipped"}, kind) != key(task.params, kind)


def key(params: dict[str, Json], kind: str) -> str:
    from llmbuild.engine.action import Action

    return Action(kind, 1, params, {}, {}).digest


def test_hints_are_not_in_the_key() -> None:
    from llmbuild.engine.action import Action

    assert (
        Action("fetch", 1, {}, {}, {}, {"path": "/a"}).digest == Action("fetch", 1, {}, {}, {}, {"path": "/b"}).digest
    )
