"""From a chat configuration to the objects of a model library.

The result is a directory with `lib0.o` to `lib3.o` and an object for each level of a CPU (the host's code), `devc.o` (VM bytecode
and device modules) and `metadata.json` (the library's own record, which can then be read without loading the library).  No linker
runs here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import tvm

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.compiler import codegen, pipeline
from llmbuild.compiler.checks import unchecked
from llmbuild.compiler.collection import uncollected
from llmbuild.compiler.devices import find_device, prepare, require
from llmbuild.compiler.devices.device import Device
from llmbuild.compiler.passes.annotate import variable_bounds
from llmbuild.compiler.passes.own_errors import own_errors
from llmbuild.compiler.pipeline import PassInputs
from llmbuild.compiler.reuse import Kept, Reuse, described
from llmbuild.compiler.scripts import quick_scripts
from llmbuild.errors import InputError, ToolchainError, UsageError, Where
from llmbuild.models import build, registry
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.family import ModelConfig, Overrides
from llmbuild.models.tapped import TAPS
from llmbuild.quantization.layers import GenericKernels
from llmbuild.quantization.overrides import check_overrides
from llmbuild.quantization.scheme import Scheme
from llmbuild.targets.compile_part import device_kind


def resolve_target(compile_part: Mapping[str, Json]) -> tuple[Device, Any]:
    """The device kind and TVM's target from the compile part of a resolved target.

    The device is "cpu", or the table of one of TVM's kinds that a target file resolves to.
    """
    device, host = compile_part["device"], compile_part["host"]
    if not isinstance(host, Mapping):
        raise UsageError("the target has no host table", fix='give it a host, such as {kind = "llvm", mtriple = "…"}')
    if device != "cpu" and not isinstance(device, Mapping):
        raise UsageError(f"'{device}' is no device kind", fix='write "cpu" or a table with a kind')
    kind = find_device(device_kind(compile_part))
    try:
        return kind, tvm.target.Target(kind.target(_plain(device) if isinstance(device, Mapping) else {}, _plain(host)))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError("TVM refuses the target", why=_last_line(error)) from error


@uncollected()
@quick_scripts()
@unchecked()
def lower(
    config: Mapping[str, Json],
    scheme: Scheme,
    overrides: Mapping[str, Json],
    compile_part: Mapping[str, Json],
    *,
    system_lib: bool,
    system_lib_prefix: str | None,
    out: Path,
    stock: Collection[str] = (),
    cuda_graph: bool = False,
    activations: str | None = None,
    dump: Path | None = None,
    own: DecoderFamily | None = None,
    kept: Kept | None = None,
    taps: bool = False,
) -> Mapping[str, Any]:
    """Compile and write the objects into `out`; returns the metadata record.

    `config` has the fields of mlc-chat-config.json that compilation reads.  With `system_lib` the objects register
    themselves under the prefix when the program starts (for archives); otherwise they are for a shared object.
    `stock` names the parts that a CPU library leaves to TVM ("linears", "attention"): benchmarks compare with it.  With
    `cuda_graph` a CUDA library records its steps as CUDA graphs; on other devices it has no meaning.  `activations` says how a
    CPU library rounds the input of products with packed weights (`kernels.cpu.linear.PLANES`), None for not at all.  The
    module at each stage goes into the directory `dump`, if any.  `own` is the family where it is none of llmbuild.  `kept` has
    results of earlier lowerings by this llmbuild, this TVM and this compiler for the device.  With `taps` the library returns the
    inputs of linear layers and does nothing else (`models.tapped`); its record lists them as "linear_inputs".  Raises
    InputError for a configuration that no library can be made from, ToolchainError when the device's compiler is missing or
    fails, or TVM's attention is another, and StoreError where the module cannot be dumped.
    """
    device, target = resolve_target(compile_part)
    beside_any = device.beside_any_host(target)
    of_device = {name: value for name, value in compile_part.items() if name != "host"}
    reuse = Reuse(kept, compile_part, [of_device, described(beside_any)])
    require_code_generator(target.kind.name)
    family = own or registry.family(str(config["model_type"]))
    model_config = configure(config, overrides, family)
    print(
        f"building {family.model_type} in {scheme.name} for {device.name}: {json.dumps(dict(compile_part), sort_keys=True)}"
    )
    check_overrides(scheme.name, scheme.overrides, family.parameters(model_config))
    linear = GenericKernels() if "linears" in stock else device.kernels().linear(beside_any, activations, reuse.kernel)
    model = build.export(model_config, family, scheme, linear, taps=taps)
    device.require_attention(model.kv_cache, target)
    metadata = metadata_record(config, model_config, scheme, model)
    if linear.activations is not None:
        metadata["activations"] = linear.activations
    if model.inputs is not None:
        metadata[TAPS] = list(model.inputs)
    module = model.module
    plan = PassInputs(
        device,
        beside_any,
        model.kv_cache,
        variable_bounds(model_config),
        metadata,
        frozenset(stock),
        cuda_graph and device.records_graphs,
        dump,
    )
    if system_lib:
        # The attribute alone makes a system library.  relax.build's own flag would read it back, which fails in this
        # release of TVM for texts of fewer than 8 bytes.
        module = module.with_attrs({pipeline.PREFIX: system_lib_prefix or ""})
    # Common subexpression elimination leaves variables undefined in host code (this release of TVM).
    settings = {"tirx.disable_cse_tir": True, "relax.backend.use_cuda_graph": plan.cuda_graph}
    with prepare(compile_part), beside_any, own_errors(), tvm.transform.PassContext(config=settings):
        module = pipeline.run(
            plan, module, described([model.spec, scheme, activations, *([TAPS] if taps else [])]), reuse
        )
        codegen.write_objects(module, target, beside_any, reuse, out, lambda path: require(compile_part, path))
    require(compile_part, out / "devc.o")
    (out / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    for name, size in metadata["memory_usage"].items():
        print(f"memory of {name}: {size / 2**20:.1f} MiB")
    return metadata


def require_code_generator(device: str) -> None:
    """Raise ToolchainError where this build of TVM writes no code for the device kind."""
    if tvm.get_global_func(f"target.build.{device}", allow_missing=True) is None:
        raise ToolchainError(
            f"this build of TVM writes no code for {device}",
            why="it was built without that code generator, as the wheels on PyPI are for vulkan",
            fix=f"install a TVM of the same release that was built with {device.upper()}",
        )


def configure(
    config: Mapping[str, Json], overrides: Mapping[str, Json], family: DecoderFamily | None = None
) -> ModelConfig:
    """The configuration of a family, or of the one that the chat configuration names, whose top-level fields win over
    `model_config`'s."""
    inner = config.get("model_config")
    if not isinstance(inner, Mapping):
        raise InputError("the configuration has no model_config", where=Where(CHAT_CONFIG, key="model_config"))
    known = {field.name for field in fields(Overrides)}
    unknown = set(overrides) - known
    if unknown:
        raise UsageError(f"unknown override '{min(unknown)}'", fix=f"one of {', '.join(sorted(known))}")
    merged = dict(inner) | {key: config[key] for key in inner if key in config}
    return (family or registry.family(str(config["model_type"]))).restore(merged, Overrides(**overrides))  # type: ignore[arg-type]


