"""AWQ's tensors as parameters of a model, and what is said of checkpoints that the scheme does not describe."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmbuild.checkpoints.packed.quantization import check_quantization
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, LlmbuildError, MultiError
from llmbuild.models.parameter import Parameter
from llmbuild.quantization import awq
from llmbuild.quantization.fitting import check
from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.awq import ORDER
from tests.helpers.replaced_parts import mutations

SCHEME = SCHEMES["q4f16_awq"]
CONFIG: dict[str, Any] = {
    "quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}
}
QKV = Parameter("a.qkv_proj.weight", (48, 256), "linear", ("a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"))
HEAD = Parameter("lm_head.weight", (320, 256), "head", ("lm_head.weight",))


def awq_tensors(parameters: list[Parameter], config: dict[str, Any], scheme: Scheme = SCHEME) -> list[Any]:
    return list(awq.awq_tensors(parameters, check_quantization(config), scheme))


def with_config(**changes: Any) -> dict[str, Any]:
    return {"quantization_config": CONFIG["quantization_config"] | changes}


def test_a_linear_layer_has_three_tensors_and_nothing_else_changes() -> None:
    words, zeros, scales, head = awq_tensors([QKV, HEAD], CONFIG)
    assert [tensor.name for tensor in (words, zeros, scales)] == [
        "a.qkv_proj.qweight",
        "a.qkv_proj.qzeros",
        "a.qkv_proj.scales",
    ]
    assert [tensor.shape for tensor in (words, zeros, scales)] == [(256, 6), (2, 6), (2, 48)]
    assert zeros.sources == ("a.q_proj.qzeros", "a.k_proj.qzeros", "a.v_proj.qzeros")
    assert (words.dtype, scales.dtype) == ("uint32", None)
    assert head is HEAD
    parts = [np.full((256, 2), -1 - part, np.int32) for part in range(3)]
    joined = words.assemble(parts)
    assert joined.dtype == np.uint32
    assert joined[0].tolist() == [2**32 - 1, 2**32 - 1, 2**32 - 2, 2**32 - 2, 2**32 - 3, 2**32 - 3]


def test_the_order_of_a_word() -> None:
    assert [awq.shift(column) // 4 for column in ORDER] == list(range(8))
    assert [awq.shift(column) for column in range(8, 16)] == [awq.shift(column) for column in range(8)]


@pytest.mark.parametrize(
    ("config", "key", "why", "fix"),
    [
        ({}, "quantization_config", "this one is not quantized", "q4f16_1"),
        (with_config(quant_method="gptq"), "quantization_config", "its method is GPTQ", "q4f16_1"),
        (with_config(group_size=64), "quantization_config.group_size", "group_size is 64", "group-size = 64"),
        (with_config(group_size=-1), "quantization_config.group_size", "group_size is -1", "another checkpoint"),
        (with_config(zero_point=False), "quantization_config.zero_point", "zero_point is False", "another checkpoint"),
    ],
)
def test_a_checkpoint_that_the_scheme_does_not_describe(config: dict[str, Any], key: str, why: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        awq_tensors([QKV], config)
    assert str(caught.value.where).endswith(key)
    assert why in str(caught.value.why)
    assert fix in str(caught.value.fix)


def test_names_are_read_as_transformers_and_autoawq_write_them() -> None:
    assert awq_tensors([QKV], with_config(version="GEMM", group_size=128))
    assert awq_tensors([QKV], with_config(group_size=64), replace(SCHEME, group_size=64))


@pytest.mark.parametrize(
    ("parameter", "what"),
    [
        (Parameter("x.weight", (48, 200), "linear", ("x.weight",)), "does not fit x.weight of shape [48, 200]"),
        (Parameter("x.weight", (44, 256), "linear", ("x.weight",)), "does not fit x.weight of shape [44, 256]"),
        (Parameter("x.weight", (48, 256), "linear", ("x.weight",), 2), "does not fit this architecture"),
    ],
)
def test_a_layer_that_the_layout_does_not_fit(parameter: Parameter, what: str) -> None:
    with pytest.raises(InputError) as caught:
        awq_tensors([parameter], CONFIG)
    assert what in caught.value.what


def test_tensors_that_are_not_packed() -> None:
    words, _, scales = awq_tensors([QKV], CONFIG)
    infos = {name: TensorInfo.of(name, (256, 2), "float16") for name in words.sources}
    infos |= {name: TensorInfo.of(name, (2, 16), "int32") for name in scales.sources}
    told = SimpleNamespace(tensors=infos, location=lambda name: "model.safetensors")
    with pytest.raises(MultiError) as caught:
        check(told, [words, scales], lambda name: False)  # type: ignore[arg-type]
    assert [error.what for error in caught.value.errors] == [
        f"tensor '{words.sources[0]}' holds no packed numbers, and so do {len(words.sources) - 1} others",
        f"tensor '{scales.sources[0]}' holds no plain floating-point weights, and so do {len(scales.sources) - 1} others",
    ]


def test_tensors_of_another_width() -> None:
    words, _, _ = awq_tensors([QKV], CONFIG)
    infos = {name: TensorInfo.of(name, (256, 3), "int32") for name in words.sources}
    told = SimpleNamespace(tensors=infos, location=lambda name: "model.safetensors")
    with pytest.raises(InputError, match="shape mismatch"):
        check(told, [words], lambda name: False)  # type: ignore[arg-type]


def test_any_value_in_any_place_of_the_configuration_is_taken_or_refused() -> None:
    plain = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}}
    for config in mutations(plain):
        if isinstance(config, dict):
            with contextlib.suppress(LlmbuildError):
                awq_tensors([], config)
