"""The variables of the environment that stand in for options: LLMBUILD_JOBS, LLMBUILD_OFFLINE and LLMBUILD_LOCKED.

An option goes before its variable, and that before the user's settings.  An empty variable counts as unset.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from llmbuild.errors import UsageError

MOST_JOBS = 1024
"""Each task at a time is a process and a thread that waits for it."""

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def flag(name: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a variable switches something on; False where it is unset.  Raises UsageError for another word."""
    text = (os.environ if environ is None else environ).get(name, "")
    if text and text.lower() not in _WORDS:
        raise UsageError(
            f"${name} is neither true nor false: '{text[:40]}'", fix=f"set {name}=1, or {name}=0, or unset it"
        )
    return _WORDS.get(text.lower(), False)


def jobs(environ: Mapping[str, str] | None = None) -> int | None:
    """The number of tasks at a time of LLMBUILD_JOBS; None where it is unset.  Raises UsageError for what is no such number."""
    return whole_number("LLMBUILD_JOBS", MOST_JOBS, environ)


def whole_number(name: str, most: int, environ: Mapping[str, str] | None = None) -> int | None:
    """The number from 1 to `most` of a variable; None where it is unset.  Raises UsageError for what is no such number."""
    text = (os.environ if environ is None else environ).get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise UsageError(
            f"${name} must be a whole number from 1 to {most}, not '{text[:40]}'", fix=f"set {name}=4, or unset it"
        )
    return int(text)
