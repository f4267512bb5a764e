"""Shares of a prediction: what Shapley's axioms say of them, and other ways to the same numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.models.explanation import alternatives, shapley_shares
from radllm_backend.models.shipped import shipped_models

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


# --- of a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_model, tiny_base, tmp_path_factory):
    pytest.importorskip("torch")
    from radllm_backend import Model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        own = Model.load(tiny_model, tiny_base)
        assert own.reader
    return own


@pytest.fixture(scope="module")
def rows(phantom_table):
    from radllm_backend.features.table import read_table

    return read_table(phantom_table).rows()


@pytest.fixture(scope="module")
def explained(model, rows):
    return model.predict_many(rows, explain=True)


def test_shares_of_every_lesion_add_up_to_its_log_odds(model, explained):
    calibration = model.card.calibration
    for prediction in explained:
        log_odds = calibration.slope * prediction.logit + calibration.intercept
        effects = [share.effect for share in prediction.features]
        assert sum(effects) + prediction.additive.baseline == pytest.approx(log_odds, abs=1e-4)
        assert any(abs(effect) > 1e-3 for effect in effects)


def test_explaining_changes_nothing_else(model, explained, rows):
    for plain, prediction in zip(model.predict_many(rows), explained, strict=True):
        assert plain.additive is None
        assert (plain.logit, plain.call, plain.cautions) == (prediction.logit, prediction.call, prediction.cautions)
    assert model.predict(rows[2]) == explained[2]


def test_exact_and_sampled_shares_of_a_model_agree_within_the_stated_error(model, rows):
    within = []
    for row in rows:
        reading = model._read(row)
        logit = model._logits([reading])[0][0]
        exact = shapley_shares(reading.standardised, [], logit, model._baseline, model._score, lambda _: 0.0)
        assert exact.error == 0
        for seed in range(3):
            arguments = (reading.standardised, [], logit, model._baseline, model._score, lambda _: 99.0)
            sampled = shapley_shares(*arguments, affordable=1, seed=seed)
            near = np.abs(np.array(sampled.effects) - exact.effects) <= sampled.error + 1e-9
            within += near.tolist()
    assert np.mean(within) > 0.9


def test_variants_are_scored_as_prompts_alone_are(model, rows):
    """What they begin with is read once, and the scores are the same to the last bit."""
    readings = [model._read(row) for row in rows]
    prompts = [reading.prompt for reading in readings]
    assert model.reader.score(prompts) == [model.reader.score([prompt])[0] for prompt in prompts]
    assert model.reader.effort(prompts) < sum(model.reader.effort([prompt]) for prompt in set(prompts))
    together = model.reader.embed(prompts)
    for index, prompt in enumerate(prompts):
        alone = model.reader.embed([prompt])
        for pooling in ("last", "mean"):
            assert np.array_equal(together[pooling][index], alone[pooling][0])


def test_a_counterfactual_is_what_the_model_says_of_such_a_lesion(model, explained, rows):
    found = 0
    for row, prediction in zip(rows, explained, strict=True):
        assert [one.name for one in prediction.counterfactuals] == [one.name for one in prediction.strongest()[:2]]
        for other in prediction.counterfactuals:
            if other.value is None:
                assert (other.probability, other.call) == (None, None)
                continue
            found += 1
            changed = row.model_copy(update={"values": {**row.values, other.feature: other.value}})
            (again,) = model.predict_many([changed])
            assert again.call == other.call != prediction.call
            assert again.probability == pytest.approx(other.probability, abs=1e-5)
    assert found


def test_the_nearest_training_lesion_of_a_training_lesion_is_itself(model, explained, phantom_table):
    from radllm_backend.features.table import read_table

    labels = read_table(phantom_table).column("label")
    for number, prediction in enumerate(explained):
        distances = [neighbour.distance for neighbour in prediction.neighbours]
        assert distances == sorted(distances)
        assert distances[0] == pytest.approx(0, abs=1e-3)
        nearest = [one.lesion for one in prediction.neighbours if one.distance < 1e-3]
        assert number + 1 in nearest
        assert all(one.label == labels[one.lesion - 1] for one in prediction.neighbours)


def test_a_lesion_unlike_all_others_is_far_though_each_value_is_usual(model, rows):
    usual = [prediction.typicality.percentile for prediction in model.predict_many(rows)]
    assert 40 < np.median(usual) < 60
    own, other = (summary for summary in model.card.features[:2])
    corner = max(
        (
            rows[0].model_copy(
                update={"values": {**rows[0].values, own.feature: first, other.feature: second}},
            )
            for first in (own.quantiles[1], own.quantiles[-2])
            for second in (other.quantiles[1], other.quantiles[-2])
        ),
        key=lambda row: model.predict_many([row])[0].typicality.distance,
    )
    (prediction,) = model.predict_many([corner])
    assert prediction.typicality.percentile > np.median(usual)
    far = {row.feature: row.mean + 30 * row.deviation for row in model.card.features}
    (prediction,) = model.predict_many([rows[0].model_copy(update={"values": {**rows[0].values, **far}})])
    assert prediction.typicality.percentile == 100
    assert "far-from-training" in [caution.code for caution in prediction.cautions]


@pytest.mark.skipif("breast-us" not in shipped_models(), reason="needs the shipped model")
@pytest.mark.parametrize("style", ["findings", "numbers"])
def test_the_reasons_of_eight_features_cost_at_most_twenty_predictions(smollm2, monkeypatch, style):
    """Counted in tokens; `python -m benchmarks.explanation_cost` measures it in time."""
    import torch

    from radllm_backend import Model
    from radllm_backend.features.table import read_table

    own = Model.load("breast-us")
    monkeypatch.setattr(own, "_template", replace(own._template, style=style, quantiles=own._template.quantiles))
    spent = []

    def embed(prompts, progress=None):
        spent.append(own.reader.effort(prompts))
        return {pooling: torch.zeros(len(prompts), 576) for pooling in ("last", "mean")}

    monkeypatch.setattr(own.reader, "embed", embed)
    assert own._baseline  # once a model
    rows = read_table(Path(__file__).resolve().parents[2] / "Resources" / "TrainingTables" / "breast-us.csv").rows()
    for row in rows[::60]:
        spent.clear()
        own.predict(row)
        alone, *reasons = spent
        assert 1 < sum(reasons) / alone < 20
