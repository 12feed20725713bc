"""VaultGemma: Gemma 2 without norms of what attention and MLP give."""

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.families import gemma2
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import DecoderSpec


def decoder(c: ModelConfig) -> DecoderSpec:
    return gemma2.decoder(c, norms_after=False)


CLASS = ConfigClass("VaultGemmaConfig", gemma2.DEFAULTS, gemma2.NULLABLE, layer_rule=gemma2.ALTERNATING)
FAMILY = DecoderFamily("vaultgemma", ("VaultGemmaForCausalLM",), gemma2.ROWS, decoder, {"vaultgemma": CLASS})
