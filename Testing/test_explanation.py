"""Shares of a prediction: what Shapley's axioms say of them, and a second way to the same numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.explanation import occlusion_effects, shapley_shares

TERMS = {"": 0.0, "oval": -1.0, "irregular": 2.0}


def additive(values, descriptors):
    """No feature's effect depends on another's."""
    weights = (1.5, -2.0, 0.25, 0.0)
    return [
        0.3
        + sum(weight * value for weight, value in zip(weights, row, strict=False))
        + sum(TERMS[one] for one in words)
        for row, words in zip(values, descriptors, strict=True)
    ]


def entangled(values, descriptors):
    """Features that act together only."""
    return [
        math.tanh(math.prod(1 + value for value in row)) + sum(TERMS[one] for one in words) * (1 + sum(row))
        for row, words in zip(values, descriptors, strict=True)
    ]


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
    return score([row], [words])[0]


def test_without_interactions_every_feature_gets_its_own_term():
    shares = shapley_shares([2.0, 1.0, -4.0, 3.0], ["oval", ""], additive)
    assert shares.effects == pytest.approx([3.0, -2.0, -1.0, 0.0, -1.0, 0.0])
    assert shares.baseline == pytest.approx(0.3)
    assert shares.errors == [0.0] * 6
    assert shares.effects == pytest.approx(
        occlusion_effects(
            [2.0, 1.0, -4.0, 3.0], ["oval", ""], additive([[2.0, 1.0, -4.0, 3.0]], [["oval", ""]])[0], additive
        )
    )


numbers = st.floats(-3, 3, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=4), st.lists(st.sampled_from(sorted(TERMS)), max_size=2))
@settings(deadline=None, max_examples=60)
def test_shares_are_the_mean_over_all_orders_and_add_up(values, descriptors):
    shares = shapley_shares(values, descriptors, entangled)
    assert shares.effects == pytest.approx(by_orders(values, descriptors, entangled).tolist(), abs=1e-9)
    whole = entangled([values], [descriptors])[0]
    assert sum(shares.effects) == pytest.approx(whole - shares.baseline, abs=1e-9)


@given(st.lists(numbers, min_size=5, max_size=8), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_sampled_shares_add_up_as_well(values, seed):
    shares = shapley_shares(values, [], entangled, budget=100, seed=seed)
    assert sum(shares.effects) == pytest.approx(entangled([values], [[]])[0] - shares.baseline, abs=1e-9)


def test_sampled_shares_lie_within_their_errors():
    """Of 60 runs: about one in twenty lies farther off than twice its error."""
    values = [0.5, -0.4, 0.8, 0.3, -0.2, 0.6, 0.1, 0.9]
    exact = np.array(shapley_shares(values, [], entangled).effects)
    distances = []
    for seed in range(60):
        found = shapley_shares(values, [], entangled, budget=200, seed=seed)
        assert min(found.errors) > 0
        distances += (np.abs(np.array(found.effects) - exact) / found.errors).tolist()
    assert np.mean(np.array(distances) < 2) > 0.85
    assert np.mean(np.array(distances) < 2) < 0.999


def test_the_budget_is_kept():
    asked = []

    def counting(values, descriptors):
        asked.append(len(values))
        return entangled(values, descriptors)

    shapley_shares([0.1] * 9, [], counting)
    shapley_shares([0.1] * 20, [], counting)
    assert asked[0] == 512
    assert len(asked) == 2
    assert 256 < asked[1] <= 512


# --- of a model -----------------------------------------------------------------------------------------------------


def test_a_prediction_s_shares_add_up_to_its_log_odds(tiny_model, tiny_base, phantom_table, fresh_cache):
    pytest.importorskip("torch")
    from radllm_backend import Model
    from radllm_backend.feature_table import read_table
    from radllm_backend.reports.html import report_html

    model, row = Model.load(tiny_model, tiny_base), read_table(phantom_table).rows()[3]
    usual, shared = model.predict(row), model.predict(row, shapley=True)
    calibration = model.card.calibration
    assert (usual.additive, shared.logit, shared.probability) == (None, usual.logit, usual.probability)
    effects = [share.effect for share in shared.features]
    assert effects != pytest.approx([share.effect for share in usual.features], abs=1e-9)
    log_odds = calibration.slope * shared.logit + calibration.intercept
    assert sum(effects) + shared.additive.baseline == pytest.approx(log_odds, abs=1e-6)
    assert shared.additive.error == 0
    assert "the effects add up to it." in report_html(shared)
    assert "do not add up" in report_html(usual)
