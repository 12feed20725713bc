"""Lines at a width: paths and labels stay whole."""

from __future__ import annotations

import pytest

from llmbuild.errors import UsageError
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style
from llmbuild.report.wrapping import wrap

LABEL = "lower[smollm2, q4f32_1, x86_64-linux-cpu]"


def test_a_label_is_not_broken_at_its_blanks() -> None:
    text = f"context-window-size 2048 -> 4096, which comes from {LABEL}"
    assert wrap(text, 80) == ["context-window-size 2048 -> 4096, which comes from", LABEL]
    assert wrap(text, 80, "  ", "    ") == ["  context-window-size 2048 -> 4096, which comes from", f"    {LABEL}"]


def test_a_label_that_is_longer_than_a_line_is_broken_between_words() -> None:
    assert wrap(f"run {LABEL}", 30) == ["run lower[smollm2, q4f32_1,", "x86_64-linux-cpu]"]


@pytest.mark.parametrize("width", range(40, 121))
def test_names_are_whole_at_every_width(width: int) -> None:
    names = ["dist/smollm2-q4f32_1-MLC/mlc-chat-config.json", "'/home/a user/models/my model.gguf'", "'no-path here'"]
    lines = wrap("a file of the results, " + " and ".join([*names, LABEL]) + ", is not there", width)
    assert all(len(line) <= max(width, len(names[0])) for line in lines)
    for name in (names[0], *([names[1]] if width >= len(names[1]) else []), *([LABEL] if width >= len(LABEL) else [])):
        assert any(name in line for line in lines), (name, lines)
    assert " ".join(lines).split() == f"a file of the results, {' and '.join([*names, LABEL])}, is not there".split()


def test_the_place_of_an_error_stays_on_a_line_where_it_fits() -> None:
    error = UsageError("the checkpoint has no config.json and no tokenizer", where="/home/a user/my models/a model")
    assert render_error(error, Style(60)) == (
        "error: /home/a user/my models/a model: the checkpoint has no\n  config.json and no tokenizer"
    )
    command = UsageError("failed", where="cc " + " ".join(f"-I{number}" for number in range(30)))
    assert all(len(line) <= 60 for line in render_error(command, Style(60)).splitlines())


@pytest.mark.parametrize("width", [60, 80])
def test_what_lies_between_two_names_is_broken(width: int) -> None:
    for text in (
        "package 'server' would be in dist/model-q4f32_1-MLC, where the files of model 'model' in q4f32_1 are",
        "the user's own files lie in dist/model-q4f32_1-MLC, and package 'server' would replace the package's own ones",
    ):
        first, second = wrap(text, width)
        assert width - 20 < len(first) <= width
        assert f"{first} {second}" == text


def test_an_empty_text_is_one_line() -> None:
    assert wrap("", 80, "  ") == [""]
