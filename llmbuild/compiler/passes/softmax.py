"""Add the softmax that a runtime applies to logits before it samples on the host.

Before: no such function.
After: `softmax_with_temperature(logits[b, 1, v], temperature[b]) -> [b, 1, v]`, float32: one kernel on CPU, two on GPUs.
A temperature of at most 1e-5 means greedy: the probability is shared by the largest logits.  Tokens beyond the active
vocabulary (padding of the embedding table) have probability 0.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import LANES, lane_sum
from llmbuild.compiler.kernels.gpu import softmax as gpu
from llmbuild.compiler.kernels.gpu.block import add_kernel, blocks


def _softmax(active: int | None) -> Any:
    @T.prim_func(private=True, s_tir=True)
    def softmax(logits_handle: T.handle, temperature_handle: T.handle, result_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int64()
        vocabulary = T.int64()
        logits = T.match_buffer(logits_handle, (batch, 1, vocabulary), "float32")
        temperature = T.match_buffer(temperature_handle, (batch,), "float32")
        result = T.match_buffer(result_handle, (batch, 1, vocabulary), "float32")
        used: T.let[T.int64] = vocabulary if active is None else T.min(vocabulary, T.int64(active))
        for b in T.parallel(batch):
            largest = T.alloc_buffer((1,), "float32", scope="global")
            # Eight partial sums: one alone loses digits over a large vocabulary.
            sums = T.alloc_buffer((1, LANES), "float32", scope="global")
            total = T.alloc_buffer((1,), "float32", scope="global")
            largest[0] = T.min_value("float32")
            for v in T.serial(used):
                largest[0] = T.max(largest[0], logits[b, 0, v])
            for j in T.unroll(LANES):
                sums[0, j] = T.float32(0)
            for v in T.serial(used):
                if temperature[b] > T.float32(1e-5):
                    result[b, 0, v] = T.exp((logits[b, 0, v] - largest[0]) / temperature[b])
                else:
                    result[b, 0, v] = T.Cast("float32", logits[b, 0, v] == largest[0])
                sums[0, v % LANES] = sums[0, v % LANES] + result[b, 0, v]
            total[0] = lane_sum(sums, 0)
            for v in T.serial(used):
                result[b, 0, v] = result[b, 0, v] / total[0]
            for v in T.serial(vocabulary - used):
                result[b, 0, used + v] = T.float32(0)

    return softmax


@tvm.transform.module_pass(opt_level=0, name="AttachSoftmaxWithTemperature")
class AttachSoftmaxWithTemperature:
    """See the module's docstring."""

    def __init__(self, device: str, active_vocab_size: int | None) -> None:
        self.device = device
        self.active_vocab_size = active_vocab_size

    def transform_module(self, module: Any, _: Any) -> Any:
        builder = relax.BlockBuilder(module)
        batch, vocabulary = tirx.Var("batch_size", "int64"), tirx.Var("vocab_size", "int64")
        logits = relax.Var("logits", relax.TensorType([batch, 1, vocabulary], "float32"))
        temperature = relax.Var("temperature", relax.TensorType([batch], "float32"))
        with builder.function("softmax_with_temperature", [logits, temperature]):
            with builder.dataflow():
                if self.device == "cpu":
                    kernel = builder.add_func(_softmax(self.active_vocab_size), "softmax")
                    call = relax.call_tir(kernel, [logits, temperature], out_ty=logits.ty)
                else:
                    call = self._in_chunks(builder, logits, temperature)
                result = builder.emit_output(call)
            builder.emit_func_output(result)
        return builder.finalize()

    def _in_chunks(self, builder: Any, logits: Any, temperature: Any) -> Any:
        batch, _, vocabulary = logits.ty.shape
        chunks = relax.TensorType([batch, blocks(vocabulary, gpu.CHUNK)], "float32")
        statistics = add_kernel(builder, gpu.statistics_kernel(self.active_vocab_size), "softmax_statistics")
        probabilities = add_kernel(builder, gpu.probabilities_kernel(self.active_vocab_size), "softmax_probabilities")
        found = builder.emit(relax.call_tir(statistics, [logits, temperature], out_ty=[chunks, chunks]))
        return relax.call_tir(probabilities, [logits, temperature, found[0], found[1]], out_ty=logits.ty)
