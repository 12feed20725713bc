"""Paths with `~` and variables: what they become, and what is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.pathtext import PathTextError, expand, has_variable, variables_of

ENVIRON = {"HOME": "/home/me", "MODELS": "/data/models", "N": "a b", "LOOP": "${MODELS}", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("models/a", "models/a"),
        ("~", "/home/me"),
        ("~/a", "/home/me/a"),
        ("~you/a", "~you/a"),
        ("a/~", "a/~"),
        ("${MODELS}/a", "/data/models/a"),
        ("a-${N}-${N}", "a-a b-a b"),
        ("$MODELS/a$", "$MODELS/a$"),
        ("$${MODELS}", "${MODELS}"),
        ("$$$${N}", "$${N}"),
        ("$$${N}", "$a b"),
        # What a variable holds is not looked at again.
        ("${LOOP}", "${MODELS}"),
    ],
)
def test_what_a_path_becomes(text: str, path: str) -> None:
    assert expand(text, ENVIRON) == path


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("${GONE}/a", "the variable GONE is not set"),
        ("${EMPTY}/a", "the variable EMPTY is empty"),
        ("${}", "'${}' is not a variable"),
        ("${a b}", "'${a b}' is not a variable"),
        ("${MODELS", "'${' is not a variable"),
        ("${MODELS:-/x}", "'${MODELS:-/x}' is not a variable"),
    ],
)
def test_what_cannot_be_expanded(text: str, what: str) -> None:
    with pytest.raises(PathTextError) as caught:
        expand(text, ENVIRON)
    assert str(caught.value) == what and caught.value.fix


def test_the_variables_of_a_path() -> None:
    assert variables_of("~/${A}/${B}/${A}") == ("A", "B", "HOME")
    assert variables_of("a/$${B}") == ()
    assert has_variable("${A}") and has_variable("${") and not has_variable("$${A}$")


@given(st.text())
def test_an_escaped_text_is_itself(text: str) -> None:
    escaped = text.replace("$", "$$")
    assert expand(f"./{escaped}", {}) == f"./{text}" and not has_variable(escaped)
