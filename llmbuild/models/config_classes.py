"""What transformers' configuration classes say of keys that a config.json leaves out, as data.

Sizes that the tensors show (hidden size, inner size, layers, heads, vocabulary) have no default here: they must be there, as a
default would only make another error of a missing key.  A test holds what is said of transformers' classes against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmbuild.canonical import Json
from llmbuild.models.frequencies import TYPES
from llmbuild.models.layer_types import LayerRule, every_layer
from llmbuild.models.values import ConfigValues


@dataclass(frozen=True, slots=True)
class ConfigClass:
    """`defaults` are the optional keys that the family reads; those in `nullable` may be null.  A default of None
    is a value that follows from others.

    `renamed` are names that the class takes for others.  `theta` and `partial` are the keys of the RoPE base and of the rotated
    share beside `rope_parameters`; a class without `partial` rotates whole heads.  `rope_types` are the types of RoPE that it
    takes, by its own names of them; None: all, by transformers' names.  `layer_rule` says which layers of a model with a window
    have it.  With `ntk_alpha` a scaling of type dynamic that has an `alpha` is Hunyuan's, which does not depend on the length.
    With `ropes_by_layer` the layers with a window have a RoPE of their own, and `local_theta` is the key of its base, if any.
    `without_window` says of a class whose layers with a window have RoPE and others none: whether they have where there is no
    window.  `default_rope` is that of a config.json that says nothing of it.  A class without `rope` reads none of its keys.

    A class that is `remote` is none of transformers, but of code that comes with checkpoints, which is never run: what it says is
    written down here.  `adapted` gives the content of a config.json in the words that other classes have for the same.
    """

    name: str
    defaults: Mapping[str, Json]
    nullable: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    theta: str = "rope_theta"
    partial: str | None = None
    default_theta: float = 10000
    default_partial: float = 1.0
    rope_types: Mapping[str, str] | None = None
    layer_rule: LayerRule = every_layer
    ntk_alpha: bool = False
    ropes_by_layer: bool = False
    local_theta: str | None = None
    default_local_theta: float = 10000
    without_window: bool | None = None
    default_rope: Mapping[str, Any] | None = None
    rope: bool = True
    remote: bool = False
    adapted: Callable[[ConfigValues], Mapping[str, Json]] | None = None

    @property
    def title(self) -> str:
        """The class, for messages."""
        return f"{self.name} of the checkpoint's own code" if self.remote else f"{self.name} of transformers"


def taken(rope_types: str) -> Mapping[str, str]:
    """Types of RoPE, separated by blanks, that a class takes by transformers' names."""
    return {name: name for name in rope_types.split()}


def without(defaults: Mapping[str, Json], *keys: str) -> dict[str, Json]:
    """The defaults of a class that lacks some keys of another one."""
    return {key: value for key, value in defaults.items() if key not in keys}


LLAMA: dict[str, Json] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
QWEN2: dict[str, Json] = {
    **without(LLAMA, "attention_bias", "mlp_bias"),
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
QWEN2_VL: dict[str, Json] = {
    **without(QWEN2, "head_dim", "tie_word_embeddings"),
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_window_layers": 80,
}
MROPE: dict[str, str] = {name: name for name in ("default", *TYPES) if name != "ntk-alpha"} | {"mrope": "default"}
"""Types of RoPE with that of positions in pictures, which are plain ones for a text."""
GROUPED = frozenset({"num_key_value_heads", "head_dim"})
WINDOWED = frozenset({"num_key_value_heads", "sliding_window", "layer_types"})
