"""Kernels of TVM's KV cache that nothing will use are not made: each is TVMScript, whose parsing takes a tenth of a second or
more.

TVM makes all kernels of a cache at once.  In place of one that another will replace, or that will be left out, stands a function
of its name that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tvm import tirx
from tvm.relax.frontend.nn.llm import kv_cache

from llmbuild.compiler.kernels.split_rotary import NAME as SPLIT

_SLIDING = 4
"""The place among a maker's arguments that says whether its kernel is for a rolling cache."""


def _by_window(name: str) -> Callable[..., str]:
    return lambda *arguments: f"{name}_sliding_window" if arguments[_SLIDING] else name


def _always(name: str) -> Callable[..., str]:
    return lambda *_: name


_MAKERS: Mapping[str, Callable[..., str]] = {
    "_attention_decode": _by_window("batch_decode_paged_kv"),
    "_attention_decode_cpu": _by_window("batch_decode_paged_kv_cpu"),
    "_attention_prefill": _by_window("batch_prefill_paged_kv"),
    "_attention_prefill_cpu": _by_window("batch_prefill_paged_kv_cpu"),
    "_attention_prefill_ragged": _always("batch_prefill_ragged_kv"),
    "_attention_prefill_ragged_cpu": _always("batch_prefill_ragged_kv"),
    "_compact_kv_copy": _always("compact_kv_copy"),
    "_compact_kv_copy_cpu": _always("compact_kv_copy_cpu"),
    "_copy_single_page": _always("copy_single_page"),
    "_copy_single_page_cpu": _always("copy_single_page_cpu"),
    "_kv_cache_debug_get_kv": _always("tir_kv_cache_debug_get_kv"),
    "_kv_cache_transpose_append": _always("tir_kv_cache_transpose_append"),
    "_kv_cache_transpose_append_mla": _always("tir_kv_cache_transpose_append_mla"),
    "_merge_state_inplace": _always("tir_attention_merge_state"),
    "_merge_state_inplace_cpu": _always("merge_state_inplace_cpu"),
    "llama_rope_with_position_map": _always(SPLIT),
    "tree_attn": _always("batch_tree_attn"),
    "tree_attn_cpu": _always("batch_tree_attn"),
    "tree_attn_with_paged_kv_cache": _always("tree_attn_paged_kv"),
    "tree_attn_with_paged_kv_cache_cpu": _always("tree_attn_paged_kv_cpu"),
}
"""TVM's functions that make a kernel, and the name that it has for given arguments (apache-tvm 0.27.0.post1)."""


@contextmanager
def makers_as(
    names: Collection[str], wrapped: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Within this context TVM calls what `wrapped` gives, of a name and a function, in place of these functions of its cache."""
    real = {name: getattr(kv_cache, name) for name in names}
    for name, make in real.items():
        setattr(kv_cache, name, wrapped(name, make))
    try:
        yield
    finally:
        for name, make in real.items():
            setattr(kv_cache, name, make)


def unmade(kernels: Collection[str] | None = None) -> AbstractContextManager[None]:
    """Within this context TVM makes functions that do nothing in place of the kernels of these names, or of all."""
    return makers_as(_MAKERS, lambda name, make: _sparing(make, _MAKERS[name], kernels))


def _sparing(make: Callable[..., Any], name: Callable[..., str], kernels: Collection[str] | None) -> Callable[..., Any]:
    def made(*arguments: Any, **named: Any) -> Any:
        kernel = name(*arguments)
        if kernels is not None and kernel not in kernels:
            return make(*arguments, **named)
        return tirx.PrimFunc([], tirx.Evaluate(0)).with_attr("global_symbol", kernel)

    return made
