"""A decoder that a test describes by hand, compiled by our pipeline with weights given in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from llmbuild.compiler.devices import find_device
from llmbuild.compiler.reuse import directly
from llmbuild.models.build import export_decoder
from llmbuild.models.parameters import parameters
from llmbuild.models.spec import DecoderSpec
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.cache_scenarios import build_with_cache
from tests.helpers.generic_library import GenericLibrary, only

FUNCTIONS = ("embed", "prefill", "decode", "batch_prefill", "batch_decode")


class SpecLibrary(GenericLibrary):
    """A library in float32 for a device kind, with one KV cache."""

    def __init__(
        self,
        spec: DecoderSpec,
        state: Mapping[str, np.ndarray],
        device: str,
        target: Any,
        functions: Sequence[str] = FUNCTIONS,
    ) -> None:
        """`state` has the checkpoint's tensors by name."""
        import tvm

        model = export_decoder(spec, SCHEMES["q0f32"], find_device(device).kernels().linear(target, None, directly))
        self.vm = build_with_cache(only(model.module, functions), model.kv_cache, device, target)
        values = [
            parameter.assemble([state[name] for name in parameter.sources]).astype(parameter.dtype or "float32")
            for parameter in parameters(spec)
        ]
        self.weights = [tvm.runtime.tensor(np.ascontiguousarray(value)) for value in values]
        self.config = SimpleNamespace(sliding_window_size=-1, prefill_chunk_size=128)
        self.cache = None
