"""Advice that fits where a checkpoint is from."""

from __future__ import annotations

import re

import pytest

from llmbuild.sources.advice import fitting
from tests.helpers.messages import templates

AGAIN = sorted({one.text for one in templates() if re.search(r"\bfetch .*again", one.text)} - {""})


@pytest.mark.parametrize("fix", [one for one in AGAIN if "--offline" not in one])
def test_nobody_is_told_to_fetch_what_lies_here_or_was_fetched_whole(fix: str) -> None:
    """The words of those who read a file, who do not know where it is from, are all replaced."""
    for remote, instead in ((True, "name another source"), (False, "from where you have it from")):
        said = fitting(fix, remote=remote)
        assert said is not None and instead in said and "fetch the" not in said
