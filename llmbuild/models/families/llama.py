"""Llama: Llama 2 and 3, CodeLlama, SmolLM and everything else with the architecture LlamaForCausalLM."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.standard(
        "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
        "tie_word_embeddings position_embedding_base rope_scaling context_window_size prefill_chunk_size "
        "num_key_value_heads head_dim tensor_parallel_shards pipeline_parallel_stages max_batch_size disaggregation"
    ),
    rows.flag("attention_bias", False).extra(False),
    rows.flag("mlp_bias", False).extra(False),
    rows.activation("silu").extra("silu"),
)
"""MLC's fields in MLC's order, then biases and the activation, which MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv_bias=c.attention_bias, out_bias=c.attention_bias)
    mlp = mlp_of(c, bias=c.mlp_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, disaggregation=c.disaggregation)


LONG = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5}
MLLAMA = without(LLAMA, "head_dim", "attention_bias", "mlp_bias") | LONG
INTERNLM3 = LLAMA | {"num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5}
BIASES = {"qkv_bias": "attention_bias", "bias": "mlp_bias"}
CLASSES = {
    "llama": ConfigClass("LlamaConfig", LLAMA, GROUPED),
    "internlm3": ConfigClass("InternLM3Config", INTERNLM3, GROUPED, BIASES),
    "mllama_text_model": ConfigClass("MllamaTextConfig", MLLAMA, default_theta=500000),
    "iquestcoder": ConfigClass("IQuestCoderConfig", LLAMA | LONG | {"head_dim": 128}, GROUPED),
}
NAMES = ("LlamaForCausalLM", "LLaMAForCausalLM", "InternLM3ForCausalLM", "IQuestCoderForCausalLM")
GGUF = GgufArchitecture("llama", neighbours=True, pre="llama-bpe")
FAMILY = DecoderFamily("llama", NAMES, ROWS, decoder, CLASSES, gguf=GGUF)
