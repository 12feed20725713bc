"""Put windows by positions and soft caps into TVM's attention kernels.

Before: a kernel computes scores, q k times its `sm_scale`, masks them and takes their maximum.
After: the place where it keeps a score, before the maximum, keeps it capped, or the lowest number where the window of the
layer hides the key from the query.  A negative `sm_scale` says that the layer has the window, and its magnitude is the factor.
Tiles of keys that are hidden from all queries of a block are not visited on GPUs.

A kernel that has hidden keys alone in its maximum gives them equal weights, and the lowest log-sum-exp: the first visible key
multiplies what was summed before by 0, and so does the merge with the result over other keys.

Among the nodes of a tree of drafts there is no window (`batch_tree_attn` does not know where its keys are), nor in a rolling
cache, whose positions are renumbered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script import tirx as T
from tvm.tirx.stmt import ForKind

from llmbuild.compiler.kernels.scores import capped, first_visible
from llmbuild.errors import ToolchainError
from llmbuild.models.kv_cache import KVCacheLayout

LOWEST = -5e4
"""TVM's score of a key that is masked."""

SCALE = "sm_scale"


@dataclass(frozen=True, slots=True)
class Form:
    """Where a kernel keeps a score, which is its only one: the store to buffer `target` of what is in `source`.

    `scales` is how often the kernel uses its scale.  `place` finds the score's; `lowest` finds the lowest position of the queries
    that a loop over tiles of keys is for, where there is such a loop.  One that is not `windowed` takes no window.
    """

    target: str
    source: str
    place: Callable[[Rewriter], Place]
    scales: int = 1
    lowest: Callable[[Rewriter], Place] | None = None
    windowed: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Expressions: the sequence (its number in the batch), the position of a query of it, and the index of a key of it."""

    sequence: Any
    position: Any
    key: Any = 0


def alter_scores(module: Any, layout: KVCacheLayout, gpu: bool, ours: Collection[str]) -> None:
    """Alter the kernels of a module that has a KV cache of TVM's, but those that `ours` will replace.

    Raises ToolchainError where a kernel is missing or is not as this was written for.
    """
    forms = {name: form for name, form in (GPU if gpu else CPU).items() if name not in ours}
    found = {variable.name_hint: variable for variable, function in module.functions_items() if _has_scale(function)}
    for name in sorted(set(forms) ^ (set(found) - set(ours))):
        raise _unknown(name, "there is one more" if name in found else "it is missing")
    for name, form in forms.items():
        module.update_func(found[name], Rewriter(name, form, module[found[name]], layout).rewrite())


class Rewriter:
    """The traversal of one kernel.

    `variables` are those that were bound last under a name; `vectorized` says that the score was altered within the loop that is
    traversed, before that loop is known.
    """

    def __init__(self, name: str, form: Form, function: Any, layout: KVCacheLayout) -> None:
        self.name, self.form, self.function, self.layout = name, form, function, layout
        self.parameters = {parameter.name: parameter for parameter in function.params}
        self.variables: dict[str, Any] = {}
        self.conditions: list[Any] = []
        self.scale = self.parameters[SCALE]
        self.scores = self.scales = self.tiles = 0
        self.window = layout.window if form.windowed else None
        self.vectorized = False
        self.unknown: list[str] = []

    def rewrite(self) -> Any:
        """The function, altered at exactly the places that its form says."""
        body = tvm_ffi.structural_mutate(
            self.function.body,
            [
                (tirx.For, self.loop),
                (tirx.IfThenElse, self.branch),
                (tirx.Bind, self.bind),
                (tirx.IterVar, self.axis),
                (tirx.BufferStore, self.store),
                (tirx.Var, self.use),
            ],
        )
        # Raised here, since an error inside of the traversal loses its class.
        if self.unknown:
            raise _unknown(self.name, self.unknown[0])
        tiles = 0 if self.form.lowest is None or self.window is None else 1
        for what, there, expected in (
            ("kept scores", self.scores, 1),
            (f"uses of {SCALE}", self.scales, self.form.scales),
            ("loops over tiles of keys", self.tiles, tiles),
        ):
            if there != expected:
                raise _unknown(self.name, f"it has {there} {what} where {expected} is known")
        return self.function.with_body(body)

    def variable(self, name: str) -> Any:
        if name not in self.variables:
            self.unknown.append(f"it has no variable {name} at its score")
        return self.variables.get(name, T.int32(0))

    def element(self, name: str, index: Any) -> Any:
        """An element of a parameter."""
        if name not in self.parameters:
            self.unknown.append(f"it has no parameter {name}")
            return T.int32(0)
        return self.parameters[name][index]

    def use(self, variable: Any, mutator: Any) -> Any:
        if not variable.same_as(self.scale):
            return mutator.default_mutate(variable)
        self.scales += 1
        return T.abs(variable)

    def bind(self, bind: Any, mutator: Any) -> Any:
        self.variables[bind.var.name] = bind.var
        return mutator.default_mutate(bind)

    def axis(self, axis: Any, mutator: Any) -> Any:
        self.variables[axis.var.name] = axis.var
        return mutator.default_mutate(axis)

    def branch(self, branch: Any, mutator: Any) -> Any:
        self.conditions.append(branch.condition)
        altered = mutator.default_mutate(branch)
        self.conditions.pop()
        return altered

    def store(self, store: Any, mutator: Any) -> Any:
        if store.buffer.name != self.form.target or not self._is_score(store.value):
            return mutator.default_mutate(store)
        self.scores += 1
        score = value = tirx.Var("score", "float32")
        if self.layout.softcap is not None:
            value = capped(value, self.layout.softcap)
        if self.window is not None:
            place = self.form.place(self)
            value = T.if_then_else(place.key >= self.first_visible(place), value, T.float32(LOWEST))
        self.vectorized = True
        kept = tirx.BufferStore(store.buffer, value, store.indices)
        return tirx.SeqStmt([tirx.Bind(score, mutator.mutate(store.value)), kept])

    def loop(self, loop: Any, mutator: Any) -> Any:
        self.variables[loop.loop_var.name] = loop.loop_var
        before = self.scores
        altered = mutator.default_mutate(loop)
        if self.scores == before:
            return altered
        if self.vectorized and loop.kind == ForKind.VECTORIZED:
            # Not every device's language has conditions of vectors.
            altered = _loop(altered, altered.loop_var, altered.extent, altered.body, ForKind.SERIAL)
        self.vectorized = False
        size = _tile_size(loop)
        if size is None or self.window is None or self.form.lowest is None:
            return altered
        self.tiles += 1
        first, step = tirx.Var("first_tile", "int32"), tirx.Var("visited_tile", "int32")
        body = tirx.SeqStmt([tirx.Bind(altered.loop_var, step + first), altered.body])
        visited = _loop(altered, step, T.max(altered.extent - first, 0), body, altered.kind)
        return tirx.SeqStmt([tirx.Bind(first, self.first_visible(self.form.lowest(self)) // size), visited])

    def first_visible(self, place: Place) -> Any:
        """The index of the first key that the query sees."""
        assert self.window is not None
        start = self.element("k_rope_pos_offset", place.sequence)
        return first_visible(place.position, start, self.window, self.scale)

    def position(self, row: Any) -> Any:
        """The position of the query in a row of the batch."""
        return self.element("q_rope_position", row)

    def rows(self, sequence: Any) -> tuple[Any, Any]:
        """The first row of a sequence, and the one past its last."""
        return self.element("q_indptr", sequence), self.element("q_indptr", sequence + 1)

    def _is_score(self, value: Any) -> bool:
        """Whether a value is what is in the source, or has it multiplied by the scale."""
        if isinstance(value, TensorLoad):
            return bool(value.source.name == self.form.source)
        scaled = sourced = False

        def use(variable: Any) -> None:
            nonlocal scaled
            scaled = scaled or variable.same_as(self.scale)

        def load(node: Any) -> None:
            nonlocal sourced
            sourced = sourced or node.source.name == self.form.source

        tvm_ffi.structural_walk(value, [(TensorLoad, load), (tirx.Var, use)])
        return scaled and sourced


def _tiled_place(kernel: Rewriter) -> Place:
    """Of a GPU's kernel for prompts: a block has a tile of rows, one for each query and each head that shares keys."""
    sequence = kernel.variable("b_idx")
    begin, end = kernel.rows(sequence)
    # The last tile has rows past the last query.
    row = T.min(begin + _first_row(kernel, kernel.variable("i")), end - 1)
    return Place(sequence, kernel.position(row), kernel.variable("L_kv_start") + kernel.variable("j"))


