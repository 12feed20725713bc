"""The files of sources as the user wrote the sources, in the place of the names that tasks see.

A task sees `checkpoint/config.json`, whatever the source is; the user knows `models/tiny/config.json`, or `hf:org/tiny`.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path

from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.labels import split_label
from llmbuild.engine.task import Task
from llmbuild.manifest.project import Project
from llmbuild.plan.observed import Observed
from llmbuild.sources.advice import fitting
from llmbuild.sources.kind import Observation, Source
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.select import SMALL_FILES


def written(source: Source, observation: Observation | None, file: str = "") -> str:
    """A source, or a file of what its fetch puts out, as the user knows it."""
    kind = source_kind(source.kind)
    if file.endswith(".gguf"):
        # Where it comes from it has a name of its own.
        place = None if observation is None or kind.remote else observation.hints.get("path")
        file = "" if place is None else Path(str(place)).name
    return kind.written(source.spec, file)


def reworded(project: Project, observed: Observed, task: Task, failure: TaskFailure) -> TaskFailure:
    """A failure of a task with the user's names of the files that it read from sources."""
    model = project.models.get(task.model)
    if model is None:
        return failure
    for name, ref in task.inputs.items():
        kind, names = split_label(ref.task)
        adapter = len(names) > 1
        source = model.adapter if adapter else model.source
        if kind != "fetch" or source is None:
            continue
        observation = (observed.adapters if adapter else observed.sources).get(model.name)
        failure = _renamed(failure, name, partial(written, source, observation), bare=not adapter)
        if not adapter:
            failure = dataclasses.replace(failure, fix=fitting(failure.fix, remote=source_kind(source.kind).remote))
    return failure


def _renamed(failure: TaskFailure, directory: str, name: partial[str], *, bare: bool) -> TaskFailure:
    """A failure with the user's names for `directory` and the files in it; with `bare` also for a file at the beginning of
    its place, or of its sentence, that has no directory before it."""
    inside = re.compile(rf"(?<![\w/.:-]){re.escape(directory)}/([^\s:'\",]+)")

    def put(text: str) -> str:
        return inside.sub(lambda found: name(found[1]), text)

    where, why, fix = (None if text is None else put(text) for text in (failure.where, failure.why, failure.fix))
    what = put(failure.what)
    place, colon, key = (where or "").partition(": ")
    file, line, number = place.partition(":")
    if place == directory:
        where = f"{name()}{colon}{key}"
    elif bare and file in SMALL_FILES:
        where = f"{name(file)}{line}{number}{colon}{key}"
    elif bare and where is None and (first := what.partition(" ")[0]) in SMALL_FILES:
        where = name(first)
    if (
        where is not None
        and (first := what.partition(" ")[0]) in SMALL_FILES
        and where.endswith((f"/{first}", f" {first}"))
    ):
        # The place has said it.
        what = what.removeprefix(f"{first} ")
    return dataclasses.replace(failure, what=what, where=where, why=why, fix=fix)
