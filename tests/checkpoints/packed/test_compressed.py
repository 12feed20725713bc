"""The formats of compressed-tensors against that library itself, weight by weight and as transformers loads a model with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from llmbuild.checkpoints.packed.compressed import ACT_ORDERS, Compressed
from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import PackedWeight
from llmbuild.errors import InputError
from tests.helpers.packed import make_packed_checkpoint, opened, pack_words, stored_of

PACK, INT, FLOAT = "pack-quantized", "int-quantized", "float-quantized"


def method(format: str | None, *weights: dict[str, Any], **changes: Any) -> Compressed:
    groups = {f"group_{number}": {"targets": ["Linear"], "weights": each} for number, each in enumerate(weights)}
    values = {"quant_method": "compressed-tensors", "format": format, "config_groups": groups, "ignore": ["lm_head"]}
    return Compressed.of(Quantization("compressed-tensors", values | changes, "config.json", "quantization_config"))


def weight_of(tensors: dict[str, np.ndarray], format: str, *weights: dict[str, Any]) -> PackedWeight:
    stored = stored_of({f"m.{name}": value for name, value in tensors.items()})
    (weight,) = method(format, *weights).weights(stored)
    assert set(weight.parts) == stored.tensors.keys()
    return weight


def arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """torch's tensors as NumPy's, with the types that NumPy lacks."""
    import torch

    special = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    }
    result = {}
    for name, value in tensors.items():
        through, dtype = special.get(value.dtype, (None, None))
        plain = value.contiguous()
        result[name] = plain.numpy() if through is None else plain.view(through).numpy().view(dtype)
    return result


def compress(
    format: str, arguments: dict[str, Any], weight: Any, dtype: str = "bfloat16"
) -> tuple[dict[str, Any], Any]:
    """What the library stores for a weight with random scales and zero points, and what it reads from that."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(**arguments)
    n, k = weight.shape
    rows, columns = {
        "tensor": (n, k),
        "channel": (1, k),
        "group": (1, args.group_size),
        "block": args.block_structure,
    }[str(args.strategy)]
    grid = (1,) if args.strategy == "tensor" else (-(-n // rows), -(-k // columns))
    generator = torch.Generator().manual_seed(n)
    full = 448 if args.type == "float" else 1 << args.num_bits - 1
    state = {
        "weight": weight.to(getattr(torch, dtype)),
        "weight_scale": ((torch.rand(grid, generator=generator) + 0.2) * 0.3 / full).to(getattr(torch, dtype)),
    }
    if not args.symmetric:
        low, high = -(1 << args.num_bits - 1), (1 << args.num_bits - 1) - 1
        state["weight_zero_point"] = torch.randint(low, high + 1, grid, generator=generator).to(torch.int8)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(format)
    stored = compressor.compress(dict(state), scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"]


def arguments(
    bits: int, strategy: str, *, symmetric: bool = True, group: int | None = None, **more: Any
) -> dict[str, Any]:
    return {"num_bits": bits, "strategy": strategy, "symmetric": symmetric, "group_size": group, **more}


CASES = [
    (PACK, arguments(4, "group", group=32)),
    (PACK, arguments(4, "group", group=160, symmetric=False)),
    (PACK, arguments(4, "group", group=32, symmetric=False)),
    (PACK, arguments(4, "channel")),
    (PACK, arguments(4, "channel", symmetric=False)),
    (PACK, arguments(4, "tensor")),
    (PACK, arguments(4, "tensor", symmetric=False)),
    (PACK, arguments(8, "group", group=32)),
    (PACK, arguments(8, "channel", symmetric=False)),
    (PACK, arguments(2, "group", group=32, symmetric=False)),
    (PACK, arguments(3, "group", group=32)),
    (PACK, arguments(3, "channel", symmetric=False)),
    (PACK, arguments(5, "channel")),
    (PACK, arguments(6, "group", group=32, symmetric=False)),
    (PACK, arguments(7, "group", group=32)),
    (INT, arguments(8, "channel")),
    (INT, arguments(8, "channel", symmetric=False)),
    (INT, arguments(8, "tensor")),
    (INT, arguments(4, "group", group=32)),
    (INT, arguments(8, "group", group=32)),
    (FLOAT, arguments(8, "channel", type="float")),
    (FLOAT, arguments(8, "tensor", type="float")),
    (FLOAT, arguments(8, "block", type="float", block_structure=[64, 64])),
    ("naive-quantized", arguments(8, "channel", type="float")),
]


@pytest.mark.parametrize(("format", "given"), CASES, ids=[f"{each[0]}-{number}" for number, each in enumerate(CASES)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_are_those_of_the_library(format: str, given: dict[str, Any], dtype: str) -> None:
    pytest.importorskip("compressed_tensors", reason="it is in the extra 'test'")
    import torch

    plain = torch.randn(96, 160, generator=torch.Generator().manual_seed(1)) * 0.1
    stored, expected = compress(format, given, plain, dtype)
    weight = weight_of(arrays(stored), format, given)
    assert (weight.info.shape, weight.info.dtype) == ((96, 160), dtype)
    assert weight.unpack().tobytes() == arrays({"weight": expected})["weight"].tobytes()


@pytest.mark.parametrize(
    ("variant", "format", "given"),
    [
        ("llama-gqa", PACK, arguments(4, "group", group=128)),
        ("qwen2", PACK, arguments(4, "channel", symmetric=False)),
        ("qwen3-tied", INT, arguments(8, "channel")),
        ("mistral", FLOAT, arguments(8, "tensor", type="float")),
        ("gpt_neox", FLOAT, arguments(8, "channel", type="float")),
    ],
)
def test_a_model_is_the_one_that_transformers_loads(
    variant: str, format: str, given: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors", reason="it is in the extra 'test'")
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    config = {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "ignore": ["lm_head", "embed_out"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": given}},
    }
    directory = make_packed_checkpoint(
        tmp_path, lambda module, weight: compress(format, given, weight)[0], config, variant
    )
    how = CompressedTensorsConfig(dequantize=True)
    reference = AutoModelForCausalLM.from_pretrained(directory, quantization_config=how).state_dict()
    notes: list[str] = []
    with opened(directory, notes.append) as checkpoint:
        assert checkpoint.packed_by == f"compressed-tensors, {given['num_bits']} bits"
        compared = 0
        for name in checkpoint.tensors:
            expected = reference.get({"embed_out.weight": "lm_head.weight"}.get(name, name))
            if expected is not None:
                assert (checkpoint.read(name).astype(np.float32) == expected.float().numpy()).all(), name
                compared += 1
        assert compared > 12
    assert notes == []


def test_groups_out_of_order() -> None:
    """Older versions could store each input's group."""
    random = np.random.default_rng(0)
    numbers, scales = random.integers(0, 16, (32, 64)), random.random((32, 2)).astype(np.float16)
    index = random.permutation(np.arange(64) // 32).astype(np.int32)
    tensors = {
        "weight_packed": pack_words(numbers, 4),
        "weight_scale": scales,
        "weight_shape": np.array([32, 64]),
        "weight_g_idx": index,
    }
    given = arguments(4, "group", group=32, actorder="group")
    expected = (numbers - 8).astype(np.float16) * scales[:, index]
    assert weight_of(tensors, PACK, given).unpack().tobytes() == expected.tobytes()
    tensors["weight_g_idx"] = np.full(64, -1, np.int32)
    in_order = (numbers - 8).astype(np.float16) * scales.repeat(32, axis=1)
    assert weight_of(tensors, PACK, given).unpack().tobytes() == in_order.tobytes()
    tensors["weight_g_idx"] = index + 1
    with pytest.raises(InputError, match=r"'m.weight_g_idx'") as caught:
        weight_of(tensors, PACK, given).unpack()
    assert caught.value.why == "it names groups from 1 to 2, and there are 2"


@pytest.mark.parametrize("order", ["group", "dynamic", True])
def test_groups_out_of_order_that_no_tensor_names_are_refused(order: Any) -> None:
    """As the library refuses them since it dropped this kind of act-order."""
    args = pytest.importorskip("compressed_tensors.quantization", reason="it is in the extra 'test'").QuantizationArgs
    given = arguments(4, "group", group=32, actorder=order)
    with pytest.raises(ValueError, match="removed"):
        args(**given)
    with pytest.raises(InputError, match=r"tensor 'm.weight_packed' does not fit") as caught:
        weight_of(stored_weight(), PACK, given)
    assert "no 'm.weight_g_idx' says" in str(caught.value.why)
    # One group for all inputs has no order, and neither has another group of modules whose tensors look the same.
    whole = stored_weight() | {"weight_scale": np.ones((32, 1), np.float16)}
    weight_of(whole, PACK, arguments(4, "group", group=64, actorder=order)).unpack()
    weight_of(stored_weight(), PACK, given, arguments(4, "group", group=32)).unpack()
    with pytest.raises(InputError, match="in a form that is not read") as caught:
        method(INT, arguments(8, "group", group=32, actorder=order))
    assert str(caught.value.where).endswith("weights.actorder")


def test_act_order_that_only_rounds_is_in_order() -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="it is in the extra 'test'")
    assert {order.value for order in quantization.ActivationOrdering} == set(ACT_ORDERS)
    expected = weight_of(stored_weight(), PACK, arguments(4, "group", group=32)).unpack()
    for order in ("weight", "static", "Static", False, None):
        given = arguments(4, "group", group=32, actorder=order)
        quantization.QuantizationArgs(**given | ({"actorder": order.lower()} if isinstance(order, str) else {}))
        assert weight_of(stored_weight(), PACK, given).unpack().tobytes() == expected.tobytes()


def test_zero_points_that_older_versions_did_not_pack() -> None:
    random = np.random.default_rng(0)
    numbers, scales = random.integers(0, 16, (32, 64)), random.random((32, 2)).astype(np.float16)
    zeros = random.integers(-8, 8, (32, 2)).astype(np.int8)
    tensors = {
        "weight_packed": pack_words(numbers, 4),
        "weight_scale": scales,
        "weight_shape": np.array([32, 64]),
        "weight_zero_point": zeros,
    }
    expected = (numbers - 8 - zeros.repeat(32, axis=1)).astype(np.float16) * scales.repeat(32, axis=1)
    for symmetric in (False, True):
        given = arguments(4, "group", group=32, symmetric=symmetric)
        assert weight_of(tensors, PACK, given).unpack().tobytes() == expected.tobytes()


def test_several_groups_are_told_apart_by_their_tensors() -> None:
    pytest.importorskip("compressed_tensors", reason="it is in the extra 'test'")
    import torch

    four, eight = arguments(4, "group", group=32), arguments(8, "channel")
    plain = torch.randn(96, 160)
    for given in (four, eight):
        stored, expected = compress(PACK, given, plain)
        found = weight_of(arrays(stored), PACK, four, eight).unpack()
        assert found.tobytes() == arrays({"weight": expected})["weight"].tobytes()


def stored_weight() -> dict[str, Any]:
    return {
        "weight_packed": np.ones((32, 8), np.int32),
        "weight_scale": np.ones((32, 2), np.float16),
        "weight_shape": np.array([32, 64]),
    }


@pytest.mark.parametrize(
    ("part", "value", "named", "message"),
    [
        ("weight_scale", None, "weight_scale", "the packed weight of 'm' needs its weight_scale"),
        ("weight_shape", None, "weight_shape", "the packed weight of 'm' needs its weight_shape"),
        ("weight_scale", np.ones((32, 3), np.float16), "weight_scale", "no group of config_groups describes a weight"),
        ("weight_scale", np.ones((31, 2), np.float16), "weight_scale", "no group of config_groups describes a weight"),
        ("weight_packed", np.ones((32, 9), np.int32), "weight_scale", "no group of config_groups describes a weight"),
        ("weight_packed", np.ones((32, 8), np.int64), "weight_packed", "it is int64"),
        ("weight_shape", np.array([64, 32]), "weight_shape", "it says [64, 32], and the packed numbers are"),
        ("weight_zero_point", np.ones((5, 2), np.int32), "weight_zero_point", "the weight needs [4, 2]"),
        ("weight_zero_point", np.ones((32, 1), np.int8), "weight_zero_point", "the weight needs [32, 2]"),
        ("weight_g_idx", np.ones(63, np.int32), "weight_g_idx", "it has shape [63]"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(
    part: str, value: np.ndarray | None, named: str, message: str
) -> None:
    tensors = stored_weight() | {part: value}
    stored = stored_of({f"m.{name}": array for name, array in tensors.items() if array is not None})
    with pytest.raises(InputError, match=re.escape(f"tensor 'm.{named}'")) as caught:
        next(iter(method(PACK, arguments(4, "group", group=32)).weights(stored))).unpack()
    assert message in str(caught.value.why)


def test_an_asymmetric_weight_needs_its_zero_points() -> None:
    with pytest.raises(InputError, match=r"'m.weight_scale'") as caught:
        weight_of(stored_weight(), PACK, arguments(4, "group", group=32, symmetric=False))
    assert str(caught.value.why).endswith("without zero points")


def test_a_declared_shape_that_is_absurd() -> None:
    tensors = stored_weight() | {"weight_scale": np.ones((32, 1), np.float16), "weight_shape": np.array([32, -1])}
    with pytest.raises(InputError, match=r"'m.weight_shape'") as caught:
        weight_of(tensors, PACK, arguments(4, "channel"))
    assert caught.value.why == "it says that there are -1 inputs"


def test_odd_bits_are_read_in_whole_groups_of_words() -> None:
    """In older versions a word had as many numbers as fit it whole; where rows do not fill words, nothing tells which it is."""
    tensors = {
        "weight_packed": np.ones((32, 4), np.int32),
        "weight_scale": np.ones((32, 1), np.float16),
        "weight_shape": np.array([32, 40]),
    }
    with pytest.raises(InputError, match=r"'m.weight_packed'") as caught:
        weight_of(tensors, PACK, arguments(3, "channel"))
    assert "are packed in another order by older versions" in str(caught.value.why)


WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


@pytest.mark.parametrize(
    ("changes", "weights", "key"),
    [
        ({"config_groups": None}, {}, "config_groups"),
        ({"format": "nvfp4-pack-quantized"}, {}, "format"),
        ({"format": "marlin-24"}, {}, "format"),
        ({"format": "dense"}, {}, "format"),
        ({"format": None}, {}, "format"),
        ({"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}}, {}, "transform_config"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, {}, "sparsity_config"),
        ({"config_groups": {"W4A16": ["Linear"]}}, {}, "config_groups.W4A16"),
        ({}, {"num_bits": 9}, "config_groups.group_0.weights.num_bits"),
        ({}, {"type": "float"}, "config_groups.group_0.weights.type"),
        ({}, {"strategy": "tensor_group"}, "config_groups.group_0.weights.strategy"),
        ({}, {"group_size": None}, "config_groups.group_0.weights.group_size"),
        ({}, {"group_size": -1}, "config_groups.group_0.weights.group_size"),
        ({}, {"actorder": "sideways"}, "config_groups.group_0.weights.actorder"),
        ({}, {"strategy": "block", "block_structure": "8xa"}, "config_groups.group_0.weights.block_structure"),
    ],
)
def test_a_form_that_is_not_read(changes: dict[str, Any], weights: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match="quantized by compressed-tensors in a form that is not read") as caught:
        method(changes.pop("format", PACK), WEIGHTS | weights, **changes)
    assert caught.value.where == f"config.json: quantization_config.{key}"


def test_forms_that_change_nothing() -> None:
    plain = {"sparsity_config": {"format": "dense", "global_sparsity": 0.1}, "transform_config": {}}
    assert method(PACK, WEIGHTS, **plain).groups == method(PACK, WEIGHTS | {"actorder": "weight"}, **plain).groups
    assert method(PACK, config_groups=None, kv_cache_scheme={"num_bits": 8}).may_be_plain
    old = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "128x64"}
    assert method(FLOAT, old).groups[0].block == (128, 64)
