"""How much memory a library needs on its device when its window is full, computed from its record (docs/memory.md).

Weights and KV cache are what TVM 0.27 allocates, to the byte: `src/runtime/vm/paged_kv_cache.cc` and `attn_utils.h` of its
wheel are the source of the formula.  Temporaries are what the memory planner recorded for the functions that a runtime calls.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.tensor import ITEM_SIZES

if TYPE_CHECKING:
    from llmbuild.packages.kind import PackageKind

PAGE = 16
"""Tokens in a page of the KV cache, as WebLLM, MLCEngine and llmbuild create it."""

_DEPTHS = 2
"""TVM's kPagedKVCacheMaxBlockDepth."""
_TREE = 256
"""TVM's kTreeAttnMaxTreeSize."""
_CUDA_ARRAYS = 32 << 20
"""Elements of the array that TVM makes on CUDA for all index arrays together."""
_ALIGNED = 4
"""TVM rounds index arrays on CUDA up to 16 bytes, in elements."""
_THREE_BITS, _FOUR_BITS, _EIGHT_BITS = 10, 8, 4
"""Elements of so many bits in a word."""

LOW_RESOURCE_MB = 3500
"""Up to here a model counts as one for small devices.  WebLLM 0.2.86 has no rule: this is the bound that agrees with the most
records of its list (docs/memory.md)."""

Record = Mapping[str, Any]
"""A library's record of itself, `_metadata`."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a runtime creates the KV cache with: tokens of all sequences together, tokens of a prefill chunk, sequences, and
    whether the cache is a rolling one.  `batches`: it calls the functions for several sequences, as MLCEngine does."""

    tokens: int
    chunk: int
    sequences: int = 1
    rolling: bool = False
    batches: bool = False


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on the device.  `largest` is the largest single buffer; `about`: the temporaries are an estimate."""

    weights: int
    kv_cache: int
    temporaries: int
    largest: int
    about: bool = False

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.temporaries


def sizes_of(record: Record, *, sequences: int = 1, batches: bool = False) -> Sizes:
    """The sizes for a full window of the library: its sliding window, else its context window."""
    window, rolling = record["sliding_window_size"], record["sliding_window_size"] != -1
    tokens = window if rolling else record["context_window_size"]
    return Sizes(tokens, record["prefill_chunk_size"], sequences, rolling, batches)


def sizes_in(kind: PackageKind, record: Record) -> Sizes:
    """The same as the runtime of a kind of package creates the cache: for as many sequences as it has and the library takes."""
    return sizes_of(record, sequences=min(kind.sequences, record["max_batch_size"]), batches=kind.batches)


def memory_of(record: Record, device: str, sizes: Sizes, *, repacks: bool = True) -> MemoryUse:
    """The memory of a library for TVM's device kind `device` ("llvm" for a CPU).

    `repacks`: the library has llmbuild's own linear layers for a CPU, which lay out their input anew.  A record without
    `memory_usage`, as one that is computed before the library is there, gives temporaries that are about right.
    """
    tensors = [math.prod(one["shape"]) * ITEM_SIZES[one["dtype"]] for one in record["params"]]
    page, attention = _cache_buffers(record, sizes)
    indices, mask = _index_arrays(device, sizes)
    layers = record["kv_cache"]["num_hidden_layers"]
    usage = record.get("memory_usage")
    temporaries = _recorded(usage, sizes) if usage is not None else _estimated(record, device, sizes)
    outputs, inputs, _ = _widest(record)
    if device == "llvm" and repacks:
        # A chunk's input, in float32, of which TVM keeps the largest.
        temporaries += sizes.chunk * inputs * ITEM_SIZES["float32"]
    return MemoryUse(
        weights=sum(tensors),
        kv_cache=page * layers + sum(attention) + indices,
        temporaries=temporaries,
        largest=max(*tensors, page, *attention, mask, sizes.chunk * outputs * _width(record)),
        about=usage is None,
    )


def window_that_fits(record: Record, device: str, sizes: Sizes, limit: int, *, repacks: bool = True) -> int:
    """The most tokens, a multiple of PAGE, with which the library needs at most `limit` bytes; 0 where none do.  What the
    cache takes is proportional to its pages."""
    from dataclasses import replace

    def fits(pages: int) -> bool:
        smaller = replace(sizes, tokens=pages * PAGE)
        return memory_of(record, device, smaller, repacks=repacks).total <= limit

    low, high = 0, -(-sizes.tokens // PAGE)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * PAGE


def _vocabulary(record: Record) -> int:
    """The rows of the embedding, which is the first parameter."""
    rows: int = record["params"][0]["shape"][0]
    return rows


def _width(record: Record) -> int:
    """Bytes of an element of the cache and of activations.  Theirs is the type of nearly all parameters that are no packed
    words; a few biases are in float32."""
    types = Counter(parameter["dtype"] for parameter in record["params"] if "float" in parameter["dtype"])
    return ITEM_SIZES[types.most_common(1)[0][0]]


def _cache_buffers(record: Record, sizes: Sizes) -> tuple[int, Sequence[int]]:
    """The bytes of the pages of a layer, [pages, 2, heads, PAGE, head_dim], and of each of the buffers that attention of a chunk
    goes through: q, k, v, the result, and two of sums of exponentials."""
    cache, width = record["kv_cache"], _width(record)
    heads, kv_heads, dim = cache["num_attention_heads"], cache["num_key_value_heads"], cache["head_dim"]
    query, key = sizes.chunk * heads * dim * width, sizes.chunk * kv_heads * dim * width
    sums = sizes.chunk * heads * ITEM_SIZES["float32"]
    return _pages(sizes) * 2 * kv_heads * PAGE * dim * width, (query, key, key, query, sums, sums)


def _pages(sizes: Sizes) -> int:
    """A rolling cache has two more for each sequence."""
    return -(-sizes.tokens // PAGE) + 1 + (2 * sizes.sequences if sizes.rolling else 0)


def _index_arrays(device: str, sizes: Sizes) -> tuple[int, int]:
    """The bytes of the arrays of int32 that say where the pages of the sequences are, together and of the largest: on CUDA it
    is the one array, on others the mask of a tree."""
    sequences, chunk = sizes.sequences, sizes.chunk
    moves = min(_TREE * sequences, chunk)
    match device:
        case "llvm":
            # They are reserved and nearly never written, so that the machine gives no memory for them.
            elements = largest = 0
        case "cuda":
            largest = _CUDA_ARRAYS
            elements = largest + _aligned(sequences + 1) + _aligned(2 * moves)
        case _:
            largest = _TREE * _TREE * sequences
            each = 3 * (sequences + 1) + _pages(sizes) + 4 * sequences + largest
            elements = _DEPTHS * each + 2 * (sequences + 1) + sequences + 6 * chunk + 2 * moves
    return elements * ITEM_SIZES["int32"], largest * ITEM_SIZES["int32"]


def _aligned(elements: int) -> int:
    return -(-elements // _ALIGNED) * _ALIGNED


def _recorded(usage: Mapping[str, int], sizes: Sizes) -> int:
    """The virtual machine keeps what a function allocated, and gives it to later calls that ask for as many bytes: a prompt's
    step and a token's step add up, and of two functions for the same step the larger counts."""
    steps: list[tuple[str, ...]] = [("embed",), ("prefill",), ("decode",)]
    if sizes.batches:
        steps = [("embed",), ("alloc_embedding_tensor",), ("prefill", "batch_prefill"), ("decode", "batch_decode")]
    return sum(max(usage.get(name, 0) for name in step) for step in steps)


