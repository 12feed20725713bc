"""The runtime task: TVM's runtime for the browser as objects, which every library for browsers is linked with.

It depends on TVM, Emscripten and nothing of a model: a manifest has one, and it runs once for a version of TVM.
"""

from __future__ import annotations

from llmbuild.engine.kind import Job, TaskKind


def run(job: Job) -> None:
    """Write the runtime's objects.  `compiler` is the command of emcc that a target names, or None."""
    from llmbuild.emscripten.runtime import compile_runtime
    from llmbuild.programs.run import compiler_of

    compile_runtime(
        job.out,
        job.scratch,
        compiler_of(job.params),
        lambda done, total: job.progress(done, total, "objects"),
    )


KIND = TaskKind(
    name="runtime",
    version=1,
    params=("compiler",),
    sources=("llmbuild.tasks.runtime",),
    tools=("apache-tvm", "apache-tvm headers", "apache-tvm-ffi", "apache-tvm-ffi headers", "linker"),
    run=run,
    typical_seconds=120.0,
    typical_memory=1800 << 20,
)
