"""The method "calibrated" against GPTQ written plainly, and what it and "search" leave of the loss of a trained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmbuild.quantization import calibrated as module
from llmbuild.quantization.calibrated import DAMPING, EMBEDDING_DAMPING, CalibratedPacker, Factor
from llmbuild.quantization.pack import UnfitValueError, pack
from llmbuild.quantization.scheme import SCHEMES, Scheme
from llmbuild.quantization.unpack import unpack
from tests.helpers.divergence import Change, Judge
from tests.helpers.divergence import pack_calibrated as packed
from tests.helpers.reference_quant import DTYPES
from tests.helpers.trained import trained_checkpoint

Q4 = SCHEMES["q4f16_1"]
Q8 = SCHEMES["q8f16_1"]
ALL = [*(SCHEMES[name] for name in ("q4f16_1", "q3f16_1", "q4f32_1", "q4bf16_0", "q3f16_0")), Q8]


def by_name(schemes: list[Scheme]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheme", schemes, ids=lambda scheme: scheme.name)


def restored(weight: np.ndarray, scheme: Scheme, words: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return unpack(scheme, words, scales, weight.shape, transposed=scheme.layout == "KN")  # type: ignore[arg-type]


def inputs(k: int, rows: int = 2000) -> np.ndarray:
    """Second moments of inputs that depend on each other and differ in size."""
    random = np.random.default_rng(k)
    mixed = random.standard_normal((rows, k)) @ (np.eye(k) + random.standard_normal((k, k)) / np.sqrt(k))
    x = mixed * np.exp(random.standard_normal(k) / 2) + 0.3
    found: np.ndarray = (x.T @ x / rows).astype(np.float32)
    return found


def loss(weight: np.ndarray, found: np.ndarray, moments: np.ndarray) -> float:
    errors = weight.astype(np.float64) - found
    return float(np.einsum("ij,ij->", errors @ moments, errors))


def textbook(weight: np.ndarray, scales: np.ndarray, moments: np.ndarray, scheme: Scheme) -> np.ndarray:
    """GPTQ as it was published, by the inverse of the damped moments, in float64, with the scales that were chosen."""
    k = weight.shape[1]
    damped = moments.astype(np.float64) + DAMPING * float(np.diagonal(moments).mean()) * np.eye(k)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, found = weight.astype(np.float64), np.zeros(weight.shape)
    for j in range(k):
        scale = scales[:, j // scheme.group_size].astype(np.float64)
        level = np.rint(left[:, j] / np.where(scale == 0, 1, scale)).clip(-scheme.max_int, scheme.max_int + 1)
        found[:, j] = level * scale
        left[:, j + 1 :] -= np.outer((left[:, j] - found[:, j]) / upper[j, j], upper[j, j + 1 :])
    return found


@by_name([SCHEMES["q4f32_1"], replace(SCHEMES["q4f32_1"], bits=3, group_size=40), replace(Q8, dtype="float32")])
def test_levels_are_those_of_gptq(scheme: Scheme) -> None:
    weight = np.random.default_rng(5).standard_normal((24, 2 * scheme.group_size + 7)).astype(np.float32)
    moments = inputs(weight.shape[1])
    words, scales = packed(weight, scheme, Factor.of_moments([moments]))
    found, wanted = restored(weight, scheme, words, scales), textbook(weight, scales, moments, scheme)
    # Errors go on: where a level is nearly a tie in float32, all that follow it in its row may differ.
    assert np.isclose(found, wanted, atol=1e-5).all(axis=1).mean() > 0.9


@by_name(ALL)
def test_less_loss_in_as_many_bytes(scheme: Scheme) -> None:
    weight = np.random.default_rng(6).standard_normal((96, 3 * scheme.group_size + 10)).astype(DTYPES[scheme.dtype])
    moments = inputs(weight.shape[1])
    words, scales = packed(weight, scheme, Factor.of_moments([moments]))
    weighted = packed(weight, scheme, Factor.of_diagonal(np.diagonal(moments)))
    searched = pack(weight, replace(scheme, method="search"), transposed=scheme.layout == "KN")
    losses = [loss(weight, restored(weight, scheme, *each), moments) for each in ((words, scales), weighted, searched)]
    assert losses[0] < 0.6 * losses[2]
    assert losses[0] < losses[1] < losses[2]
    for one, other in zip((words, scales), searched, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@by_name(ALL)
def test_the_elements_that_pad_a_group_pack_as_zero(scheme: Scheme) -> None:
    weight = np.random.default_rng(7).standard_normal((5, scheme.group_size + 1)).astype(np.float32)
    words, _ = packed(weight, scheme, Factor.of_moments([inputs(weight.shape[1])]))
    rows = words.T if scheme.layout == "KN" else words
    assert (rows[:, scheme.words_per_group] < 1 << scheme.bits).all()
    assert (rows[:, scheme.words_per_group + 1 :] == 0).all()


@by_name([Q4, SCHEMES["q3f16_0"]])
def test_threads_change_nothing(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 8)
    weight = np.random.default_rng(8).standard_normal((101, 330)).astype(np.float16)
    factor = Factor.of_moments([inputs(330)])
    one, three = (packed(weight, scheme, factor, threads) for threads in (1, 3))
    assert [each.tobytes() for each in one] == [each.tobytes() for each in three]


@by_name([Q4, SCHEMES["q3f16_1"]])
def test_blocks_of_inputs_are_quantized_for_themselves(scheme: Scheme) -> None:
    size = 2 * scheme.group_size
    weight = np.random.default_rng(9).standard_normal((17, 2 * size)).astype(np.float32)
    moments = inputs(2 * size)
    first, second = moments[:size, :size], moments[size:, size:]
    # Damping is a part of the mean of all: blocks of the same mean are damped as they would be alone.
    second = second * (np.trace(first) / np.trace(second))
    together = restored(weight, scheme, *packed(weight, scheme, Factor.of_moments([first, second])))
    for part, block in enumerate((first, second)):
        columns = slice(part * size, (part + 1) * size)
        alone = np.ascontiguousarray(weight[:, columns])
        np.testing.assert_array_equal(
            together[:, columns], restored(alone, scheme, *packed(alone, scheme, Factor.of_moments([block])))
        )


def test_blocks_need_not_end_where_groups_do() -> None:
    weight = np.random.default_rng(10).standard_normal((17, 100)).astype(np.float32)
    moments = inputs(100)
    cut = np.zeros_like(moments)
    cut[:50, :50], cut[50:, 50:] = moments[:50, :50], moments[50:, 50:]
    blocks = packed(weight, Q4, Factor.of_moments([moments[:50, :50], moments[50:, 50:]]))
    whole = packed(weight, Q4, Factor.of_moments([cut]))
    np.testing.assert_allclose(restored(weight, Q4, *blocks), restored(weight, Q4, *whole), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_inputs_of_any_size(scale: float) -> None:
    weight = np.random.default_rng(11).standard_normal((9, 64)).astype(np.float32)
    found = restored(weight, Q4, *packed(weight, Q4, Factor.of_moments([inputs(64) * np.float32(scale)])))
    assert np.abs(found - weight).max() < 1
    # An input that never occurs takes no part in compensating, and has levels near its weights all the same.
    dead = inputs(64)
    dead[5], dead[:, 5] = 0, 0
    found = restored(weight, Q4, *packed(weight, Q4, Factor.of_moments([dead])))
    assert np.abs(found - weight)[:, 5].max() < 1


@pytest.mark.parametrize("bad", [np.inf, np.nan, 7e4])
def test_a_value_that_cannot_be_stored_is_refused(bad: float) -> None:
    weight = np.ones((2, 64), np.float32)
    weight[1, 3] = bad
    packer = CalibratedPacker(Q4, 2, 64, Factor.of_diagonal(np.ones(64)))
    with pytest.raises(UnfitValueError):
        packer.pack_rows(weight, 0)


def rounded(scheme: Scheme) -> Change:
    return lambda weight, moments, head: restored(weight, scheme, *pack(weight, scheme))


def calibrated(of_head: Scheme) -> Change:
    def change(weight: np.ndarray, moments: np.ndarray, head: bool) -> np.ndarray:
        factor = Factor.of_moments([moments], EMBEDDING_DAMPING if head else DAMPING)
        scheme = of_head if head else Q4
        return restored(weight, scheme, *packed(weight, scheme, factor))

    return change


def test_what_the_methods_leave_of_the_divergence() -> None:
    judge = Judge(trained_checkpoint(), tokens=2048)

    by_rounding = judge.mean_divergence(rounded(Q4), 4)
    assert judge.mean_divergence(rounded(replace(Q4, method="search")), 4) < 0.75 * by_rounding
    assert judge.mean_divergence(calibrated(Q4), 4) < 0.4 * by_rounding
    assert judge.mean_divergence(calibrated(Q8), 4) < 0.1 * by_rounding
