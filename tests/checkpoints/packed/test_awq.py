"""AWQ's packed weights against their definition."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from llmbuild.checkpoints.packed.awq import Awq
from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import PackedWeight
from llmbuild.errors import InputError
from tests.helpers.awq import pack, quantize
from tests.helpers.packed import stored_of

CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def method(**changes: Any) -> Awq:
    return Awq.of(Quantization("awq", CONFIG | changes, "config.json", "quantization_config"))


def weight_of(tensors: dict[str, np.ndarray], **changes: Any) -> PackedWeight:
    (weight,) = method(**changes).weights(stored_of({f"m.{name}": value for name, value in tensors.items()}))
    return weight


@pytest.mark.parametrize("group", [32, 64, -1])
def test_weights_are_those_of_the_definition(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = np.random.default_rng(3).standard_normal((48, 128)) * 0.1
    tensors, expected = quantize(plain, 128 if group == -1 else group)
    weight = weight_of(tensors, group_size=group, version="GEMM")
    assert (weight.info.name, weight.info.shape, weight.info.dtype) == ("m.weight", (48, 128), "float16")
    # AutoAWQ multiplies in float16.
    assert weight.unpack().tobytes() == expected.astype(np.float16).tobytes()
    monkeypatch.setattr("llmbuild.checkpoints.packed.weight.BLOCK_ELEMENTS", 128 * 20)
    assert weight.unpack().tobytes() == expected.astype(np.float16).tobytes()


def test_every_number_in_every_place() -> None:
    numbers = np.arange(16 * 32).reshape(32, 16) % 16
    tensors = {"qweight": pack(numbers), "qzeros": pack(np.full((1, 16), 3)), "scales": np.ones((1, 16), np.float16)}
    assert (weight_of(tensors).unpack() == numbers.T - 3.0).all()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"version": "gemv"}, "version"),
        ({"version": "gemv_fast"}, "version"),
        ({"backend": "llm-awq"}, "backend"),
        ({"bits": 8}, "bits"),
        ({"group_size": "128"}, "group_size"),
    ],
)
def test_a_form_that_is_not_read(change: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match="quantized by AWQ in a form that is not read") as caught:
        method(**change)
    assert caught.value.where == f"config.json: quantization_config.{key}"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("scales", np.ones((3, 48), np.float16), "it has shape [3, 48]; the others of its weight need [4, 48]"),
        ("qzeros", np.ones((4, 5), np.int32), "it has shape [4, 5]; the others of its weight need [4, 6]"),
        ("qzeros", None, "the packed weight of 'm' needs its qzeros"),
        ("qweight", np.ones((100, 6), np.int32), "its 100 inputs are not whole groups of 32"),
        ("qweight", np.ones((128, 0), np.int32), "it has shape [128, 0]"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(part: str, value: np.ndarray | None, message: str) -> None:
    tensors, _ = quantize(np.ones((48, 128)), 32)
    if value is None:
        del tensors[part]
    else:
        tensors[part] = value
    with pytest.raises(InputError, match=re.escape(f"tensor 'm.{part}'")) as caught:
        weight_of(tensors)
    assert message in str(caught.value.why)
