"""Packing against the plain definition: not one differing word, for every scheme, shape and kind of value."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.quantization import pack as module
from llmbuild.quantization.pack import Packer, UnfitValueError, cast, pack, packed_shapes
from llmbuild.quantization.rounding import round_to_bfloat16
from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.reference_quant import DTYPES, dequantize, quantize
from tests.helpers.schemes import QUANTIZING

PACKED = [SCHEMES[name] for name in QUANTIZING if SCHEMES[name].quantized]
DISTINCT = [SCHEMES[name] for name in ("q4f16_1", "q3f16_1", "q4f32_1", "q4bf16_1")]
SHAPES = [(1, 32), (1, 1), (7, 100), (33, 688), (3, 4096), (129, 40), (5, 31), (2, 97)]


def by_name(schemes: list[Scheme]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheme", schemes, ids=lambda scheme: scheme.name)


def assert_same(weight: np.ndarray, scheme: Scheme, **options: object) -> None:
    transposed = scheme.layout == "KN"
    words, scales = pack(weight, scheme, transposed=transposed, **options)  # type: ignore[arg-type]
    wanted_words, wanted_scales = quantize(weight, scheme.bits, scheme.group_size, scheme.dtype)
    if transposed:
        wanted_words, wanted_scales = wanted_words.T, wanted_scales.T
    assert (words.shape, scales.shape) == packed_shapes(scheme, *weight.shape, transposed=transposed)
    assert words.dtype == np.uint32
    assert scales.dtype == DTYPES[scheme.dtype]
    assert np.count_nonzero(words != wanted_words) == 0
    assert scales.tobytes() == np.ascontiguousarray(wanted_scales).tobytes()


def every_half() -> np.ndarray:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    return halves[np.isfinite(halves)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@by_name(PACKED)
def test_shapes(scheme: Scheme, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0])
    weight = (rng.standard_normal(shape) * 0.02).astype(DTYPES[scheme.dtype])
    assert_same(weight, scheme)


@by_name(PACKED)
def test_every_half_value_in_random_company(scheme: Scheme) -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.permutation(every_half()) for _ in range(4)])
    assert_same(values[: values.size // 688 * 688].reshape(-1, 688), scheme)


@by_name(PACKED)
def test_every_half_value_among_its_neighbours(scheme: Scheme) -> None:
    # Sorted, so that whole groups are subnormal, zero, or large: each regime of the scale occurs.
    values = np.sort(every_half())
    assert_same(values[: values.size // 160 * 160].reshape(-1, 160), scheme)


@by_name(DISTINCT)
def test_values_on_the_edges_of_rounding(scheme: Scheme) -> None:
    rng = np.random.default_rng(6)
    scale = rng.integers(1, 2048, (2000, 1)) * 2.0**-15
    halves = rng.integers(-2 * scheme.max_int, 2 * scheme.max_int + 1, (2000, 160)) / 2
    nudged = halves * scale * (1 + rng.integers(-3, 4, halves.shape) * 2.0**-11)
    assert_same(nudged.astype(DTYPES[scheme.dtype]), scheme)


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@by_name(DISTINCT)
def test_source_dtypes(scheme: Scheme, source: str) -> None:
    rng = np.random.default_rng(7)
    wide = rng.standard_normal((200, 100)) * 10.0 ** rng.integers(-9, 3, (200, 1))
    assert_same(wide.astype(DTYPES.get(source, np.float64)), scheme)


@pytest.mark.parametrize("group", [64, 128])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_user_defined_schemes(group: int, dtype: str) -> None:
    scheme = replace(SCHEMES["q4f16_1"], name="mine", group_size=group, dtype=dtype)  # type: ignore[arg-type]
    weight = (np.random.default_rng(8).standard_normal((17, 200)) * 0.02).astype(np.float32)
    assert_same(weight, scheme)
    assert_same(weight, replace(scheme, layout="KN"))
    assert_same(weight[:, :80], replace(scheme, bits=3, group_size=80))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("bits", [2, 5, 7, 8])
def test_other_widths(bits: int, dtype: str) -> None:
    size = 32 // bits * 8
    scheme = replace(SCHEMES["q4f16_1"], name="mine", bits=bits, group_size=size, dtype=dtype)  # type: ignore[arg-type]
    rng = np.random.default_rng(bits)
    assert_same((rng.standard_normal((17, 200)) * 0.02).astype(np.float32), scheme)
    edges = rng.integers(-2 * scheme.max_int, 2 * scheme.max_int + 1, (300, size + 3)) / 2
    edges[:, 0] = scheme.max_int
    nudged = edges * (1 + rng.integers(-3, 4, edges.shape) * 2.0**-9)
    assert_same(np.clip(nudged, -scheme.max_int, scheme.max_int).astype(DTYPES[scheme.dtype]), scheme)


def test_a_width_of_no_whole_pairs_is_refused() -> None:
    scheme = replace(SCHEMES["q4f16_1"], name="mine", bits=6, group_size=40)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="words of 5 elements of 6 bits"):
        pack(np.zeros((1, 40), np.float32), scheme)


@settings(max_examples=150, deadline=None)
@given(
    scheme=st.sampled_from(PACKED),
    n=st.integers(1, 9),
    k=st.integers(1, 140),
    seed=st.integers(0, 2**32 - 1),
    bits=st.booleans(),
    block=st.sampled_from([1, 300, 1 << 17]),
)
def test_any_shape_and_value(scheme: Scheme, n: int, k: int, seed: int, bits: bool, block: int) -> None:
    rng = np.random.default_rng(seed)
    if bits:
        values = rng.integers(0, 65536, n * k, dtype=np.uint16).view(np.float16)
        weight = np.where(np.isfinite(values), values, np.float16(0)).reshape(n, k)
    else:
        weight = (rng.standard_normal((n, k)) * 10.0 ** rng.uniform(-9, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ELEMENTS", block)
        assert_same(weight, scheme)


@by_name(PACKED)
def test_threads_and_blocks_change_nothing(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = (np.random.default_rng(9).standard_normal((301, 688)) * 0.02).astype(np.float16)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 5000)
    monkeypatch.setattr(module, "BLOCKS_PER_JOB", 2)
    with ThreadPoolExecutor(4) as executor:
        assert_same(weight, scheme, executor=executor)


@by_name(DISTINCT)
def test_groups_of_zeros_dequantize_to_zeros(scheme: Scheme) -> None:
    size = scheme.group_size
    weight = np.zeros((2, 3 * size), np.float16)
    weight[1, size] = 0.5
    words, scales = pack(weight, scheme)
    assert np.isfinite(scales.astype(np.float32)).all()
    back = dequantize(words, scales, scheme.bits, size, 3 * size)
    assert (back.astype(np.float32) == weight.astype(np.float32)).all()
    zero_point = sum(scheme.max_int << (scheme.bits * i) for i in range(scheme.elements_per_word))
    assert (words[0] == zero_point).all()


def test_a_scale_that_underflows_packs_as_zeros() -> None:
    tiny = np.float16(2.0**-24)
    weight = np.zeros((1, 32), np.float16)
    weight[0, :2] = [3 * tiny, -tiny]  # 3 / 7 of the least float16 rounds to 0.
    words, scales = pack(weight, SCHEMES["q4f16_1"])
    assert scales.view(np.uint16).tolist() == [[0]]
    assert words.tolist() == [[0x77777777] * 4]


def test_the_padding_of_the_last_group_packs_as_zero() -> None:
    words, scales = pack(np.full((1, 688), 0.25, np.float16), SCHEMES["q4f16_1"])
    assert words.shape == (1, 88)
    assert scales.shape == (1, 22)
    assert words[0, :86].tolist() == [0xEEEEEEEE] * 86
    assert words[0, 86:].tolist() == [0, 0]


def test_a_worked_example() -> None:
    # max 7 gives a scale of exactly 1, so element i is i - 7 + 7 = i for the first fifteen.
    weight = np.zeros((1, 32), np.float32)
    weight[0, :15] = np.arange(15) - 7
    words, scales = pack(weight, SCHEMES["q4f32_1"])
    assert scales.tolist() == [[1.0]]
    assert words.tolist() == [[0x76543210, 0x7EDCBA98, 0x77777777, 0x77777777]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@by_name(DISTINCT)
def test_nan_and_infinity_are_refused(scheme: Scheme, source: str, bad: float) -> None:
    weight = np.ones((3, 100), DTYPES.get(source, np.float64))
    weight[1, 99] = bad
    with pytest.raises(UnfitValueError, match="NaN" if np.isnan(bad) else "infinity"):
        pack(weight, scheme)
    with pytest.raises(UnfitValueError, match="NaN" if np.isnan(bad) else "infinity"):
        cast(weight, scheme.dtype)


@pytest.mark.parametrize("source", ["bfloat16", "float32"])
def test_overflow_of_half_is_refused(source: str) -> None:
    weight = np.ones((3, 100), DTYPES[source])
    weight[2, 5] = -65536
    with pytest.raises(UnfitValueError, match=r"65536.*overflows float16"):
        pack(weight, SCHEMES["q4f16_1"])
    with pytest.raises(UnfitValueError, match="overflows float16"):
        cast(weight, "float16")
    pack(weight, SCHEMES["q4f32_1"])


def test_the_largest_values_that_still_round_to_half() -> None:
    weight = np.full((1, 32), 65519.0, np.float32)
    assert cast(weight, "float16")[0, 0] == 65504
    assert_same(weight, SCHEMES["q4f16_1"])


@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
def test_cast(source: str, target: str) -> None:
    values = np.random.default_rng(3).standard_normal(1000).astype(DTYPES.get(source, np.float64))
    assert cast(values, target).tobytes() == values.astype(DTYPES[target]).tobytes()  # type: ignore[arg-type]


def test_rounding_to_bfloat16_agrees_with_ml_dtypes() -> None:
    bits = np.random.default_rng(4).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.abs(values) < 3e38]
    assert (round_to_bfloat16(values) == values.astype(ml_dtypes.bfloat16).view(np.uint16)).all()


def test_schemes_that_cannot_pack() -> None:
    with pytest.raises(ValueError, match="does not quantize"):
        packed_shapes(SCHEMES["q0f16"], 1, 32)
    with pytest.raises(ValueError, match="does not fill words"):
        Packer(replace(SCHEMES["q3f16_1"], group_size=32), 1, 32)
