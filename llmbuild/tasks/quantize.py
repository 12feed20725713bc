"""The quantize task: a checkpoint's weights, quantized and cut into shards, with their tensor index.

Depends on weights, config.json, what inspect found and the scheme; never on a tokenizer, a template or a platform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks.facts import with_facts
from llmbuild.tasks.known_inputs import known_inputs
from llmbuild.tasks.weights import architecture_of, configuration_of, open_weights, quantization_of, with_zero_biases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmbuild.quantization.ports import PlainParameter


def run(job: Job) -> None:
    """Write params_shard_N.bin, tensor-cache.json, ndarray-cache.json and, with rounded float32, tensor-cache-b16.json.

    An input "adapter" (a PEFT LoRA adapter) is merged first; the method "calibrated" goes by an input "importance".  The hint
    "threads" bounds the threads; it changes no byte.
    """
    from llmbuild.quantization.awq import awq_tensors
    from llmbuild.quantization.convert import convert
    from llmbuild.quantization.overrides import check_overrides, tied_overrides
    from llmbuild.quantization.scheme import Scheme

    params: Mapping[str, Any] = job.params
    scheme = Scheme.from_json({**params["scheme"], "method": params["method"]})
    threads = job.hints.get("threads")
    with open_weights(job, packed=scheme.comes_packed, note=job.note) as checkpoint:
        if scheme.quantized and checkpoint.packed_by is not None:
            job.note(
                f"the weights were quantized before ({checkpoint.packed_by}); {scheme.name} quantizes them once more"
            )
        architecture = architecture_of(job, checkpoint.config)
        config = configuration_of(job, architecture, with_facts(job, checkpoint.config))
        parameters: Sequence[PlainParameter] = architecture.parameters(config)
        check_overrides(scheme.name, scheme.overrides, parameters)
        for text in tied_overrides(scheme.overrides, parameters):
            job.note(text)
        complete = with_zero_biases(checkpoint, parameters, job.note)
        if scheme.comes_packed:
            parameters = awq_tensors(parameters, quantization_of(job, checkpoint.config), scheme)
        with known_inputs(job, architecture, config) as inputs:
            totals = convert(
                complete,
                parameters,
                lambda name: architecture.unused(name) or checkpoint.says_nothing(name),
                scheme,
                job.out,
                float32=params["float32"],
                threads=threads if isinstance(threads, int) else None,
                resume=job.resume,
                progress=lambda done, total: job.progress(done, total, "bytes"),
                inputs=inputs,
            )
    print(
        f"{scheme.name}: {totals.tensors} tensors, {totals.nbytes / 1e6:.1f} MB, "
        f"{8 * totals.nbytes / max(1, totals.parameters):.3f} bits per parameter"
    )


KIND = TaskKind(
    name="quantize",
    version=1,
    params=("scheme", "method", "model-type", "ignore-keys", "source-format", "float32", "architecture"),
    sources=("llmbuild.tasks.quantize",),
    tools=("numpy", "ml_dtypes", "gguf", "llmbuild family"),
    run=run,
    resumable=True,
    in_place=True,
    typical_seconds=30.0,
    typical_memory=1 << 30,
)
