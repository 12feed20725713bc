"""The keys of GGUF metadata under an architecture's prefix, and what each of them means for those that are supported.

gguf defines them for all architectures; a test holds these tables against the ones that the installed package has.  A key that
is in no table is none of gguf's, and llama.cpp does not read it either.
"""

from __future__ import annotations

from collections.abc import Mapping

READ = frozenset(
    {
        *(
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "use_parallel_residual",
            "expert_count",
        ),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.sliding_window"),
        *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
        "rope.scaling.original_context_length",
    }
)
"""Keys that the configuration is made of."""

NEUTRAL: Mapping[str, tuple[bool | int | str, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.output_scale": (0, 1),
    "attention.scale": (0,),
    "attention.sliding_window_pattern": (0, 1),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "full_attention_interval": (0, 1),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "swin_norm": (False,),
    # Converters of Llama note where they took the layout of its queries and keys from.
    "tensor_data_layout": ("Meta AI original pth",),
    # A part that other architectures have, or a size of it: none of it is there.
    **dict.fromkeys(
        (
            *("activation_sparsity_scale", "altup.active_idx", "altup.num_inputs", "decoder_block_count"),
            *("embedding_length_per_layer_input", "features_length", "n_deepstack_layers", "nextn_predict_layers"),
            *("rescale_every_n_layers", "swiglu_clamp_exp", "swiglu_clamp_shexp", "time_decay_extra_dim"),
            *("time_mix_extra_dim", "token_shift_count", "decoder_start_token_id"),
            *("attention.decay_lora_rank", "attention.gate_lora_rank", "attention.iclr_lora_rank"),
            *("attention.kv_lora_rank", "attention.q_lora_rank", "attention.value_residual_mix_lora_rank"),
            *("attention.group_norm_epsilon", "attention.group_norm_groups", "attention.relative_buckets_count"),
            *("attention.key_length_mla", "attention.value_length_mla", "attention.shared_kv_layers"),
            *("attention.key_length_swa", "attention.value_length_swa"),
            *("attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.top_k"),
            *("attention.temperature_length", "attention.temperature_scale"),
            *("rope.dimension_count_swa", "rope.dimension_sections", "rope.freq_base_swa"),
            *("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"),
            *("ssm.dt_b_c_rms", "kda.head_dim", "wkv.head_size", "shortconv.l_cache", "classifier.output_labels"),
            *("posnet.embedding_length", "posnet.block_count", "convnext.embedding_length", "convnext.block_count"),
        ),
        (0,),
    ),
}
"""Keys of other architectures that change what is computed, with the values that change nothing; 0 is llama.cpp's "not set"."""

OF_YARN: Mapping[str, tuple[int, ...] | None] = {
    "rope.scaling.yarn_log_multiplier": (0,),
    "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_beta_fast": None,
    "rope.scaling.yarn_beta_slow": None,
}
"""Keys that count where rope.scaling.type is "yarn", with the values that change nothing; None: the key is read."""

YARN_NAMES: Mapping[str, str] = {
    "rope.scaling.yarn_attn_factor": "attention_factor",
    "rope.scaling.yarn_log_multiplier": "mscale_all_dim",
}
"""Those whose other values are read too, with config.json's names of them."""

OF_EXPERTS = frozenset(
    {
        *("expert_chunk_feed_forward_length", "expert_feed_forward_length", "expert_gating_func", "expert_group_count"),
        *("expert_group_scale", "expert_group_used_count", "expert_shared_count", "expert_shared_feed_forward_length"),
        *("expert_used_count", "expert_weights_norm", "expert_weights_scale", "experts_per_group"),
        *("interleave_moe_layer_step", "leading_dense_block_count", "moe_every_n_layers", "moe_latent_size"),
        "router_logit_softcapping",
    }
)
"""Keys of a mixture of experts, which count where expert_count is not 0."""

HARMLESS: Mapping[str, str] = {
    "vocab_size": "the embedding's rows count",
    "embedding_length_out": "the length of a text's embedding, not of a token's",
    "pooling_type": "how a text's embedding is made of those of its tokens",
    "{dense}_feat_in": "a layer after a text's embedding",
    "{dense}_feat_out": "a layer after a text's embedding",
    "rope.scaling.finetuned": "how the model was trained",
}
"""Keys that say nothing of what a decoder computes, with what they say."""