def _estimated(record: Record, device: str, sizes: Sizes) -> int:
    """What the planner usually needs for a chunk: the widest result, the widest input, and some of the width of the model; for
    the logits; and for a token of each sequence, where there are several: it plans for as many as the library takes."""
    width, chunk = _width(record), sizes.chunk
    outputs, inputs, hidden = _widest(record)
    # The linear layers for CPUs come with no step of their own for dequantizing, so that fewer tensors live at once.
    others = 2 if device == "llvm" else 5
    row = (outputs + inputs + others * hidden) * width
    embedding = chunk * hidden * width
    logits = _vocabulary(record) * ITEM_SIZES["float32"]
    if not sizes.batches:
        return chunk * row + embedding + sizes.sequences * logits
    most: int = record["max_batch_size"]
    return chunk * row + most * row + 2 * embedding + 2 * most * logits


def _widest(record: Record) -> tuple[int, int, int]:
    """The most outputs and the most inputs of a linear layer, and the width of the model, which is what most of them have."""
    sizes = _linear_sizes(record)
    outputs, inputs = max(one for one, _ in sizes), max(one for _, one in sizes)
    return outputs, inputs, Counter(one for _, one in sizes).most_common(1)[0][0]


def _linear_sizes(record: Record) -> list[tuple[int, int]]:
    """(outputs, inputs) of the linear layers, of which embedding and head are none: a prompt's step uses the head for its last
    token only.  A packed weight is [outputs, words] or [words, outputs], as its scales are."""
    shapes = {parameter["name"]: parameter["shape"] for parameter in record["params"]}
    vocabulary, found = _vocabulary(record), []
    for name, shape in shapes.items():
        if len(shape) != 2 or not name.endswith("weight"):
            continue
        scales = shapes.get(name.replace("q_weight", "q_scale")) if name.endswith("q_weight") else None
        if scales is None:
            outputs, inputs = shape
        elif scales[0] == shape[0]:
            outputs, inputs = shape[0], _inputs(record, shape[1], scales[1])
        else:
            outputs, inputs = shape[1], _inputs(record, shape[0], scales[0])
        if outputs != vocabulary:
            found.append((outputs, inputs))
    return found


def _inputs(record: Record, words: int, groups: int) -> int:
    """The inputs of a row of so many words and scales.  Parameters that a scheme gives 3 bits among others have groups of their
    own; records of earlier versions do not say how wide a group is."""
    size, each = record.get("group_size"), words // groups
    if size is None:
        return words * _FOUR_BITS
    return (
        groups * size
        if size in [each * count for count in (_THREE_BITS, _FOUR_BITS, _EIGHT_BITS)]
        else words * _THREE_BITS
    )


def web_figures(use: MemoryUse) -> Mapping[str, float | int | bool]:
    """What WebLLM's app config says of a model: `vram_required_MB` in units of 2^20 bytes, as MLC counts them,
    `buffer_size_required_bytes`, which a device has as maxStorageBufferBindingSize, and `low_resource_required`."""
    megabytes = use.total / (1 << 20)
    return {
        "vram_required_MB": round(megabytes, 2),
        "low_resource_required": megabytes <= LOW_RESOURCE_MB,
        "buffer_size_required_bytes": use.largest,
    }
