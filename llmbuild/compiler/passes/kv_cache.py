"""Add the function that creates the paged KV cache.

Before: the module's functions take a cache as an opaque object.
After: `create_tir_paged_kv_cache(max_batch_size, max_total_seq_len, prefill_chunk_size, page_size,
support_sliding_window)`, each a Shape of one element, creates one, with the kernels that it will call as PrimFuncs of the
module.  On CPU ours replace TVM's of the same signature for attention of decode, of prefill over its own keys and over
the cache; kernels that nothing can call are left out.  TVM's stay: attention with a tree mask
(speculative decoding), the merge of two attention results, appending to pages and copying them; and all of them where none of
ours is given.  On GPUs ours replaces the merge of two results, which is a race in TVM's (see `kernels.gpu.merge`).  The split
into q, k and v with RoPE is ours everywhere (see `kernels.split_rotary`).  For layers with a window and for soft caps TVM's
kernels are altered (see `passes.attention_scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode, TIRPagedKVCache

from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.compiler.kernels.split_rotary import NAME as SPLIT
from llmbuild.compiler.kernels.split_rotary import split_kernel
from llmbuild.compiler.passes.attention_scores import alter_scores
from llmbuild.compiler.passes.own_errors import kept
from llmbuild.compiler.passes.unmade import unmade
from llmbuild.compiler.reuse import directly
from llmbuild.errors import InputError, Where
from llmbuild.models.kv_cache import KVCacheLayout

NAME = "create_tir_paged_kv_cache"

ROLLING = tuple(
    f"batch_{step}_paged_kv{device}_sliding_window" for step in ("decode", "prefill") for device in ("", "_cpu")
)
"""The kernels for a rolling cache, which take a fifth of the lowering for a CPU.  The runtime makes no rolling cache that has
frequencies for its keys, so another's library needs none."""
TREES = ("batch_tree_attn", "tree_attn_paged_kv")
"""The kernels for trees of drafts.  WebLLM has no drafts, and refuses a library where a kernel has more than 10 tensors, as one
of these has where layers have a window."""

Attention: TypeAlias = Callable[[KVCacheLayout], Mapping[str, Any]]
"""What makes the kernels of ours for a cache, by the names of those of TVM that they replace."""

SIZES = ("max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window")


@tvm.transform.module_pass(opt_level=0, name="AttachKVCache")
class AttachKVCache:
    """See the module's docstring."""

    def __init__(
        self,
        layout: KVCacheLayout,
        target: Any,
        attention: Attention | None,
        together: Callable[..., Mapping[str, Any]] = directly,
    ) -> None:
        """`attention` makes the kernels that replace TVM's, by the names of those; None keeps TVM's for attention.  `together`
        gives what a function makes of arguments."""
        self.layout = layout
        self.target = target
        self.attention = attention
        self.together = together

    @kept
    def transform_module(self, module: Any, _: Any) -> Any:
        kernels = self.together(cache_kernels, self.layout, self.target, self.attention)
        others = {variable.name_hint for variable in module.get_global_vars()}
        with unmade():
            module = _create(module, self.layout, self.target)
        every = {variable.name_hint for variable in module.get_global_vars()} - others - {NAME}
        module = without_kernels(module, every - kernels.keys())
        for name, kernel in kernels.items():
            module.update_func(module.get_global_var(name), kernel)
        return module


def cache_kernels(layout: KVCacheLayout, target: Any, attention: Attention | None) -> dict[str, Any]:
    """The kernels of a cache by name: TVM's, altered or replaced, without those that nothing calls."""
    kernels = {SPLIT: split_kernel(layout)} if attention is None else attention(layout)
    unused = () if layout.rolling else ROLLING
    left_out = {*unused, *(TREES if target.kind.name == "webgpu" else ())}
    # Windows and caps are put into TVM's kernels by their forms, all of which must be there.
    altered = layout.window is not None or layout.softcap is not None
    with unmade(set(kernels) if altered else {*kernels, *left_out}):
        module = _create(tvm.IRModule(), layout, target)
    if altered:
        alter_scores(module, layout, target.kind.name != "llvm", kernels)
    for name, kernel in kernels.items():
        # The lookup fails where TVM has renamed its kernel: adding ours beside it would have no effect.
        module.update_func(module.get_global_var(name), kernel)
    return {
        name.name_hint: function
        for name, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) and name.name_hint not in left_out
    }


