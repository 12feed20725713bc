"""Add the function that allocates the buffer into which a runtime gathers embeddings.

Before: `embed(ids[s], P) -> [s, h]`.
After: also `alloc_embedding_tensor() -> [prefill_chunk_size, h]` of the same dtype.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax


@tvm.transform.module_pass(opt_level=0, name="AttachEmbeddingAllocator")
class AttachEmbeddingAllocator:
    """See the module's docstring."""

    def __init__(self, prefill_chunk_size: int) -> None:
        self.prefill_chunk_size = prefill_chunk_size

    def transform_module(self, module: Any, _: Any) -> Any:
        result = module["embed"].ret_ty
        builder = relax.BlockBuilder(module)
        with builder.function("alloc_embedding_tensor", []):
            shape = relax.ShapeExpr([self.prefill_chunk_size, result.shape[-1]])
            dtype = tvm.ir.GenericConst(tvm.DataType(str(result.dtype.dtype)), relax.AnyType())
            buffer = builder.emit(relax.op.builtin.alloc_tensor(shape, dtype, runtime_device_index=0))
            builder.emit_func_output(buffer)
        return builder.finalize()
