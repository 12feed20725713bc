"""GPTQ's packed weights against their definition: bits, both formats of zero points, groups in and out of order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from llmbuild.checkpoints.packed.gptq import Gptq
from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import PackedWeight
from llmbuild.errors import InputError
from tests.helpers.packed import gptq_layer, stored_of

CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}


def method(**changes: Any) -> Gptq:
    return Gptq.of(Quantization("gptq", CONFIG | changes, "config.json", "quantization_config"))


def weight_of(tensors: Mapping[str, np.ndarray], **changes: Any) -> PackedWeight:
    (weight,) = method(**changes).weights(stored_of({f"m.{name}": value for name, value in tensors.items()}))
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [32, -1])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("format", ["gptq", "gptq_v2"])
def test_weights_are_those_of_the_definition(bits: int, group: int, act_order: bool, format: str) -> None:
    first = format == "gptq"
    tensors, expected = gptq_layer(64, 96, bits, group, first=first, act_order=act_order)
    weight = weight_of(tensors, bits=bits, group_size=group, checkpoint_format=format)
    assert (weight.info.name, weight.info.shape, weight.info.dtype) == ("m.weight", (64, 96), "float16")
    assert weight.unpack().tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_the_number_type_is_that_of_the_scales(dtype: Any) -> None:
    tensors, expected = gptq_layer(32, 64, 8, 32, dtype=dtype)
    assert weight_of(tensors, bits=8).unpack().tobytes() == expected.tobytes()


def test_a_last_group_may_be_short_and_the_groups_may_not_be_named() -> None:
    tensors, expected = gptq_layer(32, 96, 4, 64)
    assert weight_of(tensors, group_size=64).unpack().tobytes() == expected.tobytes()
    del tensors["g_idx"]
    weight = weight_of(tensors, group_size=64)
    assert weight.parts == ("m.qweight", "m.qzeros", "m.scales")
    assert weight.unpack().tobytes() == expected.tobytes()


def test_act_order_without_the_groups_of_its_inputs_is_refused() -> None:
    tensors, _ = gptq_layer(32, 96, 4, 32, act_order=True)
    del tensors["g_idx"]
    with pytest.raises(InputError, match=r"tensor 'm.qweight' does not fit") as caught:
        weight_of(tensors, desc_act=True)
    assert caught.value.why == "desc_act is true, and no 'm.g_idx' says in which group each input is"
    tensors, expected = gptq_layer(32, 96, 4, -1, act_order=True)
    del tensors["g_idx"]
    assert weight_of(tensors, desc_act=True, group_size=-1).unpack().tobytes() == expected.tobytes()


def test_weights_of_other_bits_where_the_configuration_has_exceptions() -> None:
    tensors, expected = gptq_layer(32, 64, 8, 16)
    assert (
        weight_of(tensors, dynamic={"+:.*m.*": {"bits": 8, "group_size": 16}}).unpack().tobytes() == expected.tobytes()
    )
    with pytest.raises(InputError, match=r"tensor 'm.qweight' does not fit") as caught:
        weight_of(tensors, group_size=16)
    assert caught.value.why == (
        "64 inputs in 16 words are not 4 bits each, as config.json: quantization_config.bits has it"
    )


def test_blocks_of_a_large_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, expected = gptq_layer(72, 64, 4, 32)
    monkeypatch.setattr("llmbuild.checkpoints.packed.weight.BLOCK_ELEMENTS", 64 * 7)
    assert weight_of(tensors).unpack().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [
        ({"bits": 5}, "bits", "bits is 5, and must be 2, 3, 4 or 8"),
        ({"bits": None}, "bits", "bits is missing"),
        ({"bits": True}, "bits", "bits is True"),
        ({"group_size": 0}, "group_size", "group_size is 0, and must be a number above 0, or -1"),
        (
            {"checkpoint_format": "marlin"},
            "checkpoint_format",
            "checkpoint_format is 'marlin', and must be gptq or gptq_v2",
        ),
        ({"format": "gptq_p"}, "format", "format is 'gptq_p'"),
        ({"is_marlin_format": True}, "is_marlin_format", "Marlin"),
        ({"pack_dtype": "int8"}, "pack_dtype", "pack_dtype is 'int8'"),
    ],
)
def test_a_form_that_is_not_read(change: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(InputError, match="quantized by GPTQ in a form that is not read") as caught:
        method(**change)
    assert caught.value.where == f"config.json: quantization_config.{key}"
    assert str(caught.value.why).startswith(why) or why in str(caught.value.why)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("scales", np.ones((4, 64), np.float16), "it has 4 groups, and 96 inputs are 3 of 32"),
        ("scales", np.ones((3, 32), np.float16), "it has shape [3, 32]; the others of its weight need [3, 64]"),
        ("scales", np.ones((3, 64), np.int8), "it is int8; expected is float16, bfloat16 or float32"),
        ("scales", None, "the packed weight of 'm' needs its scales"),
        ("qzeros", np.ones((3, 7), np.int32), "it has shape [3, 7]; the others of its weight need [3, 8]"),
        ("qweight", np.ones((11, 64), np.int32), "96 inputs in 11 words are not 4 bits each"),
        ("qweight", np.ones((12, 64), np.float16), "it is float16; expected is int32 or uint32"),
        ("qweight", np.ones((12,), np.int32), "it has shape [12], and a packed weight has two dimensions"),
        ("g_idx", np.arange(96, dtype=np.int32) // 16, "it names groups from 0 to 5, and there are 3"),
        ("g_idx", np.full(96, -1, np.int32), "it names groups from -1 to -1, and there are 3"),
        ("g_idx", np.zeros((96, 1), np.int32), "it has shape [96, 1]"),
        ("g_idx", np.zeros((), np.int32), "it has shape []"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(part: str, value: np.ndarray | None, message: str) -> None:
    tensors, _ = gptq_layer(64, 96, 4, 32)
    if value is None:
        del tensors[part]
    else:
        tensors[part] = value
    with pytest.raises(InputError, match=re.escape(f"tensor 'm.{part}'")) as caught:
        weight_of(tensors).unpack()
    assert message in str(caught.value.why)


def test_a_file_of_the_packer_is_enough(tmp_path: Path) -> None:
    values = {"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": True, "model_file_base_name": "model"}
    from llmbuild.checkpoints.packed.quantization import check_quantization

    found = check_quantization({}, {"quantize_config.json": values})
    assert found is not None
    assert (found.method, str(found.where("bits"))) == ("gptq", "quantize_config.json: bits")
