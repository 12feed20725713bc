"""Libraries for GPUs as the pipeline leaves them: their scheduled functions, and whole ones that run on PoCL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbuild.models.registry import family
from llmbuild.quantization.layers import Kernels
from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.generic_library import only
from tests.helpers.tiny_library import TINY_LLAMA, chat_config

LINUX = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}
APPLE = {"kind": "llvm", "mtriple": "arm64-apple-macosx13.0.0"}
ANDROID = {"kind": "llvm", "mtriple": "aarch64-linux-android"}
WASM = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"}

TARGETS: Mapping[str, Mapping[str, Any]] = {
    "cuda": {
        "device": {
            "kind": "cuda",
            "arch": "sm_80",
            "max_num_threads": 1024,
            "max_threads_per_block": 1024,
            "max_shared_memory_per_block": 49152,
            "thread_warp_size": 32,
        },
        "host": LINUX,
    },
    "rocm": {
        "device": {"kind": "rocm", "mcpu": "gfx942", "max_threads_per_block": 256, "thread_warp_size": 64},
        "host": LINUX,
    },
    "metal": {
        "device": {
            "kind": "metal",
            "max_threads_per_block": 256,
            "max_num_threads": 256,
            "max_shared_memory_per_block": 32768,
            "thread_warp_size": 1,
        },
        "host": APPLE,
    },
    "opencl": {"device": {"kind": "opencl", "max_num_threads": 256, "max_threads_per_block": 256}, "host": LINUX},
    "adreno": {
        "device": {"kind": "opencl", "device": "adreno", "max_num_threads": 512, "max_threads_per_block": 512},
        "host": ANDROID,
    },
    "webgpu": {
        "device": {"kind": "webgpu", "max_num_threads": 256, "max_shared_memory_per_block": 32768},
        "host": WASM,
    },
}
"""Compile parts of targets by a short name."""

WIDE = {
    **TINY_LLAMA,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 320,
    "num_hidden_layers": 2,
}
"""A tiny model whose products are large enough for tensor cores: the rules of TVM leave 64 and less to others."""


def scheduled(name: str, scheme: str, functions: Sequence[str] | None = None) -> Any:
    """The module after scheduling, before it becomes VM code; only the named functions of the model where given."""
    return _passed(name, scheme, functions, "RewriteDataflowReshape")


def vm_code(name: str, scheme: str, functions: Sequence[str] | None = None, **plan: Any) -> Any:
    """The module after the whole pipeline, with further fields of the plan."""
    return _passed(name, scheme, functions, None, **plan)


def lower_objects(name: str, scheme: str, out: Path) -> Mapping[str, Any]:
    """The objects and metadata.json of the tiny model in `out`."""
    from llmbuild.compiler.lower import lower

    out.mkdir(parents=True, exist_ok=True)
    config, chosen = chat_config(WIDE, scheme), SCHEMES[scheme]
    wasm = name == "webgpu"
    return lower(config, chosen, {}, TARGETS[name], system_lib=wasm, system_lib_prefix="" if wasm else None, out=out)


def _passed(name: str, scheme: str, functions: Sequence[str] | None, end: str | None, **more: Any) -> Any:
    import tvm

    from llmbuild.compiler.lower import configure, metadata_record, resolve_target
    from llmbuild.compiler.passes.annotate import variable_bounds
    from llmbuild.compiler.pipeline import PassInputs, passes
    from llmbuild.compiler.reuse import directly
    from llmbuild.compiler.scripts import quick_scripts

    config = chat_config(WIDE, scheme)
    model_config = configure(config, {})
    device, target = resolve_target(TARGETS[name])
    model = export_some(
        family("llama"), model_config, SCHEMES[scheme], device.kernels().linear(target, None, directly), functions
    )
    record = metadata_record(config, model_config, SCHEMES[scheme], model)
    plan = PassInputs(device, target, model.kv_cache, variable_bounds(model_config), record, **more)
    every = passes(plan)
    count = next((i for i, step in enumerate(every) if step.info.name == end), len(every))
    settings = {"tirx.disable_cse_tir": True, "relax.backend.use_cuda_graph": plan.cuda_graph}
    with target, quick_scripts(), tvm.transform.PassContext(config=settings):
        return tvm.transform.Sequential(every[:count])(model.module)


def export_some(kind: Any, config: Any, scheme: Scheme, linear: Kernels, functions: Sequence[str] | None) -> Any:
    """A model with some kernels for its linear layers, and of its Relax functions only those that are named."""
    from llmbuild.models.build import export

    model = export(config, kind, scheme, linear)
    only(model.module, functions)
    return model
