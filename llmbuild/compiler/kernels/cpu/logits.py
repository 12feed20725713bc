"""CPU forms of the functions that alter logits in place: loops over the listed tokens, and over the bits of a mask."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T


def logit_bias_kernel() -> Any:
    @T.prim_func(s_tir=True)
    def apply_logit_bias_inplace(
        logits_handle: T.handle, rows_handle: T.handle, tokens_handle: T.handle, bias_handle: T.handle
    ) -> None:
        """logits[rows[i], tokens[i]] += bias[i]."""
        T.func_attr({"global_symbol": "apply_logit_bias_inplace", "tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        count = T.int32()
        logits = T.match_buffer(logits_handle, (batch, vocabulary), "float32")
        rows = T.match_buffer(rows_handle, (count,), "int32")
        tokens = T.match_buffer(tokens_handle, (count,), "int32")
        bias = T.match_buffer(bias_handle, (count,), "float32")
        for i in T.serial(count):
            logits[rows[i], tokens[i]] = logits[rows[i], tokens[i]] + bias[i]

    return apply_logit_bias_inplace


def penalty_kernel() -> Any:
    @T.prim_func(s_tir=True)
    def apply_penalty_inplace(
        logits_handle: T.handle,
        sequences_handle: T.handle,
        positions_handle: T.handle,
        tokens_handle: T.handle,
        counts_handle: T.handle,
        penalties_handle: T.handle,
    ) -> None:
        """For each token i that sequence positions[i] has seen counts[i] times, with penalties (presence, frequency,
        repetition) of that sequence: subtract presence + count * frequency, then move the logit away from the top by the
        repetition factor."""
        T.func_attr({"global_symbol": "apply_penalty_inplace", "tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        count = T.int32()
        sequence_count = T.int32()
        logits = T.match_buffer(logits_handle, (batch, vocabulary), "float32")
        sequences = T.match_buffer(sequences_handle, (sequence_count,), "int32")
        positions = T.match_buffer(positions_handle, (count,), "int32")
        tokens = T.match_buffer(tokens_handle, (count,), "int32")
        counts = T.match_buffer(counts_handle, (count,), "int32")
        penalties = T.match_buffer(penalties_handle, (sequence_count, 3), "float32")
        value = T.alloc_buffer((1,), "float32", scope="global")
        for i in T.serial(count):
            value[0] = logits[sequences[positions[i]], tokens[i]] - (
                penalties[positions[i], 0] + T.Cast("float32", counts[i]) * penalties[positions[i], 1]
            )
            logits[sequences[positions[i]], tokens[i]] = T.if_then_else(
                value[0] < T.float32(0), value[0] * penalties[positions[i], 2], value[0] / penalties[positions[i], 2]
            )

    return apply_penalty_inplace


def bitmask_kernel() -> Any:
    @T.prim_func(s_tir=True)
    def apply_bitmask_inplace(logits_handle: T.handle, sequences_handle: T.handle, bitmask_handle: T.handle) -> None:
        """Where bit v of a listed sequence's mask is 0, logits[sequence, v] becomes the lowest float32."""
        T.func_attr({"global_symbol": "apply_bitmask_inplace", "tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        count = T.int32()
        logits = T.match_buffer(logits_handle, (batch, vocabulary), "float32")
        sequences = T.match_buffer(sequences_handle, (count,), "int32")
        bitmask = T.match_buffer(bitmask_handle, (batch, (vocabulary + 31) // 32), "int32")
        for i in T.serial(count):
            for v in T.serial(vocabulary):
                if T.bitwise_and(T.shift_right(bitmask[sequences[i], v // 32], v % 32), 1) == 0:
                    logits[sequences[i], v] = T.min_value("float32")

    return apply_bitmask_inplace