def _create(module: Any, layout: KVCacheLayout, target: Any) -> Any:
    """The module with the function that creates a cache, and the kernels that TVM makes for it."""
    rope, applied = layout.rope, layout.applied_rope
    # A rolling cache keeps keys as they are and turns them inside attention, with TVM's form of RoPE.
    inline = rope if layout.rolling else None
    builder = relax.BlockBuilder(module)
    sizes = {name: tirx.Var(name, "int64") for name in SIZES}
    params = [relax.Var(f"{name}_", relax.ShapeType([size])) for name, size in sizes.items()]
    with builder.function(NAME, params):
        cache = TIRPagedKVCache(
            attn_kind="mha",
            **sizes,
            layer_partition=relax.ShapeExpr([0, layout.num_hidden_layers]),
            num_hidden_layers=layout.num_hidden_layers,
            num_attention_heads=layout.num_attention_heads,
            num_key_value_heads=layout.num_key_value_heads,
            qk_head_dim=layout.head_dim,
            v_head_dim=layout.head_dim,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NONE if rope is None else RopeMode.INLINE if layout.rolling else RopeMode.NORMAL,
            rope_scale=1,
            rope_theta=10000 if inline is None else inline.theta,
            rope_scaling={} if inline is None else dict(inline.scaling or {}),
            rope_ext_factors=(
                relax.prim_value(0) if applied is None else relax.const(np.array(applied.frequencies, "float32"))
            ),
            rotary_dim=layout.head_dim if rope is None else rope.rotary_dim,
            enable_disaggregation=layout.disaggregation,
            dtype=layout.dtype,
            target=target,
        )
        builder.emit_func_output(cache._expr)
    return builder.finalize()


@relax.expr_functor.mutator
class _Without(relax.PyExprMutator):  # type: ignore[misc]
    """Empty tuples, which the runtime takes for no function, in place of some kernels."""

    def __init__(self, module: Any, kernels: Collection[str]) -> None:
        super().__init__(module)
        self.kernels = kernels

    def visit_tuple_(self, op: Any) -> Any:
        kernel = op.fields[-1] if op.fields else None
        unused = isinstance(kernel, tvm.ir.GlobalVar) and kernel.name_hint in self.kernels
        return relax.Tuple([]) if unused else super().visit_tuple_(op)


def without_kernels(module: Any, kernels: Collection[str]) -> Any:
    """The module without the kernels, as far as it has them: the runtime refuses to compute what it would need them for."""
    module[NAME] = _Without(module, kernels).visit_expr(module[NAME])
    for variable in module.get_global_vars():
        if variable.name_hint in kernels:
            del module[variable]
    return module


def require_every_head(layout: KVCacheLayout, target: Any, threads: int) -> None:
    """Raise InputError where TVM's GPU kernel for decode would leave heads out.

    A block, of at most `threads` threads, has those for four elements of a head each, and as many of the heads that share
    keys as fit: the kernel halves their number until they do, and drops what an odd number leaves over.
    """
    attributes = target.attrs
    most = max(int(attributes[name]) for name in ("max_num_threads", "max_threads_per_block") if name in attributes)
    most = min(most, threads)
    group = together = layout.num_attention_heads // layout.num_key_value_heads
    while together > 1 and layout.head_dim // 4 * together > most:
        together //= 2
    if group % together:
        raise InputError(
            f"TVM's attention on {target.kind.name} cannot compute {group} heads of {layout.head_dim} for each key-value head",
            where=Where(CHAT_CONFIG, key="model_config"),
            why=f"they do not fit into one block of {most} threads, and halving their number leaves some out",
            fix="build this model for a CPU, whose attention has no such limit",
        )
