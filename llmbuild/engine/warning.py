"""Warnings, which stop nothing: a line on standard error, once in a process."""

from __future__ import annotations

import contextlib
import sys

from llmbuild.errors import LlmbuildError
from llmbuild.printable import printable
from llmbuild.workflow import annotation, in_workflow

_said: set[str] = set()


def warn(error: LlmbuildError, consequence: str) -> None:
    """Report what failed and what follows from it."""
    text = printable(": ".join(part for part in (error.where, error.what, error.why, consequence) if part))
    if text not in _said:
        _said.add(text)
        with contextlib.suppress(OSError, ValueError):
            print(f"warning: {text}", file=sys.stderr)
            if in_workflow():
                print(annotation("warning", text), file=sys.stderr)
