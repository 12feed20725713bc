"""The sampler against MLC's definition of penalties, and against the distribution it must draw from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.errors import UsageError
from llmbuild.runtime.sampling import Sampler, Sampling


def test_temperature_zero_takes_the_largest_logit() -> None:
    sampler = Sampler(Sampling(temperature=0))
    assert sampler.next(np.array([0.0, 3.0, 2.0], dtype="float32")) == 1


def test_the_same_seed_draws_the_same_tokens() -> None:
    logits = np.linspace(-1, 1, 50).astype("float32")
    first, second = (Sampler(Sampling(), seed=7) for _ in range(2))
    assert [first.next(logits) for _ in range(40)] == [second.next(logits) for _ in range(40)]
    other = Sampler(Sampling(), seed=8)
    assert [other.next(logits) for _ in range(40)] != [Sampler(Sampling(), seed=7).next(logits) for _ in range(40)]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype="float32"))
    sampler = Sampler(Sampling(top_p=0.7), seed=1)
    drawn = {sampler.next(logits) for _ in range(300)}
    assert drawn == {0, 1}


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([0.6, 0.25, 0.1, 0.05])
    sampler = Sampler(Sampling(), seed=3)
    logits = np.log(probabilities).astype("float32")
    counts = np.bincount([sampler.next(logits) for _ in range(4000)], minlength=4)
    assert np.abs(counts / 4000 - probabilities).max() < 0.03


def test_temperature_flattens() -> None:
    logits = np.array([2.0, 0.0], dtype="float32")
    sampler = Sampler(Sampling(temperature=4.0), seed=3)
    share = np.mean([sampler.next(logits) == 0 for _ in range(4000)])
    assert abs(share - 1 / (1 + np.exp(-0.5))) < 0.03


def test_presence_and_frequency_penalties_are_subtracted() -> None:
    sampler = Sampler(Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.4))
    logits = np.array([2.0, 1.0], dtype="float32")
    # 2.0, then 2.0 - 0.5 - 0.4 = 1.1 is still more than 1.0, then 2.0 - 0.5 - 0.8 = 0.7 is not.
    assert [sampler.next(logits) for _ in range(3)] == [0, 0, 1]
    assert logits.tolist() == [2.0, 1.0]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    positive = Sampler(Sampling(temperature=0, repetition_penalty=2.0))
    assert [positive.next(np.array([1.0, 0.6], dtype="float32")) for _ in range(2)] == [0, 1]
    negative = Sampler(Sampling(temperature=0, repetition_penalty=2.0))
    assert [negative.next(np.array([-1.0, -1.5], dtype="float32")) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "values", [{"temperature": -1.0}, {"top_p": 1.5}, {"top_p": -0.1}, {"repetition_penalty": 0.0}]
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Sampling(**values)


def test_given_values_go_over_the_configuration() -> None:
    config = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": None}
    sampling = Sampling.from_config(config, temperature=0.0, top_p=None)
    assert sampling == Sampling(temperature=0.0, top_p=0.9, repetition_penalty=1.0)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    temperature=st.floats(0.05, 5),
    top_p=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_a_draw_is_always_a_token_of_the_kept_set(
    logits: list[float], temperature: float, top_p: float, seed: int
) -> None:
    array = np.array(logits, dtype="float32")
    token = Sampler(Sampling(temperature=temperature, top_p=top_p), seed).next(array)
    assert 0 <= token < len(array)
    # Every token that is strictly likelier fits into top-p together with less than the drawn token's own share.  Logits that
    # differ by less than float64 can tell apart after the exponential are equally likely.
    weights = np.exp((array.astype("float64") - array.max()) / temperature)
    likelier = weights[weights > weights[token]].sum() / weights.sum()
    assert likelier <= top_p + 1e-9
