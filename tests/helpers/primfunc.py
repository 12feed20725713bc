"""Compile one PrimFunc for this machine's CPU and call it with NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def compile_function(function: Any, features: Sequence[str] = ()) -> Callable[..., None]:
    """A callable on arrays; the arrays that the function writes are updated.  `features` are those beyond AVX2 that it needs."""
    import tvm

    base = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
    target = tvm.target.Target({**base, "mattr": [f"+{feature}" for feature in features]} if features else base)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        compiled = tvm.compile(module, target=target)["main"]

    def call(*args: Any) -> None:
        tensors = [tvm.runtime.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        compiled(*tensors)
        for array, tensor in zip(args, tensors, strict=True):
            if isinstance(array, np.ndarray):
                array[...] = tensor.numpy()

    return call
