"""Choosing tasks on the command line."""

from __future__ import annotations

import pytest

from llmbuild.errors import UsageError
from llmbuild.plan.select import find, select
from tests.helpers.plans import project, tasks_of

TASKS = tasks_of(project(("smollm2", "qwen"), ("q4f32_1", "q0f16"), ("native", "web")))


def labels(**asked: list[str]) -> list[str]:
    return [task.label for task in select(TASKS, **asked)]


def test_nothing_asked_is_everything() -> None:
    assert select(TASKS) == TASKS


def test_a_label_brings_what_it_depends_on() -> None:
    assert labels(names=["link[smollm2, q4f32_1, native]"]) == [
        "fetch[smollm2]",
        "config[smollm2, q4f32_1]",
        "lower[smollm2, q4f32_1, native]",
        "link[smollm2, q4f32_1, native]",
    ]


def test_spaces_in_a_label_do_not_matter() -> None:
    assert labels(names=["quantize[qwen,q0f16]"]) == ["fetch[qwen]", "quantize[qwen, q0f16]"]


def test_a_pattern_and_a_kind() -> None:
    assert labels(names=["quantize[*q0f16]"]) == [
        "fetch[smollm2]",
        "quantize[smollm2, q0f16]",
        "fetch[qwen]",
        "quantize[qwen, q0f16]",
    ]
    assert {label.split("[")[0] for label in labels(names=["quantize"])} == {"fetch", "quantize"}


def test_a_platform_brings_its_libraries_and_their_weights() -> None:
    chosen = labels(platforms=["web"], models=["qwen"])
    assert chosen == [
        "fetch[qwen]",
        "quantize[qwen, q4f32_1]",
        "config[qwen, q4f32_1]",
        "lower[qwen, q4f32_1, web]",
        "link[qwen, q4f32_1, web]",
        "quantize[qwen, q0f16]",
        "config[qwen, q0f16]",
        "lower[qwen, q0f16, web]",
        "link[qwen, q0f16, web]",
    ]


def test_a_scheme_leaves_the_others_out() -> None:
    assert not [label for label in labels(schemes=["q0f16"]) if "q4f32_1" in label]


def test_names_within_a_model() -> None:
    assert labels(names=["quantize"], models=["qwen"], schemes=["q0f16"]) == ["fetch[qwen]", "quantize[qwen, q0f16]"]


@pytest.mark.parametrize(
    ("asked", "message", "fix"),
    [
        ({"models": ["smolm2"]}, "no model is named 'smolm2'", "did you mean 'smollm2'?"),
        ({"platforms": ["nativ"]}, "no platform is named 'nativ'", "did you mean 'native'?"),
        ({"schemes": ["q0f61"]}, "no quantization is named 'q0f61'", "did you mean 'q0f16'?"),
        ({"names": ["quantise"]}, "no task matches 'quantise'", "did you mean 'quantize'?"),
        (
            {"names": ["link[smollm2, q4f32_1, natve]"]},
            "no task matches 'link[smollm2, q4f32_1, natve]'",
            "did you mean 'link[smollm2, q4f32_1, native]'",
        ),
    ],
)
def test_unknown_names_get_a_suggestion(asked: dict[str, list[str]], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        select(TASKS, **asked)
    assert error.value.what == message
    assert error.value.fix is not None and error.value.fix.startswith(fix)


def test_find_wants_one_task() -> None:
    assert find(TASKS, "fetch[qwen]").label == "fetch[qwen]"
    with pytest.raises(UsageError, match="names 4 tasks"):
        find(TASKS, "quantize")
