"""The link task: objects in, the library that a runtime loads out."""

from __future__ import annotations

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks.fields import read_fields
from llmbuild.tasks.prefix import fill


def run(job: Job) -> None:
    """Write `lib.<artifact>` from the objects of the lower task; `name` is what the file calls itself, where it does.

    A library for browsers has the objects of the runtime task as a second input.
    """
    from llmbuild import linkers

    artifact = str(job.params["artifact"])
    link = job.params["link"]
    assert isinstance(link, dict)
    prefix = str(job.params.get("system-lib-prefix") or "")
    if "library" in job.inputs:
        prefix = fill(prefix, model_type=read_fields(job.inputs["library"], {"model_type": str})["model_type"])
    objects = sorted(
        path for name in ("objects", "runtime") if name in job.inputs for path in job.inputs[name].glob("*.o")
    )
    out = job.out / linkers.output_name(artifact)
    job.progress(0, len(objects), "objects")
    linkers.link_objects(
        link, artifact, objects, out, scratch=job.scratch, prefix=prefix, name=str(job.params.get("name") or "")
    )
    job.progress(len(objects), len(objects), "objects")
    print(f"linked {len(objects)} objects with {linkers.identity(link, artifact)}: {out.stat().st_size} bytes")


KIND = TaskKind(
    name="link",
    version=1,
    params=("artifact", "link", "system-lib-prefix", "name"),
    sources=("llmbuild.tasks.link",),
    tools=("linker",),
    run=run,
)