def metadata_record(
    config: Mapping[str, Json], model_config: ModelConfig, scheme: Scheme, model: build.ExportedModel
) -> dict[str, Any]:
    """The `_metadata` record, in MLC's order of fields with ours behind them, without the memory usage that the pipeline adds."""
    active = config.get("active_vocab_size")
    layout = model.kv_cache
    return {
        "model_type": config["model_type"],
        "quantization": scheme.name,
        "context_window_size": model_config.context_window_size,
        "sliding_window_size": model_config.sliding_window_size,
        "attention_sink_size": model_config.attention_sink_size,
        "prefill_chunk_size": model_config.prefill_chunk_size,
        "tensor_parallel_shards": model_config.tensor_parallel_shards,
        "pipeline_parallel_stages": getattr(model_config, "pipeline_parallel_stages", 1),
        "disaggregation": layout.disaggregation,
        "kv_state_kind": "kv_cache",
        "max_batch_size": model_config.max_batch_size,
        "active_vocab_size": active if isinstance(active, int) and active > 0 else None,
        "model_task": config.get("model_task") or "chat",
        "params": [
            {
                "name": name,
                "shape": [size if isinstance(size, int) else size.name for size in parameter.shape],
                "dtype": str(parameter.dtype),
                "preprocs": [],
                "pipeline_stages": [0],
            }
            for name, parameter in model.params
        ],
        "kv_cache": {
            "num_hidden_layers": layout.num_hidden_layers,
            "num_attention_heads": layout.num_attention_heads,
            "num_key_value_heads": layout.num_key_value_heads,
            "head_dim": layout.head_dim,
        },
        **scheme.record(),
    }


def _plain(value: Mapping[str, Json]) -> dict[str, Any]:
    return {key: _plain(item) if isinstance(item, Mapping) else item for key, item in value.items()}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
