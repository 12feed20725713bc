"""The text task: a text that weights are measured on, or calibrated with."""

from __future__ import annotations

from pathlib import Path

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError

TEXT = "text.txt"
"""The text's name in the output."""


def run(job: Job) -> None:
    """Copy the file into the output.

    Raises InputError where it is not there, is no longer the one that was planned, or is not UTF-8.
    """
    from llmbuild.canonical import digest_bytes
    from llmbuild.quality.windows import read_text

    path = Path(str(job.hints["path"]))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError("the text cannot be read", where=str(path), why=error.strerror or str(error)) from error
    if digest_bytes(data) != job.params["sha256"]:
        raise InputError("the text has changed since it was looked at", where=str(path), fix="build again")
    read_text(data, str(path))
    (job.out / TEXT).write_bytes(data)
    job.progress(len(data), len(data), "bytes")


KIND = TaskKind(
    name="text",
    version=1,
    params=("sha256",),
    sources=("llmbuild.tasks.text",),
    tools=(),
    run=run,
)
