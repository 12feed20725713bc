"""Kernels of TVM's KV cache, which are TVMScript: each is parsed once in a process, however many libraries a file of tests makes.

A library takes a second of parsing for each of its devices, and nearly all models of the tests have the same few shapes of
attention.  What is kept is a function's JSON, and each library loads its own: passes may alter a function in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAKERS = (
    "_attention_prefill_ragged_cpu",
    "_attention_prefill_cpu",
    "_attention_decode_cpu",
    "_attention_prefill_ragged",
    "_attention_prefill",
    "_attention_decode",
    "tree_attn_cpu",
    "tree_attn_with_paged_kv_cache_cpu",
    "tree_attn",
    "tree_attn_with_paged_kv_cache",
)
"""TVM's functions that make a kernel of attention out of numbers, names and a target."""

_texts: dict[str, str] = {}


@contextmanager
def parse_once() -> Iterator[None]:
    """Within this context TVM's makers look up what they have made before of equal arguments, and functions are parsed as
    `lower` parses them."""
    from llmbuild.compiler.passes.unmade import makers_as
    from llmbuild.compiler.scripts import quick_scripts

    with quick_scripts(), makers_as(MAKERS, _kept):
        yield


def _kept(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
    import tvm

    def made(*arguments: Any, **named: Any) -> Any:
        key = f"{name}{[str(argument) for argument in arguments]}{sorted(named.items())}"
        if key not in _texts:
            _texts[key] = tvm.ir.save_json(make(*arguments, **named))
        return tvm.ir.load_json(_texts[key])

    return made
