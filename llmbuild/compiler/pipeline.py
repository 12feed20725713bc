"""The compilation pipeline: one list of passes, from the exported module to VM code.

What runtimes call on GPUs alone (sampling on the device) has no CPU form and is not part of a CPU library, as in MLC's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from llmbuild.compiler.passes.annotate import AnnotateForMemoryPlanning
from llmbuild.compiler.passes.cuda_graph import AnnotateForCudaGraph, RewriteForCudaGraph
from llmbuild.compiler.passes.embedding_allocator import AttachEmbeddingAllocator
from llmbuild.compiler.passes.kv_cache import AttachKVCache
from llmbuild.compiler.passes.logits import AttachLogitProcessors
from llmbuild.compiler.passes.metadata import AttachMetadata
from llmbuild.compiler.passes.row_moves import AttachRowMoves
from llmbuild.compiler.passes.sampling import AttachSampling
from llmbuild.compiler.passes.shape_functions import OrderShapeFunctions
from llmbuild.compiler.passes.softmax import AttachSoftmaxWithTemperature
from llmbuild.compiler.passes.symbols import AttachSymbols
from llmbuild.compiler.schedules import drop_pattern_attributes, schedule_passes
from llmbuild.models.kv_cache import KVCacheLayout


@dataclass(frozen=True, slots=True)
class Plan:
    """What the passes need to know.  `metadata` is completed by the pipeline (memory usage)."""

    device: str
    target: Any
    kv_cache: KVCacheLayout
    bounds: Mapping[str, int]
    metadata: dict[str, Any]
    stock: frozenset[str] = frozenset()
    """Parts of a CPU library left to TVM, for comparison: "linears", "attention"."""
    cuda_graph: bool = False
    """Whether steps are recorded as CUDA graphs (only on CUDA)."""


def passes(plan: Plan) -> list[Any]:
    """The passes in their order."""
    transform = relax.transform
    return [
        # What the library offers besides the model's own functions.
        AttachKVCache(plan.kv_cache, plan.target, own_attention="attention" not in plan.stock),
        AttachSoftmaxWithTemperature(plan.device, plan.metadata["active_vocab_size"]),
        AttachLogitProcessors(plan.device),
        AttachEmbeddingAllocator(plan.metadata["prefill_chunk_size"]),
        AttachRowMoves(plan.device, plan.kv_cache.dtype),
        AttachSampling(plan.device),
        AnnotateForMemoryPlanning(plan.bounds),
        *([AnnotateForCudaGraph()] if plan.cuda_graph else []),
        tvm.tirx.transform.BindTarget(plan.target),
        # From operators to TIR functions.
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        drop_pattern_attributes(),
        # From TIR functions to loops for the device.
        *schedule_passes(plan.device, plan.target, stock="linears" in plan.stock),
        # From Relax to calls of the VM, with planned memory.
        transform.RewriteDataflowReshape(),
        transform.DeadCodeElimination(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        AttachMetadata(plan.metadata),
        *([RewriteForCudaGraph()] if plan.cuda_graph else []),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.VMShapeLower(),
        AttachSymbols(),
        OrderShapeFunctions(),
    ]


def pipeline(plan: Plan) -> Any:
    """The pipeline as one pass, for `relax.build`."""
    return tvm.transform.Sequential(passes(plan))
