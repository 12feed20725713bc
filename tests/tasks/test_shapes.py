"""Every task that is planned has the shape of its kind, and whatever else a record holds is refused before it runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Json, digest_bytes
from llmbuild.engine.action import Action, Input, JsonInput, TreeInput
from llmbuild.engine.execute import execute
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.engine.store import ActionRecord, Store
from llmbuild.engine.task import JsonFields, Task
from llmbuild.errors import UsageError
from llmbuild.manifest.load import load
from llmbuild.models.presets import presets
from llmbuild.plan.graph import expand
from llmbuild.plan.measuring import measuring_labels
from llmbuild.targets.names import target_names
from llmbuild.tasks.lower import COMPILE_FIELDS
from llmbuild.tasks.shapes import wrong_part
from tests.helpers import plans
from tests.helpers.replaced_parts import OTHERS, mutations

ANY = digest_bytes(b"[]")
MANIFEST = """\
[metadata]
context-window-size = 64
[models.a]
source = "a"
adapter = "b"
conv-template = "chatml"
source-format = "huggingface-torch"
model-type = "llama"
float32 = "exact"
[models.a.generation]
temperature = 0.5
[models.b]
preset = "PRESET"
[quantizations.mine]
base = "q4f16_1"
group-size = 64
[platforms.named]
target = "x86_64-linux-cpu"
metadata = { max-batch-size = 4 }
opt = "O3"
[platforms.odd]
target = "odd"
[[build]]
quantizations = ["q0f16", "q3f16_1", "q4f32_1", "mine"]
platforms = ["named", "odd", TARGETS]
"""
ODD = """\
[target]
extends = "x86_64-linux-cpu"
[device]
kind = "opencl"
max_num_threads = 256
keys = ["a"]
[link]
compiler = ["zig", "cc"]
flags = ["-s"]
needed = ["c"]
environment = ["SDKROOT"]
minimum-os = "13.0"
"""


def wrong_in(action: Action) -> str | None:
    return wrong_part(action.kind, action.params, {n: isinstance(one, TreeInput) for n, one in action.inputs.items()})


def action_of(task: Task) -> Action:
    inputs: dict[str, Input] = {
        name: JsonInput(ANY) if isinstance(ref.select, JsonFields) else TreeInput(ANY)
        for name, ref in task.inputs.items()
    }
    return Action(task.kind, task.version, task.params, inputs, {}, {})


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Action]:
    """Those of a project with everything in it, for every target; by label."""
    names = ", ".join(f'"{name}"' for name in target_names() if not name.endswith("-native"))
    return actions_of(tmp_path_factory.mktemp("everything"), MANIFEST.replace("TARGETS", names))


def actions_of(place: Path, text: str) -> dict[str, Action]:
    """By label, what a manifest plans, and a package of all that it builds."""
    (place / "targets").mkdir()
    (place / "targets" / "odd.toml").write_text(ODD)
    text = text.replace("PRESET", next(iter(presets())))
    project = plans.with_package(load(place / "buildfile.toml", text).project, sources=("page",), archive="")
    kinds = {name: load_kind(name) for name in KIND_NAMES}
    named = sorted(label for label in measuring_labels(project) if label.startswith("calibrate["))
    tasks = expand(project, plans.observed(project), kinds, COMPILE_FIELDS, named)
    return {task.label: action_of(task) for task in tasks}


def test_every_planned_task_has_the_shape_of_its_kind(actions: Mapping[str, Action]) -> None:
    assert {one.kind for one in actions.values()} == set(KIND_NAMES)
    assert {label: wrong for label, one in actions.items() if (wrong := wrong_in(one)) is not None} == {}


def changed(action: Action) -> Iterator[Action]:
    """The action with one parameter that is something else."""
    for name in action.params:
        for other in OTHERS:
            if other != action.params[name]:
                params: dict[str, Json] = {**action.params, name: copy.deepcopy(other)}
                yield Action(action.kind, action.version, params, action.inputs, {}, {})


def test_whatever_a_parameter_is_it_is_looked_at_without_an_error(tmp_path: Path) -> None:
    # Of few schemes and platforms: the package of everything lists some hundred libraries, which are alike.
    few = MANIFEST.replace('"q0f16", "q3f16_1", "q4f32_1"', '"q4f32_1"').replace("TARGETS", '"wasm32-webgpu"')
    actions = actions_of(tmp_path, few)
    for kind in ("quantize", "config", "lower", "link", "runtime", "join", "package", "text", "calibrate"):
        action = next(one for one in actions.values() if one.kind == kind)
        refused = [wrong_in(one) for one in changed(action)]
        assert sum(one is not None for one in refused) > len(refused) / 2
        deep: Any = action.params
        for params in mutations(deep):
            if isinstance(params, dict):
                wrong_in(Action(kind, 1, params, action.inputs, {}, {}))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("quantize", {"scheme": {}}),
    ("quantize", {"scheme": {"bits": 5}}),
    ("quantize", {"scheme": {"group_size": 0}}),
    ("quantize", {"scheme": {"group_size": 33}}),
    ("quantize", {"scheme": {"dtype": "int8"}}),
    ("quantize", {"scheme": {"bits": 3, "layout": "AWQ"}}),
    ("quantize", {"scheme": {"overrides": [{"match": "*", "bits": 8, "group_size": 33, "layers": None}]}}),
    ("quantize", {"scheme": {"overrides": [{"match": "*", "bits": 8, "group_size": 32, "layers": "3-1"}]}}),
    ("quantize", {"scheme": {"overrides": [{"match": "*", "bits": 5, "group_size": 30, "layers": None}]}}),
    ("lower", {"scheme": {"overrides": {"match": "*"}}}),
    ("quantize", {"source-format": 7}),
    ("config", {"metadata": {"max-batch-size": "x"}}),
    ("config", {"metadata": {"unknown": 1}}),
    ("config", {"generation": []}),
    ("config", {"preset": {}}),
    ("lower", {"target": {"device": {}, "host": {}}}),
    ("link", {"link": []}),
    ("link", {"link": {"flags": "-s"}}),
    ("link", {"link": {"compiler": []}}),
    ("link", {"artifact": "exe"}),
    ("link", {"name": "../lib.so"}),
]


@pytest.mark.parametrize(("kind", "params"), WRONG)
def test_a_record_with_senseless_parameters_is_refused(
    actions: Mapping[str, Action], tmp_path: Path, kind: str, params: dict[str, Any]
) -> None:
    """Records come out of archives; `llmbuild exec` of such a one is no bug of llmbuild."""
    right = next(
        one for label, one in actions.items() if one.kind == kind and ("q4f32_1" in label or kind == "runtime")
    )
    merged: dict[str, Any] = dict(right.params)
    for name, value in params.items():
        before = merged[name]
        merged[name] = {**before, **value} if value and isinstance(before, Mapping) else value
    store = Store(tmp_path / "store")
    store.cas.put_bytes(b"[]")
    digest = store.put_action(ActionRecord(Action(kind, right.version, merged, right.inputs, {}, {}), kind, "p"))
    with pytest.raises(UsageError, match="none that llmbuild records"):
        execute(store, digest)


@pytest.mark.parametrize("inputs", [{}, {"objects": JsonInput(ANY)}, {"objects": TreeInput(ANY), "x": TreeInput(ANY)}])
def test_a_record_with_other_inputs_is_refused(actions: Mapping[str, Action], inputs: dict[str, Input]) -> None:
    right = next(one for one in actions.values() if one.kind == "link")
    assert wrong_in(Action("link", 1, right.params, inputs, {}, {})) == "its inputs are none of a link task"
