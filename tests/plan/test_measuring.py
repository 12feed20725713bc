"""The tasks that measure: there for who names them, shared with the matrix, and never installed."""

from __future__ import annotations

import dataclasses

import pytest

from llmbuild.errors import ToolchainError, UsageError
from llmbuild.plan.graph import expand, labels
from llmbuild.plan.measuring import measures, measuring_labels
from llmbuild.plan.select import asked_labels, select
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.plans import FIELDS, KINDS, observed, project, tasks_of

LIBRARY = "link[smollm2, q4f32_1, measuring]"
REFERENCE = "link[smollm2, reference, measuring]"


def test_what_measures_is_in_no_plan_that_does_not_name_it() -> None:
    of = project()
    assert not any(measures(task.label) for task in tasks_of(of))
    assert labels(of).isdisjoint(measuring_labels(of))


def test_a_library_that_measures_shares_the_weights_and_the_configuration_of_the_matrix() -> None:
    of = project(schemes=("q4f32_1", "q4f16_1"))
    tasks = expand(of, observed(of), KINDS, FIELDS, [LIBRARY])
    added = [task for task in tasks if measures(task.label)]
    assert [task.label for task in added] == ["lower[smollm2, q4f32_1, measuring]", LIBRARY]
    lower, link = added
    assert lower.inputs["config"].task == "config[smollm2, q4f32_1]"
    assert lower.params["activations"] == "float"
    assert lower.params["overrides"] == {"prefill_chunk_size": 256}
    assert not lower.installs
    assert not link.installs


def test_the_reference_is_float32_as_the_checkpoint_has_it() -> None:
    of = project(schemes=("q0f32",))
    tasks = {task.label: task for task in expand(of, observed(of), KINDS, FIELDS, [REFERENCE])}
    reference, matrix = tasks["quantize[smollm2, reference]"], tasks["quantize[smollm2, q0f32]"]
    assert reference.params["scheme"] == SCHEMES["q0f32"].to_json()
    assert (reference.params["float32"], matrix.params["float32"]) == ("exact", "bf16")
    assert not reference.installs
    assert tasks["config[smollm2, reference]"].params["quantization"] == "q0f32"
    # The library is that of any q0f32 whose activations stay floats: its key has no name of a model or of a scheme.
    assert tasks["lower[smollm2, reference, measuring]"].params["scheme"] == SCHEMES["q0f32"].to_json()


def test_every_label_that_may_be_measured_makes_its_task() -> None:
    of = project(("a", "b"), ("q4f16_1", "q0f16"), ("native", "web"), preset=("b",))
    hidden = measuring_labels(of)
    assert "link[a, q0f16, measuring]" in hidden
    assert not any("[b" in label for label in hidden)
    made = {task.label for task in expand(of, observed(of), KINDS, FIELDS, hidden)}
    assert made == labels(of) | hidden


def test_a_machine_without_a_target_has_nothing_to_measure_with() -> None:
    there = measuring_labels(dataclasses.replace(project(), measuring=None))
    assert not any("measuring" in label for label in there)
    of = dataclasses.replace(project(), measuring=None)
    with pytest.raises(ToolchainError, match="cannot be measured on this machine"):
        expand(of, observed(of), KINDS, FIELDS, [LIBRARY])


@pytest.mark.parametrize("name", ["lower", "link", "*", "*smollm2*", "lower[*]", "quantize"])
def test_names_of_many_tasks_mean_those_of_the_matrix(name: str) -> None:
    of = project()
    assert asked_labels(sorted(labels(of) | measuring_labels(of)), [name]) <= labels(of)


@pytest.mark.parametrize("name", [LIBRARY, "link[smollm2,q4f32_1,measuring]", "lower[*, measuring]", "*reference*"])
def test_names_of_nothing_else_mean_what_measures(name: str) -> None:
    of = project()
    found = asked_labels(sorted(labels(of) | measuring_labels(of)), [name])
    assert found
    assert found <= measuring_labels(of)


def test_a_near_name_of_what_measures_is_proposed() -> None:
    of = project()
    with pytest.raises(UsageError) as caught:
        asked_labels(sorted(labels(of) | measuring_labels(of)), ["link[smollm2, refrence, measuring]"])
    assert caught.value.fix is not None
    assert f"'{REFERENCE}'" in caught.value.fix


def test_a_plan_of_a_library_that_measures_has_what_it_needs_and_no_more() -> None:
    of = project()
    tasks = expand(of, observed(of), KINDS, FIELDS, [LIBRARY])
    assert [task.label for task in select(tasks, [LIBRARY])] == [
        "fetch[smollm2]",
        "inspect[smollm2]",
        "config[smollm2, q4f32_1]",
        "lower[smollm2, q4f32_1, measuring]",
        LIBRARY,
    ]
