"""Choosing tasks on the command line."""

from __future__ import annotations

import dataclasses

import pytest

from llmbuild.errors import UsageError
from llmbuild.plan.narrow import narrow
from llmbuild.plan.select import asked, find, select
from tests.helpers.plans import edit_platform, project, tasks_of

PROJECT = project(("smollm2", "qwen"), ("q4f32_1", "q0f16"), ("native", "web"))
TASKS = tasks_of(PROJECT)


def labels(*names: str) -> list[str]:
    return [task.label for task in select(TASKS, names)]


def narrowed(**names: list[str]) -> list[str]:
    return [task.label for task in tasks_of(narrow(PROJECT, **names))]


def test_nothing_asked_is_everything() -> None:
    assert select(TASKS) == TASKS
    assert narrow(PROJECT) == PROJECT


def test_a_label_brings_what_it_depends_on() -> None:
    assert labels("link[smollm2, q4f32_1, native]") == [
        "fetch[smollm2]",
        "inspect[smollm2]",
        "config[smollm2, q4f32_1]",
        "lower[smollm2, q4f32_1, native]",
        "link[smollm2, q4f32_1, native]",
    ]


def test_spaces_in_a_label_do_not_matter() -> None:
    assert labels("quantize[qwen,q0f16]") == ["fetch[qwen]", "inspect[qwen]", "quantize[qwen, q0f16]"]


def test_a_pattern_and_a_kind() -> None:
    assert labels("quantize[*q0f16]") == [
        "fetch[smollm2]",
        "inspect[smollm2]",
        "quantize[smollm2, q0f16]",
        "fetch[qwen]",
        "inspect[qwen]",
        "quantize[qwen, q0f16]",
    ]
    assert {label.split("[")[0] for label in labels("quantize")} == {"fetch", "inspect", "quantize"}
    assert [task.label for task in asked(TASKS, ["fetch[qw?n]"])] == ["fetch[qwen]"]


def test_a_platform_brings_its_libraries_and_their_weights() -> None:
    assert narrowed(platforms=["web"], models=["qwen"]) == [
        "fetch[qwen]",
        "inspect[qwen]",
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
    assert not [label for label in narrowed(schemes=["q0f16"]) if "q4f32_1" in label]


@pytest.mark.parametrize(
    ("names", "message", "fix"),
    [
        ({"models": ["smolm2"]}, "no model is named 'smolm2'", "did you mean 'smollm2'?"),
        ({"platforms": ["nativ"]}, "no platform is named 'nativ'", "did you mean 'native'?"),
        ({"schemes": ["q0f61"]}, "no quantization is named 'q0f61'", "did you mean 'q0f16'?"),
    ],
)
def test_unknown_parts_get_a_suggestion(names: dict[str, list[str]], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        narrow(PROJECT, **names)
    assert (error.value.what, error.value.fix) == (message, fix)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("quantise", "did you mean 'quantize'"),
        ("link[smollm2, q4f32_1, natve]", "did you mean 'link[smollm2, q4f32_1, native]'"),
        ("qwen", "'*qwen*' are the "),
        ("native", "'*native*' are the "),
        ("zzz", "`llmbuild plan` lists every task"),
    ],
)
def test_unknown_tasks_get_a_suggestion(name: str, fix: str) -> None:
    with pytest.raises(UsageError, match="no task matches") as error:
        select(TASKS, [name])
    assert error.value.fix is not None and error.value.fix.startswith(fix)


def test_an_empty_intersection_is_an_error() -> None:
    few = dataclasses.replace(PROJECT, matrix=PROJECT.matrix[:1])
    with pytest.raises(UsageError, match="no library of this model"):
        narrow(few, models=["qwen"])


def test_find_wants_one_task() -> None:
    assert find(TASKS, "fetch[qwen]").label == "fetch[qwen]"
    with pytest.raises(UsageError, match="names 4 tasks"):
        find(TASKS, "quantize")


def test_a_library_s_record_goes_where_its_library_goes() -> None:
    """Never alone: a record beside another library than its own tells what is not true."""
    gpu = edit_platform(PROJECT, "web", compile={"device": {"kind": "cuda"}, "host": {"mtriple": "x86_64-web"}})
    tasks = tasks_of(gpu)

    def installed(*names: str) -> list[str]:
        return [one.dest for task in select(tasks, names) for one in task.installs if "/libs/" in one.dest]

    library = "dist/libs/qwen-q0f16-web.so"
    assert installed("lower[qwen, q0f16, web]") == []
    assert installed("link[qwen, q0f16, web]") == [f"{library}.json", library]
    assert installed("lower", "link[qwen, q0f16, web]") == [f"{library}.json", library]
