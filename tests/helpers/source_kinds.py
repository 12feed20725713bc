"""A test kind with a source, found through LLMBUILD_TASK_MODULES."""

from __future__ import annotations

from llmbuild.engine.kind import Job, TaskKind

MODULE = "tests.helpers.source_kinds"


def _obtain(job: Job) -> None:
    for name, text in job.params["files"].items():
        (job.out / name).write_text(text)


KINDS = (TaskKind("obtain", 1, ("files", "source"), (), (), _obtain),)
