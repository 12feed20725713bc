"""The fetch task: the needed files of a checkpoint or an adapter, checked against what the plan promises."""

from __future__ import annotations

from llmbuild.engine.kind import Job, TaskKind


def run(job: Job) -> None:
    """Put the source's files into the output, flat; a GGUF file is named model.gguf (its parts have their numbers).

    Large local files are not copied.
    """
    from llmbuild.sources import fetch

    fetch(job.params, job.hints, job.out, job.scratch, job.progress, job.keep)
    if "unread" in job.hints:
        job.note(f"{job.hints['unread']} is not read, since safetensors come first; source-format chooses the format")


KIND = TaskKind(
    name="fetch",
    version=1,
    params=("source", "files"),
    sources=("llmbuild.tasks.fetch",),
    tools=(),
    run=run,
    # Proxies, certificates, tokens and the configuration of pip.
    whole_environment=True,
)
