"""EXAONE 3 and 3.5: Llama under other names, which transformers keeps in files although it computes with its Llama."""

from dataclasses import replace

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass
from llmbuild.models.families import llama
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import DecoderSpec, Names

NAMES = Names(
    checkpoint=(
        ("model.embed_tokens", "transformer.wte"),
        ("model.layers", "transformer.h"),
        ("model.norm", "transformer.ln_f"),
        ("self_attn", "attn.attention"),
        ("o_proj", "out_proj"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
        ("gate_proj", "c_fc_0"),
        ("up_proj", "c_fc_1"),
        ("down_proj", "c_proj"),
    )
)


def decoder(c: ModelConfig) -> DecoderSpec:
    return replace(llama.decoder(c), names=NAMES)


RENAMED = {
    "num_layers": "num_hidden_layers",
    "layer_norm_epsilon": "rms_norm_eps",
    "activation_function": "hidden_act",
}
DEFAULTS = LLAMA | {"num_key_value_heads": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
CLASS = ConfigClass("ExaoneConfig", DEFAULTS, GROUPED, RENAMED, default_theta=500000)
GGUF = GgufArchitecture("exaone", pre="exaone")
FAMILY = DecoderFamily(
    "exaone", ("ExaoneForCausalLM", "LlamaForCausalLM"), llama.ROWS, decoder, {"exaone": CLASS}, gguf=GGUF
)
