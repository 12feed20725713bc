"""A whole model with the code of an OpenCL library: PoCL runs every kernel, and transformers gives the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.generic_library import reference_logits, relative_l2
from tests.helpers.opencl import require
from tests.helpers.opencl_library import OpenCLLibrary


@pytest.mark.slow
def test_logits_of_a_quantized_model() -> None:
    require()
    directory = cached_checkpoint("llama-gqa")
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, 300, 27)]
    library = OpenCLLibrary(directory, "q4f32_1")
    got = library.generate(tokens[:23], tokens[23:])
    assert relative_l2(got, reference_logits(directory, tokens, "q4f32_1")[22:]) < 1e-5
    # The linear layers read packed weights in both phases; the cache's attention is the GPU's.
    launched = library.device.launches
    assert launched["batch_prefill_ragged_kv_kernel"] and launched["batch_decode_paged_kv_kernel"]
    assert sum(count for name, count in launched.items() if "dequantize_matmul" in name) > 0
