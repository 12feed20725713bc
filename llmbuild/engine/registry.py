"""Finding a task kind by name without importing the others.

Further kinds come from the environment variable LLMBUILD_TASK_MODULES: dotted module names with commas between, each
of which has `KIND` or `KINDS` (a sequence).  Worker processes inherit it, so a kind is known wherever its task runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping

from llmbuild.canonical import Json
from llmbuild.engine.kind import TaskKind
from llmbuild.errors import UsageError, did_you_mean

KIND_NAMES = (
    "fetch",
    "inspect",
    "quantize",
    "config",
    "lower",
    "runtime",
    "link",
    "join",
    "package",
    "text",
    "calibrate",
)
"""The kinds of llmbuild itself; kind `x` is `llmbuild.tasks.x.KIND`."""

EXTRA_MODULES = "LLMBUILD_TASK_MODULES"


def load_kind(name: str) -> TaskKind:
    """The kind with this name.  Raises UsageError when there is none."""
    if name in KIND_NAMES:
        kind = importlib.import_module(f"llmbuild.tasks.{name}").KIND
        if not isinstance(kind, TaskKind):
            raise TypeError(f"llmbuild.tasks.{name}.KIND is not a TaskKind")
        return kind
    extra = {kind.name: kind for kind in _extra_kinds()}
    if name in extra:
        return extra[name]
    raise UsageError(f"no task kind '{name}'", fix=did_you_mean(name, [*KIND_NAMES, *extra]))


def wrong_part(kind: str, params: Mapping[str, Json], inputs: Mapping[str, bool]) -> str | None:
    """The first part of a recorded action that is not of its kind's shape; None where all are, or llmbuild has no such kind.

    `inputs` maps each to whether it is a directory.
    """
    if kind not in KIND_NAMES:
        return None
    wrong: str | None = importlib.import_module("llmbuild.tasks.shapes").wrong_part(kind, params, inputs)
    return wrong


def _extra_kinds() -> Iterator[TaskKind]:
    for module_name in filter(None, os.environ.get(EXTRA_MODULES, "").split(",")):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UsageError(
                "cannot import a module of task kinds", where=f"{EXTRA_MODULES}={module_name}", why=str(error)
            ) from error
        kinds = getattr(module, "KINDS", None)
        yield from (module.KIND,) if kinds is None else kinds
