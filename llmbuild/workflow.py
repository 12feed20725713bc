"""Commands that GitHub Actions reads in what a job prints: annotations of errors and warnings, and lines that are folded.

They are printed beside the messages for people where GITHUB_ACTIONS is "true".  Their syntax and escapes are defined in
https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_PLACE = re.compile(r"([^:\n]+):([0-9]+)(?=:|$)")
"""A file and a line at the beginning of an error's place: `buildfile.toml:12: models.smollm2.source`."""


def in_workflow() -> bool:
    """Whether this process is a step of a GitHub Actions workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotation(
    level: Literal["error", "warning"],
    what: str,
    *,
    where: str | None = None,
    why: str | None = None,
    fix: str | None = None,
    before: str = "",
) -> str:
    """A message that is shown in the list of the run, and beside the line of the file where it names an existing one.
    `before` goes before the place."""
    properties = _properties(where)
    place = "" if where is None else f"{where}: "
    lines = [f"{before}{place}{what}", *(f"{name}: {text}" for name, text in (("why", why), ("fix", fix)) if text)]
    head = f"{level} {properties}" if properties else level
    return f"::{head}::{_data(chr(10).join(lines))}"


def group(title: str, lines: Sequence[str]) -> str:
    """Lines under a title that unfolds them.  Nothing in them is a command, whatever a compiler or a server wrote there."""
    token = os.urandom(16).hex()
    return "\n".join([f"::group::{_data(title)}", f"::stop-commands::{token}", *lines, f"::{token}::", "::endgroup::"])


def _properties(where: str | None) -> str:
    found = None if where is None else _PLACE.match(where)
    file = where if found is None else found[1]
    if file is None or not os.path.isfile(file):  # noqa: PTH113 - a Path raises where a name is too long.
        return ""
    line = "" if found is None else f",line={found[2]}"
    return f"file={_property(_from_checkout(file))}{line}"


def _from_checkout(file: str) -> str:
    """The path from the root of the checkout, as GitHub requires it; a file outside keeps its whole path."""
    path, root = Path(file).absolute(), os.environ.get("GITHUB_WORKSPACE")
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else str(path)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
