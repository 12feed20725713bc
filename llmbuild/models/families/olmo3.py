"""OLMo 3: OLMo 2 with a window in three layers of four, and a RoPE of its own, without scaling, for these."""

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, local_blocks, local_rope_of, rope_of
from llmbuild.models.config_classes import WINDOWED, ConfigClass
from llmbuild.models.families import olmo2
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.layer_types import SLIDING, all_but_each
from llmbuild.models.spec import DecoderSpec, NormSpec
from llmbuild.models.windows import local_layers, windowed

ALL_BUT_EACH_FOURTH = all_but_each(4)
ROWS = (
    *windowed(olmo2.ROWS),
    rows.number("rope_local_base_freq", default=500000),
    local_layers(ALL_BUT_EACH_FOURTH),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("rms", c.rms_norm_eps), rope_of(c)
    blocks = local_blocks(c, olmo2.block_of(c, norm, rope), local_rope_of(c), rope)
    return decoder_of(c, blocks, norm, names=olmo2.NAMES)


CLASS = ConfigClass(
    "Olmo3Config",
    olmo2.DEFAULTS | {"sliding_window": 4096, "layer_types": None},
    WINDOWED,
    default_theta=500000,
    layer_rule=ALL_BUT_EACH_FOURTH,
    ropes_by_layer=True,
    default_local_theta=500000,
)


def _ropes(values: GgufValues) -> dict[str, Json]:
    """A RoPE for layers with a window, whose base is that of all where the file names none."""
    key = "rope.freq_base_swa" if values.says("rope.freq_base_swa") else "rope.freq_base"
    return {SLIDING: {"rope_theta": values.number(key, 10000.0)}}


GGUF = GgufArchitecture("olmo2", keys={"rope_parameters": _ropes}, when=lambda values: values.windowed)
FAMILY = DecoderFamily("olmo3", ("Olmo3ForCausalLM",), ROWS, decoder, {"olmo3": CLASS}, gguf=GGUF)
