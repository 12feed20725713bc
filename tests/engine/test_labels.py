"""Labels are made and read by one module."""

from __future__ import annotations

import pytest

from llmbuild.engine.labels import make_label, split_label


@pytest.mark.parametrize("parts", [("fetch", "a"), ("fetch", "a", "adapter"), ("runtime", "ccache emcc")])
def test_a_label_is_split_into_what_it_was_made_of(parts: tuple[str, ...]) -> None:
    assert split_label(make_label(*parts)) == (parts[0], parts[1:])


def test_a_text_without_brackets_is_all_kind() -> None:
    assert split_label("plan") == ("plan", ())
