"""The join task: the archives of several models in, one archive that an application links out."""

from __future__ import annotations

from llmbuild.engine.kind import Job, TaskKind

OUTPUT = "lib.a"
"""The joined archive."""


def run(job: Job) -> None:
    """Write `lib.a` from the archives of link tasks.

    `libraries` maps the name of each input to the library's name, for errors.
    """
    from llmbuild.linkers.join import join_archives

    names = job.params["libraries"]
    assert isinstance(names, dict)
    archives = {str(name): job.inputs[source] / "lib.tar" for source, name in names.items()}
    job.progress(0, len(archives), "archives")
    join_archives(archives, job.out / OUTPUT)
    job.progress(len(archives), len(archives), "archives")
    print(f"joined {len(archives)} archives: {(job.out / OUTPUT).stat().st_size} bytes")


KIND = TaskKind(
    name="join",
    version=1,
    params=("libraries",),
    sources=("llmbuild.tasks.join",),
    tools=(),
    run=run,
)
