"""HyperCLOVA X: Granite with RMSNorm also of what attention and MLP give, and logits multiplied by their scale."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, rope_of
from llmbuild.models.config_classes import GROUPED, ConfigClass
from llmbuild.models.families import granite
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import DecoderSpec, Names, NormSpec

ROWS = (
    *rows.but(granite.ROWS, rows.optional_number("attention_multiplier")),
    rows.flag("use_post_norm", True),
)
NAMES = Names(after_attention="post_norm1", after_mlp="post_norm2")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    block = granite.block_of(c, rope_of(c), norm, norm if c.use_post_norm else None)
    scales = {"embedding_scale": c.embedding_multiplier, "logit_scale": c.logits_scaling}
    return decoder_of(c, block, norm, names=NAMES, **scales)


DEFAULTS = granite.DEFAULTS | {"attention_multiplier": None, "use_post_norm": True}
CLASS = ConfigClass("HyperCLOVAXConfig", DEFAULTS, GROUPED | {"attention_multiplier"})
FAMILY = DecoderFamily("hyperclovax", ("HyperCLOVAXForCausalLM",), ROWS, decoder, {"hyperclovax": CLASS})
