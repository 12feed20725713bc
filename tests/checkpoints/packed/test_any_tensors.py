"""Random tensors under the names of each method: they are unpacked as announced, or refused with a message."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from llmbuild.checkpoints.packed.quantization import check_quantization, method_of
from llmbuild.errors import LlmbuildError
from tests.helpers.packed import stored_of

FLOAT8 = ml_dtypes.float8_e4m3fn
SIZES = (0, 1, 2, 3, 8, 16, 31, 32, 64, 96)
TYPES = (
    np.int32,
    np.int8,
    np.uint8,
    np.int64,
    np.float16,
    np.float32,
    ml_dtypes.bfloat16,
    FLOAT8,
    np.float64,
    np.bool_,
)


def weights(strategy: str, **values: Any) -> dict[str, Any]:
    return {"num_bits": 4, "strategy": strategy, "group_size": 16, "block_structure": [16, 8], **values}


CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "weight_block_size": [16, 32]},
    {"quant_method": "fbgemm_fp8"},
    *({"quant_method": "gptq", "bits": bits, "group_size": 16} for bits in (2, 3, 4, 8)),
    {"quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2", "dynamic": {"x": {}}},
    *({"quant_method": "awq", "bits": 4, "group_size": size} for size in (16, -1)),
    *(
        {
            "quant_method": "compressed-tensors",
            "format": format,
            "config_groups": {
                "a": {"weights": weights(first, symmetric=False)},
                "b": {"weights": weights(second, **eight)},
            },
        }
        for format in ("pack-quantized", "int-quantized", "float-quantized")
        for first, second in (("group", "channel"), ("tensor", "group"), ("block", "tensor"))
        for eight in ({}, {"num_bits": 8, "type": "int" if format == "pack-quantized" else "float"})
    ),
)


def likely(n: int, k: int) -> dict[str, tuple[list[tuple[int, ...]], list[Any]]]:
    """The shapes and number types that the tensors of a weight [n, k] may have."""
    half, groups = max(n // 8, 1), max(k // 16, 1)
    grids: list[tuple[int, ...]] = [(n, 1), (n, groups), (1,), ()]
    return {
        "qweight": ([(max(k // 8, 1), n), (k, half)], [np.int32]),
        "qzeros": ([(1, half), (groups, half)], [np.int32]),
        "scales": ([(1, n), (groups, n)], [np.float16, np.float32]),
        "g_idx": ([(k,)], [np.int32]),
        "weight": ([(n, k)], [np.int8, FLOAT8]),
        "weight_scale": (grids, [np.float32, ml_dtypes.bfloat16]),
        "weight_scale_inv": (grids, [np.float32, np.uint8]),
        "weight_packed": ([(n, max(k // 8, 1)), (n, max(k // 4, 1))], [np.int32]),
        "weight_shape": ([(2,)], [np.int64]),
        "weight_zero_point": ([(n, 1), (half, groups)], [np.int8, np.int32]),
        "weight_g_idx": ([(k,)], [np.int32]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_any_tensors_are_unpacked_or_refused(seed: int) -> None:
    random = np.random.default_rng(seed)

    def one_of(values: Any) -> Any:
        return values[random.integers(len(values))]

    unpacked = 0
    for _ in range(1500):
        n, k = one_of(SIZES), one_of(SIZES)
        tensors: dict[str, np.ndarray] = {}
        for part, (shapes, types) in likely(n, k).items():
            if random.random() < 0.3:
                continue
            usual = random.random() < 0.9
            shape = one_of(shapes) if usual else tuple(one_of(SIZES) for _ in range(random.integers(4)))
            value = random.integers(-100 if random.random() < 0.5 else 0, 2, shape)
            tensors[f"m.{part}"] = np.asarray(value).astype(one_of(types) if random.random() < 0.9 else one_of(TYPES))
        if random.random() < 0.8:
            tensors["m.weight_shape"] = np.array([n, k])
        config = {"quantization_config": one_of(CONFIGURATIONS)}
        try:
            found = check_quantization(config)
            assert found is not None
            for weight in method_of(found, config).weights(stored_of(tensors)):
                value = weight.unpack()
                assert (value.shape, value.dtype.name) == (weight.info.shape, weight.info.dtype)
                unpacked += 1
        except LlmbuildError as error:
            assert len(str(error).splitlines()) <= 3
    assert unpacked > 20
