"""What a library will record of itself, as far as memory depends on it, before it is built and without TVM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.family import ModelConfig
    from llmbuild.quantization.scheme import Scheme


def expected_record(family: DecoderFamily, config: ModelConfig, scheme: Scheme) -> dict[str, Any]:
    """The parameters, the KV cache and the sizes, as `llmbuild.compiler.lower` records them, without `memory_usage`.

    Raises ValueError for a scheme whose weights come packed: what they are is known from the checkpoint alone.
    """
    from llmbuild.models.kv_cache import kv_cache_layout
    from llmbuild.models.parameters import parameters
    from llmbuild.quantization.convert import stored_tensors

    if scheme.comes_packed:
        raise ValueError(f"{scheme.name}: the checkpoint says what the weights are")
    decoder = family.decoder(config)
    cache = kv_cache_layout(decoder, scheme.dtype)
    return {
        "quantization": scheme.name,
        "context_window_size": config.context_window_size,
        "sliding_window_size": config.sliding_window_size,
        "prefill_chunk_size": config.prefill_chunk_size,
        "max_batch_size": config.max_batch_size,
        "params": [
            {"name": name, "shape": list(shape), "dtype": dtype.name}
            for parameter in parameters(decoder)
            for name, shape, dtype in stored_tensors(parameter, scheme)
        ],
        "kv_cache": {
            "num_hidden_layers": cache.num_hidden_layers,
            "num_attention_heads": cache.num_attention_heads,
            "num_key_value_heads": cache.num_key_value_heads,
            "head_dim": cache.head_dim,
        },
        **scheme.record(),
    }
