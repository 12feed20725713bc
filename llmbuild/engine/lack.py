"""Why a task cannot run: what it needs and a machine does not have, or what it would refuse."""

from __future__ import annotations

from dataclasses import dataclass

from llmbuild.errors import LlmbuildError, as_one


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a task needs and this machine lacks: the `errors` name it, and how to get it.

    `tool` is the missing tool of the task's key, "" where none of the key is missing.  The key then has `locked`, the tool's
    name in the lock file; where that is None too, the key is unknown.  `source` is True where the missing thing is what the
    task fetches.  `refused` is True where nothing is missing: the task would refuse its input, on every machine.
    """

    errors: tuple[LlmbuildError, ...]
    tool: str = ""
    locked: str | None = None
    source: bool = False
    refused: bool = False

    @property
    def keyed(self) -> bool:
        """Whether the task's key is known all the same."""
        return not self.tool or self.locked is not None

    @property
    def error(self) -> LlmbuildError:
        """All errors as one."""
        return as_one(self.errors)
