"""Add the functions with which a runtime alters logits in place before it samples.

Before: no such functions.
After: the PrimFuncs `apply_logit_bias_inplace`, `apply_penalty_inplace` and `apply_bitmask_inplace`.  Sizes are int32;
logits are float32 [batch, vocabulary].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm

from llmbuild.compiler.kernels import LogitProcessors
from llmbuild.compiler.reuse import directly

NAMES = ("apply_logit_bias_inplace", "apply_penalty_inplace", "apply_bitmask_inplace")


@tvm.transform.module_pass(opt_level=0, name="AttachLogitProcessors")
class AttachLogitProcessors:
    """See the module's docstring."""

    def __init__(self, kernels: LogitProcessors, one: Callable[..., Any] = directly) -> None:
        """`one` gives the kernel that a function makes of arguments."""
        self.kernels = kernels
        self.one = one

    def transform_module(self, module: Any, _: Any) -> Any:
        makers = (self.kernels.logit_bias_kernel, self.kernels.penalty_kernel, self.kernels.bitmask_kernel)
        for name, make in zip(NAMES, makers, strict=True):
            module[name] = self.one(make)
        return module
