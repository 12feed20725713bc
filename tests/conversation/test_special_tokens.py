"""The special tokens that transformers' classes have by themselves."""

from __future__ import annotations

import inspect

import pytest

from llmbuild.conversation.special_tokens import CLASS_TOKENS, SPECIAL_NAMES


@pytest.mark.parametrize("name", CLASS_TOKENS)
def test_the_defaults_are_those_of_the_installed_classes(name: str) -> None:
    import transformers

    parameters = inspect.signature(getattr(transformers, name).__init__).parameters.values()
    real = {one.name: one.default for one in parameters if one.name in SPECIAL_NAMES}
    assert {key: str(value) for key, value in real.items() if isinstance(value, str)} == CLASS_TOKENS[name]
