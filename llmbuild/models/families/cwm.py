"""CWM: Mistral with a window in three of four layers, and with Llama 3's RoPE where a configuration has none."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.families import mistral
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import ORIGINAL
from llmbuild.models.layer_types import all_but_first_of
from llmbuild.models.spec import DecoderSpec

ROWS = (*mistral.ROWS, rows.flag("mlp_bias", False))


def decoder(c: ModelConfig) -> DecoderSpec:
    return mistral.decoder(c, mlp_bias=c.mlp_bias)


SCALING = {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 8192}
CLASS = ConfigClass(
    "CwmConfig",
    mistral.DEFAULTS | {"head_dim": 128, "rms_norm_eps": 1e-5, "sliding_window": 8192, "mlp_bias": False},
    frozenset({"layer_types"}),
    default_theta=1000000,
    default_rope=SCALING | {"rope_theta": 1000000.0},
    layer_rule=all_but_first_of(4),
)
FAMILY = DecoderFamily("cwm", ("CwmForCausalLM",), ROWS, decoder, {"cwm": CLASS})
