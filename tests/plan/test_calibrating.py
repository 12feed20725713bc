"""The tasks that calibrate: made where a scheme asks for it, shared by schemes, and lacking on machines of another kind."""

from __future__ import annotations

import dataclasses

import pytest

from llmbuild.engine.lack import Lack
from llmbuild.engine.task import AllFiles, InputRef
from llmbuild.errors import ToolchainError
from llmbuild.manifest.measuring import CALIBRATING, calibrating_platform
from llmbuild.manifest.project import Project, Quality
from llmbuild.plan.graph import expand, labels
from llmbuild.plan.measuring import calibrating_labels, measuring_labels
from llmbuild.plan.select import asked_labels
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.plans import FIELDS, KINDS, observed, project, tasks_of

CALIBRATE = "calibrate[smollm2]"


def calibrated(schemes: tuple[str, ...] = ("q4f32_1",), method: str = "calibrated") -> Project:
    of = project(schemes=schemes)
    changed = {name: dataclasses.replace(SCHEMES[name], method=method) for name in schemes}  # type: ignore[arg-type]
    return dataclasses.replace(of, schemes=changed)


def test_a_plan_has_them_where_a_method_asks_for_it() -> None:
    of = calibrated(("q4f32_1", "q4f16_1"))
    tasks = {task.label: task for task in tasks_of(of)}
    assert tasks.keys() == labels(of)
    assert calibrating_labels(of) == {
        "text[calibration]",
        "quantize[smollm2, reference]",
        "config[smollm2, reference]",
        "lower[smollm2, reference, calibrating]",
        "link[smollm2, reference, calibrating]",
        CALIBRATE,
    }
    for scheme in of.schemes:
        assert tasks[f"quantize[smollm2, {scheme}]"].inputs["importance"] == InputRef(CALIBRATE, AllFiles())
    assert "importance" not in tasks["quantize[smollm2, reference]"].inputs
    lower = tasks["lower[smollm2, reference, calibrating]"]
    assert (lower.params["taps"], lower.params["activations"]) == (True, None)  # Unquantized products round nothing.
    assert not any(task.installs for label, task in tasks.items() if label in calibrating_labels(of))


@pytest.mark.parametrize("method", ["round", "search"])
def test_other_methods_have_nothing_of_it_unless_it_is_named(method: str) -> None:
    of = calibrated(method=method)
    assert not calibrating_labels(of)
    assert CALIBRATE not in labels(of)
    assert CALIBRATE in measuring_labels(of)
    assert asked_labels(sorted(labels(of) | measuring_labels(of)), ["calibrate"]) == {CALIBRATE}
    assert CALIBRATE in {task.label for task in expand(of, observed(of), KINDS, FIELDS, [CALIBRATE])}


def test_the_key_has_how_much_of_the_text_is_read() -> None:
    of = dataclasses.replace(calibrated(), quality=Quality(calibration_tokens=777))
    tasks = {task.label: task for task in tasks_of(of)}
    assert tasks[CALIBRATE].params == {"tokens": 777}


def test_the_library_is_the_same_one_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = calibrating_platform()
    assert here.compile["host"]["mcpu"] == "x86-64-v3"  # type: ignore[index, call-overload]
    monkeypatch.setattr("llmbuild.manifest.measuring.host_target", lambda: "aarch64-linux-cpu")
    assert calibrating_platform()[0] == here


def test_a_machine_that_cannot_run_it_can_take_the_result() -> None:
    of = calibrated()
    lack = Lack((ToolchainError("this machine cannot calibrate weights"),))
    world = dataclasses.replace(observed(of), lacks={CALIBRATING: {"calibrate": lack}})
    tasks = {task.label: task for task in expand(of, world, KINDS, FIELDS)}
    assert tasks[CALIBRATE].lack is lack
    assert lack.keyed
