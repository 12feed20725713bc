"""Add the softmax that a runtime applies to logits before it samples on the host.

Before: no such function.
After: `softmax_with_temperature(logits[b, 1, v], temperature[b]) -> [b, 1, v]`, float32: one kernel on CPU, two on GPUs.
A temperature of at most 1e-5 means greedy: the probability is shared by the largest logits.  Tokens beyond the active
vocabulary (padding of the embedding table) have probability 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from llmbuild.compiler.kernels import Softmax
from llmbuild.compiler.reuse import directly


@tvm.transform.module_pass(opt_level=0, name="AttachSoftmaxWithTemperature")
class AttachSoftmaxWithTemperature:
    """See the module's docstring."""

    def __init__(self, kernels: Softmax, active_vocab_size: int | None, one: Callable[..., Any] = directly) -> None:
        """`one` gives the kernel that a function makes of arguments."""
        self.kernels = kernels
        self.active_vocab_size = active_vocab_size
        self.one = one

    def transform_module(self, module: Any, _: Any) -> Any:
        builder = relax.BlockBuilder(module)
        batch, vocabulary = tirx.Var("batch_size", "int64"), tirx.Var("vocab_size", "int64")
        logits = relax.Var("logits", relax.TensorType([batch, 1, vocabulary], "float32"))
        temperature = relax.Var("temperature", relax.TensorType([batch], "float32"))
        with builder.function("softmax_with_temperature", [logits, temperature]):
            with builder.dataflow():
                call = self.kernels.softmax(builder, logits, temperature, self.active_vocab_size, self.one)
                result = builder.emit_output(call)
            builder.emit_func_output(result)
        return builder.finalize()
