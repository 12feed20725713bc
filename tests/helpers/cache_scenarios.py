"""A KV cache alone, with layer 0 full and layer 1 with a window, and what may happen to its sequences, against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from llmbuild.compiler.devices import find_device
from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from tests.helpers.generic_library import builtin
from tests.helpers.parse_once import parse_once

HEADS, KV, PAGE = 4, 2, 16
NOT_OF_THE_CACHE = {
    "AttachSoftmaxWithTemperature",
    "AttachLogitProcessors",
    "AttachEmbeddingAllocator",
    "AttachRowMoves",
    "AttachSampling",
    "AnnotateForMemoryPlanning",
    "AttachMetadata",
}


def make_layout(
    window: int | None, softcap: float | None, *, dim: int = 32, dtype: str = "float32", rope: bool = True
) -> KVCacheLayout:
    """`rope` says whether the cache applies it; else layers would."""
    spec = make_rope(10000.0, dim) if rope else None
    return KVCacheLayout(2, HEADS, KV, dim, dtype, spec, window=window, softcap=softcap)


def build_cache(layout: KVCacheLayout, device: str, target: Any) -> Any:
    """The VM of a library that has nothing but the cache."""
    import tvm

    return build_with_cache(tvm.IRModule(), layout, device, target)


def build_with_cache(module: Any, layout: KVCacheLayout, device: str, target: Any) -> Any:
    """The VM of a module's functions and the cache, made by the passes of our pipeline for the device."""
    import tvm
    from tvm import relax

    from llmbuild.compiler.pipeline import PassInputs, passes

    plan = PassInputs(find_device(device), target, layout, {}, {"active_vocab_size": None, "prefill_chunk_size": 1})
    steps = [step for step in passes(plan) if step.info.name not in NOT_OF_THE_CACHE]
    with target, parse_once(), tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        executable = relax.build(module, target=target, relax_pipeline=tvm.transform.Sequential(steps))
    return relax.VirtualMachine(executable, tvm.cpu())


