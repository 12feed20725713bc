"""Overrides of a scheme: which parameter has which bits, and what is said of those that no parameter is stored by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmbuild.errors import InputError, MultiError
from llmbuild.models.family import Overrides
from llmbuild.models.parameter import Parameter
from llmbuild.models.registry import family
from llmbuild.quantization.convert import is_quantized, stored_tensors
from llmbuild.quantization.overrides import (
    Override,
    check_overrides,
    layer_ranges,
    place_in_manifest,
    tied_overrides,
)
from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.checkpoints import CONFIGS


def parameters(variant: str = "llama") -> tuple[Parameter, ...]:
    source = CONFIGS[variant]
    architecture = family(source["model_type"])
    return architecture.parameters(architecture.configure(source, Overrides()))


def mixed(*overrides: Override, base: str = "q4f16_1") -> Scheme:
    return replace(SCHEMES[base], name="mixed", overrides=overrides)


def bits(scheme: Scheme, *names: str) -> int:
    return scheme.of(*names).bits


def test_the_last_one_that_matches_counts() -> None:
    scheme = mixed(Override("*.mlp.*", 3, 40), Override("*.down_proj", 8, 32), Override("*.1.mlp.*", 0))
    assert bits(scheme, "model.layers.0.mlp.gate_up_proj") == 3
    assert bits(scheme, "model.layers.0.mlp.down_proj") == 8
    assert bits(scheme, "model.layers.1.mlp.down_proj") == 0
    assert bits(scheme, "model.layers.0.self_attn.o_proj") == 4
    assert scheme.of("lm_head") == replace(scheme, overrides=())
    assert {part.bits for part in scheme.parts} == {4, 3, 8, 0}


def test_layers() -> None:
    assert layer_ranges("0-3,7") == (range(4), range(7, 8))
    for text in ("", "3-", "-3", "3-1", "1,,2", "a", "1 "):
        with pytest.raises(ValueError, match=r".*"):
            layer_ranges(text)
    scheme = mixed(Override("*", 8, 32, "0-1,10"))
    chosen = [layer for layer in range(13) if bits(scheme, f"model.layers.{layer}.mlp.down_proj") == 8]
    assert chosen == [0, 1, 10]
    # What is in no layer is meant by no layers.
    assert bits(scheme, "lm_head") == 4


def test_what_is_matched_is_packed_whatever_the_scheme_says_of_embedding_and_head() -> None:
    scheme = mixed(Override("lm_head", 8, 32), base="q4f16_2")
    roles = {"lm_head": "head", "model.embed_tokens": "embedding"}
    assert {name: is_quantized(scheme.of(name), role) for name, role in roles.items()} == {
        "lm_head": True,
        "model.embed_tokens": False,
    }
    plain = mixed(Override("lm_head", 8, 32), base="q0f16")
    assert [is_quantized(plain.of(name), role) for name, role in roles.items()] == [True, False]


def test_a_tied_embedding_has_both_names() -> None:
    tied = parameters("llama-tied")
    for name in ("lm_head", "model.embed_tokens"):
        scheme = mixed(Override(name, 8, 32))
        check_overrides(scheme.name, scheme.overrides, tied)
        weight, _ = stored_tensors(tied[0], scheme)
        assert weight[1][1] * 4 == tied[0].shape[1]
        assert tied_overrides(scheme.overrides, tied) == [
            f"{name}: model.embed_tokens and lm_head are one parameter in this model, which is embedding and head"
        ]
        assert tied_overrides(scheme.overrides, parameters()) == []
    assert tied_overrides((Override("*", 8, 32),), tied) == []


def test_a_scheme_survives_json() -> None:
    scheme = mixed(Override("*.mlp.*", 3, 40, "0-1"), Override("lm_head", 0))
    assert Scheme.from_json(scheme.to_json()) == scheme
    assert "overrides" not in SCHEMES["q4f16_1"].to_json()


@pytest.mark.parametrize(
    ("override", "what", "why"),
    [
        (Override("lm_hed", 8, 32), "'lm_hed' matches no parameter", "did you mean 'lm_head'?"),
        (
            Override("*.gateupproj", 8, 32),
            "'*.gateupproj' matches no parameter",
            "did you mean '*.gate_up_proj' or '*.o_proj'?",
        ),
        (Override("lm_head.weight", 8, 32), "'lm_head.weight' matches no parameter", "did you mean 'lm_head'?"),
        (Override("*norm", 8, 32), "'*norm' matches no weight", "norms and biases are never quantized"),
        (Override("*.o_proj", 8, 32, "2-9"), "'*.o_proj' is in none of the layers 2-9", "it is in layers 0 to 1"),
        (Override("lm_head", 8, 32, "0"), "'lm_head' is in none of the layers 0", "it is in no layer"),
    ],
)
def test_an_override_that_is_meant_for_nothing(override: Override, what: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        check_overrides("mixed", (Override("lm_head", 8, 32), override), parameters())
    assert (caught.value.what, caught.value.why) == (what, why)
    assert caught.value.where is not None
    assert place_in_manifest(caught.value.where) == ("quantizations", "mixed", "overrides", 1)
    assert place_in_manifest("config.json") is None


def test_an_override_behind_which_nothing_is_left() -> None:
    with pytest.raises(InputError, match="'lm_head' changes nothing") as caught:
        check_overrides("mixed", (Override("lm_head", 8, 32), Override("*", 3, 40)), parameters())
    assert caught.value.why == "the last one that matches counts, and * comes later"


def test_every_wrong_one_is_told() -> None:
    with pytest.raises(MultiError) as caught:
        check_overrides("mixed", (Override("a", 8, 32), Override("b", 8, 32)), parameters())
    assert len(caught.value.errors) == 2
