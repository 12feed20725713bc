"""AWQ's tensors as parameters of a model, and what is said of checkpoints that the scheme does not describe."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, LlmbuildError, MultiError
from llmbuild.models.parameter import Parameter
from llmbuild.quantization import awq
from llmbuild.quantization.convert import check
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.awq import ORDER
from tests.helpers.replaced_parts import mutations

SCHEME = SCHEMES["q4f16_awq"]
CONFIG: dict[str, Any] = {
    "quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}
}
QKV = Parameter("a.qkv_proj.weight", (48, 256), "linear", ("a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"))
HEAD = Parameter("lm_head.weight", (320, 256), "head", ("lm_head.weight",))


def with_config(**changes: Any) -> dict[str, Any]:
    return {"quantization_config": CONFIG["quantization_config"] | changes}


def test_a_linear_layer_has_three_tensors_and_nothing_else_changes() -> None:
    words, zeros, scales, head = awq.awq_tensors([QKV, HEAD], CONFIG, SCHEME)
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
        ({"quantization_config": "awq"}, "quantization_config", "this one is not quantized", "q4f16_1"),
        (with_config(quant_method="gptq"), "quantization_config", "its quant_method is gptq", "q4f16_1"),
        (with_config(bits=8), "quantization_config.bits", "bits is 8, and the scheme has 4", "another checkpoint"),
        (with_config(group_size=64), "quantization_config.group_size", "group_size is 64", "group-size = 64"),
        (with_config(group_size=-1), "quantization_config.group_size", "group_size is -1", "another checkpoint"),
        (with_config(version="gemv"), "quantization_config.version", "version is gemv", "another checkpoint"),
        (with_config(zero_point=False), "quantization_config.zero_point", "zero_point is False", "another checkpoint"),
    ],
)
def test_a_checkpoint_that_the_scheme_does_not_describe(config: dict[str, Any], key: str, why: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        awq.awq_tensors([QKV], config, SCHEME)
    assert str(caught.value.where).endswith(key)
    assert why in str(caught.value.why)
    assert fix in str(caught.value.fix)


def test_names_are_read_as_transformers_and_autoawq_write_them() -> None:
    assert awq.awq_tensors([QKV], with_config(version="GEMM", group_size=128), SCHEME)
    assert awq.awq_tensors([QKV], with_config(group_size=64), replace(SCHEME, group_size=64))


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
        awq.awq_tensors([parameter], CONFIG, SCHEME)
    assert what in caught.value.what


def test_a_packed_checkpoint_is_not_quantized_again() -> None:
    tensors = {"model.norm.weight": 0, "a.q_proj.qweight": 0}
    awq.refuse_packed({"model.norm.weight": 0}, CONFIG, SCHEMES["q4f16_1"])
    with pytest.raises(InputError, match="quantizes, and this checkpoint is quantized already") as caught:
        awq.refuse_packed(tensors, CONFIG, SCHEMES["q4f16_1"])
    assert caught.value.fix == "use q4f16_awq"
    with pytest.raises(InputError) as caught:
        awq.refuse_packed(tensors, {}, SCHEMES["q4f16_1"])
    assert "its quant_method is not said" in str(caught.value.why)
    assert caught.value.fix == "name the checkpoint that it was made from"


def test_tensors_that_are_not_packed() -> None:
    words, _, scales = awq.awq_tensors([QKV], CONFIG, SCHEME)
    infos = {name: TensorInfo.of(name, (256, 2), "float16") for name in words.sources}
    infos |= {name: TensorInfo.of(name, (2, 16), "int32") for name in scales.sources}
    told = SimpleNamespace(tensors=infos, location=lambda name: "model.safetensors")
    with pytest.raises(MultiError) as caught:
        check(told, [words, scales], lambda name: False)  # type: ignore[arg-type]
    assert [error.what for error in caught.value.errors] == [
        *(f"tensor '{name}' holds no packed numbers" for name in words.sources),
        *(f"tensor '{name}' holds no plain floating-point weights" for name in scales.sources),
    ]


def test_tensors_of_another_width() -> None:
    words, _, _ = awq.awq_tensors([QKV], CONFIG, SCHEME)
    infos = {name: TensorInfo.of(name, (256, 3), "int32") for name in words.sources}
    told = SimpleNamespace(tensors=infos, location=lambda name: "model.safetensors")
    with pytest.raises(InputError, match="shape mismatch"):
        check(told, [words], lambda name: False)  # type: ignore[arg-type]


def test_any_value_in_any_place_of_the_configuration_is_taken_or_refused() -> None:
    plain = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}}
    for config in mutations(plain):
        if isinstance(config, dict):
            with contextlib.suppress(LlmbuildError):
                awq.awq_tensors([], config, SCHEMES["q4f16_awq"])
            with contextlib.suppress(LlmbuildError):
                awq.refuse_packed({"x.qweight": None}, config, SCHEMES["q4f16_1"])
