"""Keys of a config.json that bear on what is computed, with the values that change nothing and the model types that read them.

A key that a family does not read must have a neutral value: passed over in silence, any other would make another model of the
checkpoint.  The readers are the causal language models of transformers whose class or module names the key; a test holds the
table against the installed classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmbuild.canonical import Json

TRANSFORMERS = "5.24.0"
"""The release that the readers and the model types are of."""


@dataclass(frozen=True, slots=True)
class MathsKey:
    """A list is neutral where all its elements are.  `readers` None: code that all classes of transformers share reads it."""

    neutral: tuple[Json, ...]
    readers: frozenset[str] | None

    def is_neutral(self, value: Json) -> bool:
        return all(one in self.neutral for one in value) if isinstance(value, list | tuple) else value in self.neutral

    def is_read_by(self, model_type: str) -> bool:
        """Whether transformers' class for the model type reads it; true also of a type that transformers does not know."""
        return self.readers is None or model_type in self.readers or model_type not in MODEL_TYPES


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MATHS_KEYS: Mapping[str, MathsKey] = {
    "is_causal": MathsKey((True,), None),
    "layer_types": MathsKey((None, "full_attention", "attention"), None),
    "sliding_window": MathsKey((None,), None),
    "attention_chunk_size": MathsKey((None,), None),
    "per_layer_config": MathsKey((None,), None),
    "kv_sharing_modes": MathsKey((None,), None),
    "is_encoder_decoder": MathsKey((False,), None),
    "use_sliding_window": MathsKey(
        (False, None),
        _names("dots3_note dots3_note_text got_ocr2 iquestcoder qwen2 qwen2_moe qwen3 qwen3_moe smollm3"),
    ),
    "no_rope_layers": MathsKey((1, None), _names("llama4 llama4_text smollm3")),
    "no_rope_layer_interval": MathsKey((None,), _names("llama4_text smollm3")),
    "attn_temperature_tuning": MathsKey((False, 0, None), _names("llama4 llama4_text")),
    "embedding_multiplier": MathsKey(
        (1, None),
        _names(
            "falcon_h1 granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared hyperclovax "
            "inkling_text"
        ),
    ),
    "residual_multiplier": MathsKey(
        (1, None),
        _names("granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared hyperclovax"),
    ),
    "logits_scaling": MathsKey(
        (1, None),
        _names("granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared hyperclovax minicpm3"),
    ),
    "attention_multiplier": MathsKey(
        (None,),
        _names("granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared hyperclovax"),
    ),
    "logit_scale": MathsKey((1, None), _names("cohere cohere2 cohere2_moe cohere_compass_text mpt")),
    "scale_emb": MathsKey((1, None), _names("minicpm3")),
    "scale_depth": MathsKey((None,), _names("minicpm3")),
    "dim_model_base": MathsKey((None,), _names("minicpm3")),
    "query_pre_attn_scalar": MathsKey((None,), _names("gemma2 gemma3 gemma3_text vaultgemma")),
    "attn_logit_softcapping": MathsKey((None,), _names("gemma2 gemma3 gemma3_text vaultgemma")),
    "final_logit_softcapping": MathsKey(
        (None,),
        _names(
            "beam gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified "
            "gemma4_unified_text inkling2_loop_text inkling2_text nanochat vaultgemma"
        ),
    ),
    "clip_qkv": MathsKey((None,), _names("dbrx iquestcoder mpt olmo olmoe")),
    "qk_layernorm": MathsKey((False, None), _names("fuyu persimmon phi stablelm")),
    "use_qk_norm": MathsKey((False, None), _names("cohere glm4_moe llama4 llama4_text sarvam_moe")),
    "qk_norm": MathsKey((False, None), _names("llama4 llama4_text")),
    "partial_rotary_factor": MathsKey(
        (1, None),
        _names(
            "bamba deepseek_v4 dots3_note dots3_note_text fuyu gemma4 gemma4_text gemma4_unified gemma4_unified_text "
            "glm glm4 glm4_moe glm4_moe_lite gpt_neox gpt_neox_japanese laguna lfm3 mellum mimo_v2_flash minimax_m2 "
            "minimax_m3_vl_text nemotron persimmon phi phi3 phi4_multimodal qwen3_5 qwen3_5_moe qwen3_5_moe_text "
            "qwen3_5_text qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma sarvam_moe solar_open stablelm zaya"
        ),
    ),
    "rotary_pct": MathsKey((1, None), _names("gpt_neox gpt_neox_japanese")),
    "rope_interleave": MathsKey((False, None), _names("axk1 deepseek_v3 glm4_moe_lite sarvam_mla youtu")),
    "rope_local_base_freq": MathsKey((None,), _names("gemma3 gemma3_text gemma3n gemma3n_text")),
    "llama_4_scaling_beta": MathsKey((0, None), _names("ministral3")),
    "num_experts": MathsKey(
        (0, None),
        _names(
            "afmoe bailing_hybrid beam cohere2_moe deepseek_v2 deepseek_v32 doge ernie4_5_moe exaone_moe flex_olmo "
            "flint gemma4 gemma4_text glm_moe_dsa gpt_oss hunyuan_v1_moe hy_v3 jamba kimi_linear kolibri1 laguna "
            "lara_mini lfm2_moe mellum minimax minimax_m2 minimax_m3_vl_text mixtral olmoe qwen2_moe qwen3_5_moe "
            "qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text sarvam_mla sarvam_moe zaya"
        ),
    ),
    "num_local_experts": MathsKey(
        (0, None),
        _names(
            "axk1 axk2 bailing_hybrid deepseek_v3 deepseek_v32 deepseek_v4 dots1 dots3_note dots3_note_text flex_olmo "
            "glm4_moe glm4_moe_lite glm_moe_dsa gpt_oss granitemoe granitemoe_swa granitemoehybrid granitemoeshared "
            "hunyuan_v1_moe hy_v3 hy_v4 inkling2_loop_text inkling2_text inkling_text jamba jetmoe kimi_linear "
            "kolibri1 llama4 llama4_text longcat_flash mellum mimo_v2_flash minimax minimax_m2 minimax_m3_vl_text "
            "mixtral nemotron_h olmoe phimoe qwen3_moe sarvam_mla sarvam_moe solar_open"
        ),
    ),
    "n_routed_experts": MathsKey(
        (0, None),
        _names(
            "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1 dots3_note dots3_note_text glm4_moe "
            "glm4_moe_lite glm_moe_dsa hy_v4 inkling2_loop_text inkling2_text inkling_text longcat_flash "
            "mimo_v2_flash nemotron_h sarvam_mla sarvam_moe solar_open"
        ),
    ),
    "kv_lora_rank": MathsKey(
        (0, None),
        _names(
            "axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 dots3_note dots3_note_text glm4_moe_lite "
            "glm_moe_dsa hy_v4 kimi_linear longcat_flash minicpm3 sarvam_mla youtu"
        ),
    ),
    "q_lora_rank": MathsKey(
        (0, None),
        _names(
            "axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots3_note dots3_note_text "
            "glm4_moe_lite glm_moe_dsa hy_v4 kimi_linear longcat_flash minicpm3 sarvam_mla youtu"
        ),
    ),
    "hc_mult": MathsKey((0, None), _names("deepseek_v4 hy_v4")),
    "index_topk": MathsKey(
        (0, None),
        _names("axk2 deepseek_v32 deepseek_v4 dots3_note dots3_note_text glm_moe_dsa hy_v4"),
    ),
    "swiglu_limit": MathsKey((0, None), _names("deepseek_v4 gpt_oss hy_v4 minimax_m3_vl_text")),
    "alibi": MathsKey((False, None), _names("falcon")),
    "position_embedding_type": MathsKey(("rope", "rotary", None), _names("granitemoehybrid")),
    "parallel_attn": MathsKey((False, None), _names("falcon")),
    "use_parallel_residual": MathsKey((False, None), _names("gpt_neox stablelm")),
    "use_bias": MathsKey(
        (False, None),
        _names(
            "big_bird bigbird_pegasus dots3_note dots3_note_text ernie4_5 ernie4_5_moe falcon_mamba mamba mamba2 "
            "nemotron_h starcoder2 xlstm"
        ),
    ),
    "bias": MathsKey((False, None), _names("blt falcon internlm3 recurrent_gemma")),
    "qkv_bias": MathsKey((False, None), _names("got_ocr2 internlm3 qwen2_moe")),
    "use_qkv_bias": MathsKey((False, None), _names("sarvam_moe stablelm")),
    "attention_out_bias": MathsKey((False, None), _names("seed_oss")),
    "norm_topk_prob": MathsKey(
        (False, None),
        _names(
            "axk1 axk2 bailing_hybrid beam cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 doge dots1 "
            "dots3_note dots3_note_text exaone_moe flex_olmo flint glm4_moe glm4_moe_lite glm_moe_dsa hy_v4 "
            "kimi_linear kolibri1 lara_mini lfm2_moe mellum mimo_v2_flash nemotron_h olmoe qwen2_moe qwen3_moe "
            "qwen3_next qwen4_exp qwen4_exp_text sarvam_mla sarvam_moe solar_open"
        ),
    ),
    "lm_head_bias": MathsKey((False, None), _names("phimoe zaya")),
    "use_post_norm": MathsKey((False, None), _names("hyperclovax")),
    "hidden_size_per_layer_input": MathsKey(
        (0, None), _names("gemma3n gemma3n_text gemma4 gemma4_assistant gemma4_text")
    ),
    "vocab_size_per_layer_input": MathsKey(
        (0, None), _names("gemma3n gemma3n_text gemma4 gemma4_assistant gemma4_text")
    ),
    "num_kv_shared_layers": MathsKey(
        (0, None),
        _names(
            "gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified gemma4_unified_assistant "
            "gemma4_unified_text"
        ),
    ),
    "attention_k_eq_v": MathsKey((False, None), _names("gemma4 gemma4_text gemma4_unified gemma4_unified_text")),
    "use_bidirectional_attention": MathsKey(
        (False, None),
        _names(
            "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text"
        ),
    ),
    "gating": MathsKey((False, None), _names("laguna")),
    "norm_type": MathsKey((None,), _names("mpt")),
    "scale_attn_weights": MathsKey((True, None), _names("gpt-sw3 gpt2 gpt_bigcode")),
    "scale_attn_by_inverse_layer_idx": MathsKey((False, None), _names("gpt-sw3 gpt2")),
    "multi_query": MathsKey((False, None), _names("falcon gpt_bigcode")),
    "rotary_dim": MathsKey((None,), _names("codegen gptj minimax_m2 minimax_m3_vl_text")),
    "apply_residual_connection_post_layernorm": MathsKey((False, None), _names("bloom")),
    "position_encoding_2d": MathsKey((False, None), _names("")),
    "pre_seq_len": MathsKey((0, None), _names("")),
    "sparse_config": MathsKey((None,), _names("")),
}

