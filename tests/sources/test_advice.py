"""Advice that fits where a checkpoint is from."""

from __future__ import annotations

import re

from llmbuild.sources.advice import fitting
from tests.helpers.messages import templates


def test_nobody_is_told_to_fetch_what_lies_here_or_was_fetched_whole() -> None:
    """The words of those who read a file, who do not know where it is from, are all replaced."""
    again = {one.text for one in templates() if re.search(r"\bfetch .*again", one.text) and "--offline" not in one.text}
    assert again
    for fix in again:
        for remote, instead in ((True, "name another source"), (False, "from where you have it from")):
            said = fitting(fix, remote=remote)
            assert said is not None and instead in said and "fetch the" not in said, fix
