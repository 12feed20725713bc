"""The lower task: a model's configuration, a scheme and a target in; the objects of its library out."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks.fields import read_fields
from llmbuild.tasks.own import own_architecture
from llmbuild.tasks.prefix import fill

COMPILE_TYPES: Mapping[str, type] = {
    "model_type": str,
    "quantization": str,
    "model_config": dict,
    "vocab_size": int,
    "context_window_size": int,
    "sliding_window_size": int,
    "prefill_chunk_size": int,
    "attention_sink_size": int,
    "tensor_parallel_shards": int,
    "pipeline_parallel_stages": int,
    "active_vocab_size": int,
    "model_task": str,
}
COMPILE_FIELDS = tuple(COMPILE_TYPES)
"""What compilation reads of mlc-chat-config.json, and nothing else: sampling values and templates do not reach a library."""


def run(job: Job) -> None:
    """Write the kernels' objects (lib0.o to lib3.o, and one for each level of a CPU), devc.o and metadata.json.

    The last contains the library's `_metadata` record, and what an application needs besides: `system_lib_prefix`, by which it
    finds a library that it linked, and `requires`, the features that the device must have.
    """
    import json

    import llmbuild.compiler.import_tvm  # noqa: F401 - before what imports TVM.
    from llmbuild.compiler.lower import lower
    from llmbuild.compiler.webllm import refusals
    from llmbuild.quantization.scheme import Scheme
    from llmbuild.targets.compile_part import device_kind

    params = job.params
    scheme, overrides, target = params["scheme"], params["overrides"], params["target"]
    assert isinstance(scheme, dict) and isinstance(overrides, dict) and isinstance(target, dict)
    opt = params["opt"] or {}
    assert isinstance(opt, dict)
    config = read_fields(job.inputs["config"], COMPILE_TYPES)
    template = params["system-lib-prefix"]
    prefix = None if template is None else fill(str(template), model_type=str(config["model_type"]))
    job.progress(0, 1, "libraries")
    metadata = lower(
        config,
        Scheme.from_json(scheme),
        overrides,
        target,
        system_lib=bool(params["system-lib"]),
        system_lib_prefix=prefix,
        out=job.out,
        cuda_graph=opt.get("cudagraph") is True,
        activations=None if params["activations"] is None else str(params["activations"]),
        dump=job.dump,
        own=own_architecture(job),
        kept=job.intermediates,
        taps=bool(params["taps"]),
    )
    if device_kind(target) == "webgpu":
        for text in refusals(config, metadata):
            job.note(text)
    beside = {"system_lib_prefix": prefix or None, "requires": params["requires"] or None}
    record = {**metadata, **{key: value for key, value in beside.items() if value is not None}}
    (job.out / "metadata.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    asked = sorted(name for name, value in opt.items() if value not in (False, "NONE") and name != "cudagraph")
    if asked:
        print(f"optimization flags without effect, for this build of TVM has no such library: {', '.join(asked)}")
    job.progress(1, 1, "libraries")


KIND = TaskKind(
    name="lower",
    version=1,
    params=(
        "scheme",
        "overrides",
        "target",
        "opt",
        "activations",
        "system-lib-prefix",
        "system-lib",
        "requires",
        "taps",
        "architecture",
    ),
    sources=("llmbuild.tasks.lower",),
    tools=("apache-tvm", "apache-tvm python", "apache-tvm-ffi", "apache-tvm-ffi python", "numpy", "llmbuild family"),
    run=run,
    dumps=True,
    intermediates=True,
    preload=("llmbuild.compiler.import_tvm", "llmbuild.compiler.lower"),
    typical_seconds=30.0,
    typical_memory=1 << 30,
)
