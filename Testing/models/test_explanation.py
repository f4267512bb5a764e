"""Shares of a prediction: what Shapley's axioms say of them, and other ways to the same numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.models.explanation import alternatives, shapley_shares

TERMS = {"": 0.0, "oval": -1.0, "irregular": 2.0}
WEALTH, POVERTY = 1e9, 0.0


def additive(variants):
    """No feature's effect depends on another's."""
    weights = (1.5, -2.0, 0.25, 0.0)
    return [
        0.3
        + sum(weight * value for weight, value in zip(weights, row, strict=False))
        + sum(TERMS[one] for one in words)
        for row, words in zip(*variants, strict=True)
    ]


def entangled(variants):
    """Features that act together only."""
    return [
        math.tanh(math.prod(1 + value for value in row)) + sum(TERMS[one] for one in words) * (1 + sum(row))
        for row, words in zip(*variants, strict=True)
    ]


def each(variants):
    """Every different variant costs one score."""
    return len({(tuple(row), tuple(words)) for row, words in zip(*variants, strict=True)})


def shares_of(values, descriptors, score, affordable=WEALTH, seed=0):
    whole, baseline = worth(values, descriptors, range(99), score), worth(values, descriptors, (), score)
    return shapley_shares(values, descriptors, whole, baseline, score, each, affordable=affordable, seed=seed)


def by_orders(values, descriptors, score):
    """The definition: the mean gain over all orders in which the players can come."""
    count, gains = len(values) + len(descriptors), []
    for order in itertools.permutations(range(count)):
        own = np.zeros(count)
        kept = set()
        before = worth(values, descriptors, kept, score)
        for player in order:
            kept.add(player)
            after = worth(values, descriptors, kept, score)
            own[player], before = after - before, after
        gains.append(own)
    return np.mean(gains, axis=0)


def worth(values, descriptors, kept, score):
    row = [value if index in kept else 0.0 for index, value in enumerate(values)]
    words = [word if len(values) + index in kept else "" for index, word in enumerate(descriptors)]
    return score(([row], [words]))[0]


def test_without_interactions_every_feature_gets_its_own_term():
    for affordable in (WEALTH, POVERTY):
        shares = shares_of([2.0, 1.0, -4.0, 3.0], ["oval", ""], additive, affordable)
        assert shares.effects == pytest.approx([3.0, -2.0, -1.0, 0.0, -1.0, 0.0])
        assert shares.error == pytest.approx(0, abs=1e-12)


def test_a_feature_that_is_not_seen_gets_nothing():
    """The fourth: however the others act together, and also when sampled."""
    values, blind = [0.5, -0.4, 0.8, 0.3], lambda variants: entangled(([row[:3] for row in variants[0]], variants[1]))
    for affordable in (WEALTH, POVERTY):
        assert shares_of(values, [], blind, affordable).effects[3] == pytest.approx(0, abs=1e-12)


numbers = st.floats(-3, 3, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=4), st.lists(st.sampled_from(sorted(TERMS)), max_size=2))
@settings(deadline=None, max_examples=60)
def test_shares_are_the_mean_over_all_orders_and_add_up(values, descriptors):
    shares = shares_of(values, descriptors, entangled)
    assert shares.effects == pytest.approx(by_orders(values, descriptors, entangled).tolist(), abs=1e-9)
    whole, baseline = worth(values, descriptors, range(9), entangled), worth(values, descriptors, (), entangled)
    assert sum(shares.effects) == pytest.approx(whole - baseline, abs=1e-9)


@given(st.lists(numbers, min_size=5, max_size=8), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_sampled_shares_add_up_as_well(values, seed):
    shares = shares_of(values, [], entangled, affordable=30, seed=seed)
    whole, baseline = worth(values, [], range(9), entangled), worth(values, [], (), entangled)
    assert sum(shares.effects) == pytest.approx(whole - baseline, abs=1e-9)


@pytest.mark.parametrize("affordable", [1, 80])
def test_sampled_shares_lie_within_their_errors(affordable):
    """Of 200 runs some 95% or more, as the error says."""
    values = [0.5, -0.4, 0.8, 0.3, -0.2, 0.6, 0.1, 0.9]
    exact = np.array(shares_of(values, [], entangled).effects)
    within = []
    for seed in range(200):
        found = shares_of(values, [], entangled, affordable, seed)
        assert 0 < found.error < 2
        within += (np.abs(np.array(found.effects) - exact) <= found.error).tolist()
    assert 0.93 < np.mean(within) < 1


def test_no_more_is_scored_than_is_affordable_and_three_orders_with_their_reverses_at_least():
    scored = []

    def counting(variants):
        scored.append(each(variants))
        return entangled(variants)

    values = [0.1 * (1 + index) for index in range(8)]
    for affordable in (254, 253, 60, 50, 1):
        shapley_shares(values, [], 0.0, 0.0, counting, each, affordable=affordable)
    assert scored[0] == 254  # all and none of the features were scored before
    assert all(spent <= affordable for spent, affordable in zip(scored[1:4], (253, 60, 50), strict=True))
    assert scored[2] > 40
    assert 30 < scored[4] <= 44
    shapley_shares([0.1] * 40, [], 0.0, 0.0, counting, each, affordable=500)
    assert 200 < scored[-1] <= 500


def test_alternatives_change_one_thing_each():
    values, named = alternatives([1.0, 2.0], ["oval"], [(1, 5.0), (2, "irregular"), (0, -1.0)])
    assert values == [[1.0, 5.0], [1.0, 2.0], [-1.0, 2.0]]
    assert named == [["oval"], ["irregular"], ["oval"]]
    assert alternatives([1.0], [], []) == ([], [])