def _tiled_lowest(kernel: Rewriter) -> Place:
    """Positions ascend from the tile's first row, except in a tree of drafts; there the root's is the lowest."""
    sequence = kernel.variable("b_idx")
    begin, end = kernel.rows(sequence)
    root = kernel.position(begin)
    chain = kernel.position(end - 1) - root == end - begin - 1
    return Place(sequence, T.if_then_else(chain, kernel.position(begin + _first_row(kernel, 0)), root))


def _first_row(kernel: Rewriter, offset: Any) -> Any:
    group = kernel.layout.num_attention_heads // kernel.layout.num_key_value_heads
    return (kernel.variable("LH_start") + offset) // group


def _decode_place(kernel: Rewriter) -> Place:
    """Of a GPU's kernel for single tokens: the condition says that the key is one of the sequence's."""
    place = _decode_lowest(kernel)
    condition = kernel.conditions[-1] if kernel.conditions else None
    if not isinstance(condition, tirx.LT):
        kernel.unknown.append("its score is kept without a comparison of the key's index")
        return place
    return Place(place.sequence, place.position, condition.a)


def _decode_lowest(kernel: Rewriter) -> Place:
    sequence = kernel.variable("batch_idx")
    return Place(sequence, kernel.position(sequence))


def _decode_place_on_a_cpu(kernel: Rewriter) -> Place:
    sequence = kernel.variable("b")
    return Place(sequence, kernel.position(sequence), kernel.variable("row_idx"))


