"""GLM 4 of 2025 (0414): the block of GLM with norms after attention and MLP too."""

from dataclasses import replace

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.families.glm import DEFAULTS, ROWS, block_of
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import DecoderSpec, NormSpec


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    return decoder_of(c, replace(block_of(c, norm), after_attention=norm, after_mlp=norm), norm)


FAMILY = DecoderFamily(
    "glm4",
    ("Glm4ForCausalLM",),
    ROWS,
    decoder,
    {"glm4": ConfigClass("Glm4Config", DEFAULTS, partial="partial_rotary_factor", default_partial=0.5)},
    gguf=GgufArchitecture("glm4"),
)
