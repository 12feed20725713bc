"""Every token of a text but the first is predicted once, from windows no longer than the context."""

from __future__ import annotations

import pytest

from llmbuild.errors import InputError
from llmbuild.quality.windows import WINDOW, read_text, windows


@pytest.mark.parametrize("prefix", [[], [7], [7, 8]])
@pytest.mark.parametrize("context", [16, 4096])
@pytest.mark.parametrize("count", [2, 15, 16, 17, 1500])
def test_every_token_but_the_first_is_a_target_once(count: int, context: int, prefix: list[int]) -> None:
    tokens = list(range(100, 100 + count))
    found = list(windows(tokens, prefix, context))
    assert [target for one in found for target in one.targets] == tokens[1:]
    for one in found:
        assert len(one.tokens) <= min(WINDOW, context)
        assert list(one.tokens[: one.prefix]) == prefix
        assert [token + 1 for token in one.tokens[one.prefix :]] == list(one.targets)
        assert tokens[one.start] == one.targets[0]


def test_a_text_that_is_not_utf_8_is_refused_with_its_place() -> None:
    assert read_text("\ufeffé".encode(), "a.txt") == "é"
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read_text(b"ab\xff", "a.txt")
    assert caught.value.why == "byte 2 belongs to no character"