def _paged_place_on_a_cpu(kernel: Rewriter) -> Place:
    return Place(kernel.variable("b_idx"), kernel.position(kernel.variable("curl_q")), kernel.variable("row_idx"))


def _ragged_place_on_a_cpu(kernel: Rewriter) -> Place:
    sequence = kernel.variable("b")
    begin, _ = kernel.rows(sequence)
    return Place(sequence, kernel.position(begin + kernel.variable("q_idx")), kernel.variable("k_idx"))


_TILED = Form("S_smem", "S_local", _tiled_place, lowest=_tiled_lowest)
_DECODE = Form("S_local", "t0", _decode_place, lowest=_decode_lowest)
_CPU_DECODE = Form("S_val", "S_val", _decode_place_on_a_cpu)
_CPU_PAGED = Form("S_val", "S_val", _paged_place_on_a_cpu)
_CPU_RAGGED = Form("attention_score", "result", _ragged_place_on_a_cpu, scales=2)

GPU = {
    "batch_decode_paged_kv": _DECODE,
    "batch_decode_paged_kv_sliding_window": replace(_DECODE, windowed=False),
    "batch_prefill_paged_kv": _TILED,
    "batch_prefill_paged_kv_sliding_window": replace(_TILED, windowed=False),
    "batch_prefill_ragged_kv": _TILED,
    "batch_tree_attn": replace(_TILED, windowed=False),
    "tree_attn_paged_kv": _TILED,
}
CPU = {
    "batch_decode_paged_kv_cpu": _CPU_DECODE,
    "batch_decode_paged_kv_cpu_sliding_window": replace(_CPU_DECODE, windowed=False),
    "batch_prefill_paged_kv_cpu": _CPU_PAGED,
    "batch_prefill_paged_kv_cpu_sliding_window": replace(_CPU_PAGED, windowed=False),
    "batch_prefill_ragged_kv": _CPU_RAGGED,
    "batch_tree_attn": replace(_CPU_RAGGED, windowed=False),
    "tree_attn_paged_kv_cpu": _CPU_PAGED,
}
"""All of TVM's kernels that have a scale, by their names in a module."""


def _has_scale(function: Any) -> bool:
    return isinstance(function, tirx.PrimFunc) and any(parameter.name == SCALE for parameter in function.params)


def _tile_size(loop: Any) -> int | None:
    """How many keys a step of a loop over tiles has; None for other loops, whose extent is no quotient."""
    extent = loop.extent
    if loop.kind != ForKind.SERIAL or not isinstance(extent, tirx.FloorDiv) or not isinstance(extent.b, tirx.IntImm):
        return None
    return int(extent.b.value)


def _loop(like: Any, variable: Any, extent: Any, body: Any, kind: Any) -> Any:
    return tirx.For(variable, like.min, extent, kind, body, like.thread_binding, like.annotations)


def _unknown(kernel: str, why: str) -> ToolchainError:
    return ToolchainError(
        f"TVM's attention kernel {kernel} is not the one that llmbuild puts windows and soft caps into",
        why=why,
        fix="install the release of apache-tvm that llmbuild requires",
    )
