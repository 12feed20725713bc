"""GPU verification of draft tokens by rejection sampling on a token tree, one block a sequence.

The scheme is that of "Fast Inference from Transformers via Speculative Decoding" (Leviathan et al., 2023), on a tree as in
"SpecInfer" (Miao et al., 2023): from a node whose token is accepted, try its children in turn.  A child is accepted with the
probability min(1, p / q), where p is what the model gives its token and q what the draft model gave.  When it is rejected
the model's distribution becomes max(p - q, 0), renormalized, and its next sibling is tried.

The barriers depend on data, though all threads of a block take the same way: not for WebGPU, where the sampler is not used.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, block_sum, blocks

NOTHING_LEFT = 1e-7
"""Below this probability mass a rejected token is accepted after all: the two distributions are the same."""


def verify_kernel() -> Any:
    """(draft probs[n, v], draft tokens[n] int32, model probs[n, v], first child[n] int32, next sibling[n] int32, uniform[n],
    parents[b] int32), in place on the model probs and the parents.

    A row of draft probs belongs to a node itself, a row of model probs to a parent whose children are judged by it.  -1
    stands for no child and no sibling.  Before, parents[b] is the root of each sequence's tree; after, the last node that
    was accepted, from whose model probs the next token is to be sampled.
    """

    @T.prim_func(private=True, s_tir=True)
    def verify_draft_tokens(
        draft_handle: T.handle,
        tokens_handle: T.handle,
        model_handle: T.handle,
        first_child_handle: T.handle,
        next_sibling_handle: T.handle,
        uniform_handle: T.handle,
        parents_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        nodes = T.int32()
        vocabulary = T.int32()
        sequences = T.int32()
        draft = T.match_buffer(draft_handle, (nodes, vocabulary), "float32")
        tokens = T.match_buffer(tokens_handle, (nodes,), "int32")
        model = T.match_buffer(model_handle, (nodes, vocabulary), "float32")
        first_child = T.match_buffer(first_child_handle, (nodes,), "int32")
        next_sibling = T.match_buffer(next_sibling_handle, (nodes,), "int32")
        uniform = T.match_buffer(uniform_handle, (nodes,), "float32")
        parents = T.match_buffer(parents_handle, (sequences,), "int32")
        for bx in T.thread_binding(sequences, "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                parts = T.alloc_buffer((THREADS,), "float32", scope="shared")
                accepted = T.alloc_buffer((1,), "int32", scope="shared")
                own = T.alloc_buffer((1,), "float32", scope="local")
                taken = T.alloc_buffer((1,), "int32", scope="local")
                node = T.alloc_buffer((2,), "int32", scope="local")
                node[0] = parents[bx]
                node[1] = first_child[node[0]]
                while node[1] != -1:
                    # The thread that rewrites a token's model probability is also the one that reads it here.
                    if tx == tokens[node[1]] % THREADS:
                        accepted[0] = T.Select(
                            model[node[0], tokens[node[1]]] >= uniform[node[1]] * draft[node[1], tokens[node[1]]],
                            1,
                            0,
                        )
                    T.tvm_storage_sync("shared")
                    taken[0] = accepted[0]
                    own[0] = T.float32(0)
                    if taken[0] == 0:
                        for i in T.serial(blocks(vocabulary)):
                            if i * THREADS + tx < vocabulary:
                                own[0] = own[0] + T.max(
                                    model[node[0], i * THREADS + tx] - draft[node[1], i * THREADS + tx], T.float32(0)
                                )
                    parts[tx] = own[0]
                    block_sum(parts, tx)
                    own[0] = parts[0]
                    T.tvm_storage_sync("shared")
                    if taken[0] == 1 or own[0] < T.float32(NOTHING_LEFT):
                        node[0] = node[1]
                        node[1] = first_child[node[1]]
                    else:
                        for i in T.serial(blocks(vocabulary)):
                            if i * THREADS + tx < vocabulary:
                                model[node[0], i * THREADS + tx] = (
                                    T.max(
                                        model[node[0], i * THREADS + tx] - draft[node[1], i * THREADS + tx],
                                        T.float32(0),
                                    )
                                    / own[0]
                                )
                        node[1] = next_sibling[node[1]]
                if tx == 0:
                    parents[bx] = node[0]

    return verify_draft_tokens
