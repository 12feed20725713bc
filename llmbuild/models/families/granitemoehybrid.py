"""Granite 4 (dense): Granite in the class of its hybrids, whose MLP is the packed one that experts share.

Models with layers of state or with experts have the same class, and are not built yet.
"""

from collections.abc import Mapping
from dataclasses import replace

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import granite
from llmbuild.models.family import ModelConfig
from llmbuild.models.layer_types import FULL
from llmbuild.models.spec import DecoderSpec, NormSpec
from llmbuild.models.values import ConfigValues, shown

ROWS = rows.but(granite.ROWS, rows.constant("mlp_bias", False).extra(False))


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    mlp = mlp_of(c, name="shared_mlp", up="input_linear", up_sources=("input_linear",), down="output_linear")
    block = replace(granite.block_of(c, rope_of(c), norm), mlp=mlp)
    return decoder_of(c, block, norm, embedding_scale=c.embedding_multiplier, logit_scale=1 / c.logits_scaling)


def _adapted(source: ConfigValues) -> Mapping[str, Json]:
    """With the kinds of layers under one name.  Raises InputError for a model with more than attention and this MLP."""
    values = dict(source.values)
    kinds = values.pop("layers_block_type", values.get("layer_types"))
    attends = isinstance(kinds, list | tuple) and all(kind in ("attention", FULL) for kind in kinds)
    experts, positions = values.get("num_local_experts", 8), values.get("position_embedding_type")
    for key, value, known, why in (
        (
            "layer_types",
            kinds,
            attends,
            "layers with a state are not built yet, which a layer is that is not attention",
        ),
        ("num_local_experts", experts, experts == 0, "mixtures of experts are not built yet"),
        ("position_embedding_type", positions, positions == "rope", "without rope there the model has no positions"),
    ):
        if not known:
            what = f"is {shown(value)}, which is not supported for {source.model_type}"
            raise source.error(key, what, why=why, fix="choose a dense model")
    return values | {"layer_types": kinds}


CLASS = ConfigClass(
    "GraniteMoeHybridConfig",
    without(granite.DEFAULTS, "mlp_bias"),
    frozenset({"num_key_value_heads", *granite.MULTIPLIERS}),
    adapted=_adapted,
)
FAMILY = DecoderFamily(
    "granitemoehybrid",
    ("GraniteMoeHybridForCausalLM",),
    ROWS,
    decoder,
    {"granitemoehybrid": CLASS},
    spelling={"intermediate_size": "shared_intermediate_size"},
)
