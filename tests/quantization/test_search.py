"""The method "search" against its definition written plainly, and against "round": less error in as many bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.quantization import pack as module
from llmbuild.quantization.pack import UnfitValueError, pack
from llmbuild.quantization.scheme import SCHEMES, Scheme
from llmbuild.quantization.search import TRIES
from llmbuild.quantization.unpack import unpack
from tests.helpers.reference_quant import DTYPES

SEARCHED = [
    replace(SCHEMES[name], method="search") for name in ("q4f16_1", "q3f16_1", "q4f32_1", "q4bf16_0", "q3f16_0")
]
EIGHT = replace(SCHEMES["q4f16_1"], name="eight", bits=8, method="search")  # type: ignore[arg-type]


def by_name(schemes: list[Scheme]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheme", schemes, ids=lambda scheme: scheme.name)


def restored(weight: np.ndarray, scheme: Scheme, words: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return unpack(scheme, words, scales, weight.shape, transposed=scheme.layout == "KN")  # type: ignore[arg-type]


def packed(weight: np.ndarray, scheme: Scheme, **options: object) -> tuple[np.ndarray, np.ndarray]:
    return pack(weight, scheme, transposed=scheme.layout == "KN", **options)  # type: ignore[arg-type]


def error(weight: np.ndarray, scheme: Scheme) -> float:
    wide = weight.astype(np.float64)
    return float(((restored(weight, scheme, *packed(weight, scheme)) - wide) ** 2).sum())


def nearest(values: np.ndarray, inverse: np.float32, zero: int) -> np.ndarray:
    return np.clip(np.rint(values * inverse), -zero, zero + 1).astype(np.float32)


def defined(group: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.generic]:
    """(levels, scale) of one group of float32 values, by the definition."""
    zero, kind = scheme.max_int, DTYPES[scheme.dtype]
    top = max(group, key=abs) if abs(group.max()) != abs(group.min()) else abs(group.max())
    best, least = kind(0), np.inf
    if abs(top) < 2.0**-100:
        return np.zeros_like(group), best
    for part in TRIES[scheme.bits]:
        levels = nearest(group, np.float32(part) * np.float32(zero + 1) / np.float32(top), zero)
        products, squares = np.float64(0), np.float64(0)
        for pair in ordered(levels * group, scheme):
            products += np.float64(pair)
        for pair in ordered(levels * levels, scheme):
            squares += np.float64(pair)
        scale = kind(products / squares) if squares > 0 else kind(0)
        assert abs(np.float64(scale)) * (zero + 1) < 60000
        wide = np.float64(np.float32(scale))
        loss = wide * (wide * squares - 2 * products)
        if loss < least:
            best, least = scale, loss
    step = np.float32(best)
    return nearest(group, np.float32(1) / step if step else np.float32(0), zero), best


def ordered(products: np.ndarray, scheme: Scheme) -> list[np.float32]:
    """The sums in float32 that are added in float64: one where elements are moved by twos, else those of every other pair's."""
    lanes = 4 if scheme.bits in (4, 8) else 2
    found = []
    for part in range(lanes // 2):
        total = np.float32(0)
        for half in range(2):
            for value in products.reshape(-1, lanes // 2, 2)[:, part, half]:
                total = np.float32(total + value)
        found.append(total)
    return found


@by_name([*SEARCHED, EIGHT])
def test_the_definition(scheme: Scheme) -> None:
    rng = np.random.default_rng(scheme.bits)
    k = 2 * scheme.group_size + 7
    weight = (rng.standard_normal((11, k)) * 10.0 ** rng.integers(-6, 2, (11, 1))).astype(DTYPES[scheme.dtype])
    weight[3] = 0
    words, scales = packed(weight, scheme)
    if scheme.layout == "KN":
        words, scales = words.T, scales.T
    bits = np.uint32(scheme.bits)
    places = np.arange(scheme.elements_per_word, dtype=np.uint32) * bits
    numbers = ((words[:, :, None] >> places) & ((np.uint32(1) << bits) - np.uint32(1))).reshape(11, 3, -1)
    padded = np.zeros((11, 3 * scheme.group_size), np.float32)
    padded[:, :k] = weight.astype(np.float32)
    for row, groups in enumerate(padded.reshape(11, 3, -1)):
        for place, group in enumerate(groups):
            levels, scale = defined(group, scheme)
            wanted = levels + scheme.max_int
            if place == 2:
                wanted[7:] = 0
            assert scales[row, place] == scale
            assert np.array_equal(numbers[row, place], wanted)


@pytest.mark.parametrize(("bits", "size", "most"), [(3, 40, 0.62), (4, 32, 0.75), (8, 32, 0.9)])
def test_less_error_than_by_rounding(bits: int, size: int, most: float) -> None:
    weight = np.random.default_rng(1).standard_normal((256, 960)).astype(np.float32)
    scheme = replace(SCHEMES["q4f16_1"], bits=bits, group_size=size)  # type: ignore[arg-type]
    assert error(weight, replace(scheme, method="search")) < most * error(weight, scheme)


@by_name([*SEARCHED, EIGHT])
def test_the_largest_values_stay_finite(scheme: Scheme) -> None:
    largest = 65504.0 if scheme.dtype == "float16" else float(np.uint32(0x7F7F0000).view(np.float32))
    weight = np.random.default_rng(4).uniform(-largest, largest, (40, scheme.group_size)).astype(DTYPES[scheme.dtype])
    weight[:, 0] = largest
    found = restored(weight, scheme, *packed(weight, scheme)).astype(np.float64)
    assert np.isfinite(found).all()
    assert np.abs(found - weight.astype(np.float64)).max() < (0.3 if scheme.bits == 3 else 0.17) * largest


@settings(max_examples=60, deadline=None)
@given(
    scheme=st.sampled_from([*SEARCHED, EIGHT]),
    n=st.integers(1, 6),
    k=st.integers(1, 130),
    seed=st.integers(0, 2**32 - 1),
    halves=st.booleans(),
)
def test_any_values_blocks_and_threads(scheme: Scheme, n: int, k: int, seed: int, halves: bool) -> None:
    rng = np.random.default_rng(seed)
    if halves:
        values = rng.integers(0, 65536, n * k, dtype=np.uint16).view(np.float16)
        weight = np.where(np.isfinite(values), values, np.float16(0)).reshape(n, k)
    else:
        weight = (rng.standard_normal((n, k)) * 10.0 ** rng.uniform(-40, 4)).astype(np.float32)
    words, scales = packed(weight, scheme)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as executor:
        patch.setattr(module, "BLOCK_ELEMENTS", 1)
        again = packed(weight, scheme, executor=executor)
    assert (words.tobytes(), scales.tobytes()) == (again[0].tobytes(), again[1].tobytes())
    found = restored(weight, scheme, words, scales)
    assert np.isfinite(found).all()
    # An element is no farther from its level than the levels' ends are from the largest one; steps of scales are 2^-24 at least.
    largest = np.abs(weight.astype(np.float32)).max()
    assert (
        np.abs(found - weight).max() <= largest * (0.3 if scheme.bits == 3 else 0.17) + (scheme.max_int + 1) * 2.0**-24
    )


def test_every_level_and_both_signs_occur() -> None:
    weight = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float16)
    words, scales = packed(weight, SEARCHED[0])
    numbers = (words[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)) & np.uint32(15)
    assert set(np.unique(numbers)) == set(range(16))
    assert (scales > 0).any()
    assert (scales < 0).any()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_value_that_is_no_number_is_refused(bad: float) -> None:
    weight = np.ones((2, 64), np.float32)
    weight[1, 3] = bad
    with pytest.raises(UnfitValueError):
        packed(weight, SEARCHED[0])


def test_the_type_of_the_source_changes_nothing() -> None:
    weight = np.random.default_rng(3).standard_normal((5, 96)).astype(ml_dtypes.bfloat16)
    one, other = packed(weight, SEARCHED[0]), packed(weight.astype(np.float32), SEARCHED[0])
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