MODEL_TYPES = _names(
    "afmoe apertus apertus1p5_text arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation "
    "big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom blt camembert codegen cohere cohere2 "
    "cohere2_moe cohere_compass_text cpmant ctrl cwm data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32 "
    "deepseek_v4 diffllama doge dory dots1 dots3_note dots3_note_text electra emu3 ernie ernie4_5 ernie4_5_moe exaone "
    "exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint fuyu gemma gemma2 gemma3 gemma3_text gemma3n "
    "gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_text git "
    "glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese "
    "gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text "
    "hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_loop_text inkling2_text inkling_text internlm3 "
    "iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lara_mini lfm2 lfm2_moe lfm3 llama llama4 llama4_text "
    "longcat_flash mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2 "
    "minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder moshi moss_transcribe_diarize "
    "mpt musicgen musicgen_melody mvp nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt "
    "pegasus persimmon phi phi3 phi4_multimodal phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_5 qwen3_5_moe "
    "qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma reformer rembert "
    "roberta roberta-prelayernorm roc_bert roformer rwkv sarvam_mla sarvam_moe seed_oss smollm3 solar_open stablelm "
    "starcoder2 trocr vaultgemma whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod youtu zamba zamba2 zaya"
)
"""The causal language models of transformers, by the `model_type` of their config.json."""