def rotate(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    angle = at[:, None, None] * 10000.0 ** (-np.arange(half) / half)
    c, s, a, b = np.cos(angle), np.sin(angle), x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


class Run:
    """A cache and the same sequences in NumPy; `errors` has the largest of each step, of layer 0 and of layer 1."""

    def __init__(self, machine: Any, layout: KVCacheLayout, *, rolls: bool = False) -> None:
        from tvm_ffi import Shape

        self.layout, self.dim, self.rng = layout, layout.head_dim, np.random.default_rng(0)
        self.sequences: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.tree: list[int] = []
        self.errors: list[tuple[float, float]] = []
        self.cache = machine["create_tir_paged_kv_cache"](*(Shape([size]) for size in (4, 1024, 512, PAGE, int(rolls))))

    def add(self, *sequences: int) -> None:
        for sequence in sequences:
            builtin("kv_state_add_sequence")(self.cache, sequence)
            self.sequences[sequence] = [(np.zeros((0, KV, self.dim)),) * 2] * 2

    def fork(self, parent: int, child: int, at: int) -> None:
        builtin("kv_state_fork_sequence")(self.cache, parent, child, at)
        self.sequences[child] = [(k[:at], v[:at]) for k, v in self.sequences[parent]]

    def pop(self, sequence: int, count: int) -> None:
        builtin("kv_state_popn")(self.cache, sequence, count)
        self.sequences[sequence] = [(k[:-count], v[:-count]) for k, v in self.sequences[sequence]]

    def step(self, which: list[int], lengths: list[int], parents: list[int] | None = None) -> None:
        """Append random tokens to sequences, and compare what attention gives.

        `parents` adds to the tree that the last tokens make, by the index in it of each one's parent (-1: the root).
        """
        self.tree += [] if parents is None else parents
        import tvm
        from tvm_ffi import Shape

        builtin("kv_state_begin_forward")(
            self.cache, Shape(which), Shape(lengths), None if parents is None else Shape(parents)
        )
        worst = []
        for layer in (0, 1):
            shape = (sum(lengths), HEADS + 2 * KV, self.dim)
            qkv = (self.rng.standard_normal(shape) * 1.5).astype(self.layout.dtype)
            out = tvm.runtime.tensor(np.zeros((sum(lengths), HEADS, self.dim), self.layout.dtype))
            scale = self.dim**-0.5 * (-1 if layer and self.layout.window is not None else 1)
            builtin("attention_kv_cache_attention_with_fused_qkv")(
                self.cache, layer, scale, tvm.runtime.tensor(qkv), out
            )
            worst.append(self._compare(layer, which, lengths, qkv.astype(float), out.numpy().astype(float)))
        builtin("kv_state_end_forward")(self.cache)
        self.errors.append((worst[0], worst[1]))

    def _compare(
        self,
        layer: int,
        which: list[int],
        lengths: list[int],
        qkv: np.ndarray,
        out: np.ndarray,
    ) -> float:
        begin, worst, cap = 0, 0.0, self.layout.softcap
        for sequence, length in zip(which, lengths, strict=True):
            rows = slice(begin, begin + length)
            held = self.sequences[sequence][layer]
            new = (qkv[rows, HEADS + i * KV : HEADS + (i + 1) * KV] for i in range(2))
            k, v = (np.concatenate(pair) for pair in zip(held, new, strict=True))
            self.sequences[sequence][layer] = (k, v)
            at, old = np.arange(len(k)), len(k) - length
            seen = at[None] <= at[old:, None]
            if self.tree:
                root, ancestors = len(k) - len(self.tree), _ancestors(self.tree)
                seen[:, root:] = ancestors[-length:]
                at[root:] = root + ancestors.sum(1) - 1
            if layer and self.layout.window is not None:
                seen &= at[None] > at[old:, None] - self.layout.window
            q = qkv[rows, :HEADS]
            if self.layout.rope is not None:
                q, k = rotate(q, at[old:]), rotate(k, at)
            k = np.repeat(k, HEADS // KV, 1)
            scores = np.einsum("qhd,khd->qhk", q, k) * self.dim**-0.5
            scores = scores if cap is None else cap * np.tanh(scores / cap)
            scores = np.where(seen[:, None], scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            wanted = np.einsum("qhk,khd->qhd", weights, np.repeat(v, HEADS // KV, 1))
            error = np.abs(out[rows] - wanted).max() / np.abs(wanted).max()
            worst = max(worst, np.inf if np.isnan(error) else float(error))
            begin += length
        return worst


def _ancestors(parents: list[int]) -> np.ndarray:
    """[nodes, nodes]: whether a node is on the way from the root to another, or that one itself."""
    found = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            found[node] |= found[parent]
    return found


def chunks(run: Run, size: int, chunk: int) -> None:
    """A prompt in chunks that are shorter than the window, as long, or longer, and then decode."""
    run.add(0)
    for begin in range(0, size, chunk):
        run.step([0], [min(chunk, size - begin)])
    for _ in range(3):
        run.step([0], [1])


def mixed(run: Run, window: int) -> None:
    """Batches of unlike lengths, decode past the window, a rollback."""
    run.add(0, 1, 2)
    run.step([0, 1, 2], [2 * window, window // 2, 1])
    for _ in range(window // 2 + 2):
        run.step([0, 1, 2], [1, 1, 1])
    run.step([0, 1, 2], [1, 2 * window, 3])
    run.pop(1, window // 2)
    for _ in range(3):
        run.step([0, 1, 2], [1, 1, 1])


def forked(run: Run, window: int, at: int) -> None:
    """A sequence that begins as another one, and both after it: the window crosses from one's pages to the other's."""
    run.add(0)
    run.step([0], [at])
    run.fork(0, 1, at)
    run.step([1], [3])
    for _ in range(window // 2):
        run.step([0, 1], [1, 1])
    run.step([0, 1], [2, window + 3])
    for _ in range(3):
        run.step([0, 1], [1, 1])


def drafts(run: Run, length: int) -> None:
    """A tree of drafts after a text, and one more: nodes lie side by side in the cache, at positions that do not ascend."""
    run.add(0)
    run.step([0], [length])
    run.step([0], [7], parents=[-1, 0, 0, 1, 1, 4, 2])
    run.step([0], [1], parents=[4])


def scenarios(window: int, *, trees: bool) -> Iterator[tuple[str, Callable[[Run], None]]]:
    """Each with a name; they are given a fresh run."""
    for chunk in (window // 2, window, window + 1, 3 * window + 5):
        yield f"chunks of {chunk}", lambda run, chunk=chunk: chunks(run, 3 * window + 7, chunk)
    yield "mixed", lambda run: mixed(run, window)
    for at in (PAGE, window + 5, 3 * window + 1):
        yield f"fork at {at}", lambda run, at=at: forked(run, window, at)
    for length in (window - 2, 3 * window + 5) if trees else ():
        yield f"drafts after {length}", lambda run, length=length: drafts(run, length)


def worst_errors(machine: Any, layout: KVCacheLayout, *, trees: bool) -> Mapping[str, tuple[float, float]]:
    """The largest error of layers 0 and 1 in each scenario; no `trees` on CPUs, where TVM's cache mistakes their kernels."""
    found = {}
    for name, scenario in scenarios(layout.window or 20, trees=trees):
        run = Run(machine, layout)
        scenario(run)
        found[name] = (max(first for first, _ in run.errors), max(second for _, second in run.errors))
    return found
