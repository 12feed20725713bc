"""Frequencies and factors against those of transformers' functions, for any numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.models.frequencies import TYPES, make_rope

ORIGINAL = "original_max_position_embeddings"
HEADS = st.sampled_from([32, 48, 64, 80, 96, 128, 256])
SHARES = st.sampled_from([1.0, 0.5, 0.25])
THETAS = st.sampled_from([100.0, 10000, 5e5, 1e6, 1e7])
LENGTHS = st.sampled_from([256, 2048, 4096, 8192, 32768, 131072])
FACTORS = st.sampled_from([0.5, 1.0, 1, 1.5, 2, 4.0, 8.0, 32.0, 40])


def scalings(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a type, without the base; lists of longrope are made to fit in the test."""
    optional = {
        "attention_factor": st.sampled_from([None, 1.0, 1.5]),
        "beta_fast": st.sampled_from([None, 0, 16, 32.0]),
        "beta_slow": st.sampled_from([None, 0, 1, 2.5]),
        "mscale": st.sampled_from([None, 0, 0.707, 1.0]),
        "mscale_all_dim": st.sampled_from([None, 0.5, 1.0]),
        "truncate": st.booleans(),
    }
    both = {"rope_type": st.just(kind), "factor": FACTORS}
    if kind == "yarn":
        return st.fixed_dictionaries({**both, ORIGINAL: LENGTHS}, optional=optional)
    if kind == "longrope":
        return st.fixed_dictionaries(
            {**both, ORIGINAL: LENGTHS}, optional={"attention_factor": optional["attention_factor"]}
        )
    if kind == "llama3":
        lows, highs = st.sampled_from([1.0, 2]), st.sampled_from([4.0, 8])
        return st.fixed_dictionaries({**both, ORIGINAL: LENGTHS, "low_freq_factor": lows, "high_freq_factor": highs})
    return st.fixed_dictionaries(both)


def of_transformers(
    scaling: dict[str, Any], theta: float, head_dim: int, share: float, positions: int, context: int
) -> tuple[np.ndarray, float]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {**scaling, "rope_theta": theta, "partial_rotary_factor": share}
    config = LlamaConfig(
        hidden_size=2 * head_dim, num_attention_heads=2, max_position_embeddings=positions, rope_parameters=parameters
    )
    values, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, None, seq_len=context)
    return values.double().numpy(), factor


@pytest.mark.parametrize("kind", sorted(TYPES.keys() - {"ntk-alpha"}))
def test_a_table_is_that_of_transformers(kind: str) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(scalings(kind), THETAS, HEADS, SHARES, LENGTHS, st.sampled_from([64, 300, 4096, 40000, 200000]))
    def one(scaling: dict[str, Any], theta: float, head_dim: int, share: float, positions: int, context: int) -> None:
        dim = int(head_dim * share)
        if kind == "longrope":
            pairs = np.arange(dim // 2)
            lists = {"short_factor": list(1 + pairs / dim), "long_factor": [float(2 + pair % 7) for pair in pairs]}
            scaling = scaling | lists
        wanted, factor = of_transformers(scaling, theta, head_dim, share, positions, context)
        ours = scaling | ({ORIGINAL: positions} if kind == "dynamic" else {})
        if kind == "proportional":
            dim, ours = head_dim, ours | {"partial_rotary_factor": share}
        rope = make_rope(theta, dim, ours, context=context)
        # transformers computes in float32: a share of a ramp, which the plain frequency counts by, loses digits there.
        ramp = 1e-6 * np.array(make_rope(theta, dim).frequencies) if kind in ("llama3", "yarn") else 0.0
        steep = 1e-5 if not scaling.get("truncate", True) else 1e-6
        np.testing.assert_array_less(np.abs(rope.frequencies - wanted), steep * wanted + ramp + 1e-30)
        assert rope.factor == pytest.approx(factor, rel=1e-6)

    one()


@pytest.mark.parametrize("head_dim", [32, 80, 128])
def test_ntk_alpha_is_that_of_hunyuan(head_dim: int) -> None:
    from transformers import HunYuanDenseV1Config
    from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1RotaryEmbedding

    parameters = {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0}
    config = HunYuanDenseV1Config(
        hidden_size=2 * head_dim, num_attention_heads=2, head_dim=head_dim, rope_parameters=parameters
    )
    wanted = HunYuanDenseV1RotaryEmbedding(config).inv_freq.double().numpy()
    rope = make_rope(10000.0, head_dim, {"rope_type": "ntk-alpha", "alpha": 1000.0})
    np.testing.assert_allclose(rope.frequencies, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("theta", "dim", "scaling"),
    [
        (1.0, 64, {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 64}),
        (1e4, 2, {"rope_type": "dynamic", "factor": 4.0, ORIGINAL: 64}),
        (1e4, 64, {"rope_type": "dynamic", "factor": 1e300, ORIGINAL: 64}),
        (1e308, 64, {"rope_type": "dynamic", "factor": 1e300, ORIGINAL: 64}),
        (1e4, 64, {"rope_type": "linear", "factor": 1e-320}),
    ],
)
def test_numbers_of_which_no_frequencies_come_are_an_error(theta: float, dim: int, scaling: dict[str, Any]) -> None:
    with pytest.raises(ArithmeticError):
        make_rope(theta, dim, scaling, context=100000)
