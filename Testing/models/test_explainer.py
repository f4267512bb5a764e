"""The reasons of a prediction: shares that add up, counterfactuals that come true, neighbours that are near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Features, Model
from radllm_backend.features.table import read_table
from radllm_backend.models.bundle import read_bundle
from radllm_backend.models.explainer import Explainer
from radllm_backend.models.explanation import shapley_shares
from radllm_backend.models.shipped import shipped_models


@pytest.fixture(scope="module")
def model(tiny_model, tiny_base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        own = Model.load(tiny_model, tiny_base)
        assert own.reader
    return own


@pytest.fixture(scope="module")
def rows(phantom_table):
    return read_table(phantom_table).rows()


@pytest.fixture(scope="module")
def explained(model, rows):
    return model.predict_many(rows, explain=True)


# --- shares ---------------------------------------------------------------------------------------------------------


def test_shares_of_every_lesion_add_up_to_its_log_odds(model, explained):
    calibration = model.card.calibration
    for prediction in explained:
        log_odds = calibration.slope * prediction.logit + calibration.intercept
        effects = [share.effect for share in prediction.features]
        assert sum(effects) + prediction.additive.baseline == pytest.approx(log_odds, abs=1e-4)
        assert any(abs(effect) > 1e-3 for effect in effects)


def test_explaining_changes_nothing_else(model, explained, rows):
    for plain, prediction in zip(model.predict_many(rows, explain=False), explained, strict=True):
        assert plain.additive is None
        assert (plain.logit, plain.call, plain.cautions) == (prediction.logit, prediction.call, prediction.cautions)
    assert model.predict(rows[2]) == explained[2]


def test_a_feature_at_the_training_mean_has_no_effect(model, rows):
    average = model.card.features[0]
    at_mean = Features(values={**rows[0].values, average.feature: average.mean}, extraction=rows[0].extraction)
    assert model.predict(at_mean).features[0].effect == 0


def test_exact_and_sampled_shares_of_a_model_agree_within_the_stated_error(model, rows):
    within, explainer = [], model.explainer
    for row in rows:
        reading, logit = model.read(row), model.predict(row, explain=False).logit
        given = (reading.standardised, [], logit, explainer.baseline, explainer.score)
        exact = shapley_shares(*given, lambda _: 0.0)
        assert exact.error == 0
        for seed in range(3):
            sampled = shapley_shares(*given, lambda _: 99.0, affordable=1, seed=seed)
            near = np.abs(np.array(sampled.effects) - exact.effects) <= sampled.error + 1e-9
            within += near.tolist()
    assert np.mean(within) > 0.9


def test_what_it_knows_of_a_model_are_its_five_fields(model, rows):
    """Any log-odds will do: of a weighted sum each share is the feature's own summand."""
    weights = np.array([2.0, -1.0, 0.5, 0.25])
    own = Explainer(
        card=model.card,
        neighbourhood=None,
        score=lambda variants: (np.array(variants[0]) @ weights - 1).tolist(),
        effort=lambda variants: float(len(variants[0])),
        hidden_of=lambda prompt: pytest.fail("nothing is near without training lesions"),
    )
    reading = model.read(rows[0])
    summands = weights * reading.standardised
    plain = model.predict(rows[0], explain=False).model_copy(update={"logit": summands.sum() - 1})
    found = own.explain(plain, reading)
    assert [one.effect for one in found.features] == pytest.approx(model.card.calibration.slope * summands, abs=1e-12)
    assert own.baseline == -1
    assert found.neighbours == []
    strongest = np.argsort(-np.abs(summands))[:2]
    assert [one.feature for one in found.counterfactuals] == [plain.features[number].feature for number in strongest]


# --- what would change the call, and what is near -------------------------------------------------------------------


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
            (again,) = model.predict_many([changed], explain=False)
            assert again.call == other.call != prediction.call
            assert again.probability == pytest.approx(other.probability, abs=1e-5)
    assert found


def test_the_nearest_training_lesion_of_a_training_lesion_is_itself(model, explained, phantom_table):
    labels = read_table(phantom_table).column("label")
    for number, prediction in enumerate(explained):
        distances = [neighbour.distance for neighbour in prediction.neighbours]
        assert distances == sorted(distances)
        assert distances[0] == pytest.approx(0, abs=1e-3)
        nearest = [one.lesion for one in prediction.neighbours if one.distance < 1e-3]
        assert number + 1 in nearest
        assert all(one.label == labels[one.lesion - 1] for one in prediction.neighbours)


# --- what they cost -------------------------------------------------------------------------------------------------


@pytest.mark.skipif("breast-us" not in shipped_models(), reason="needs the shipped model")
@pytest.mark.parametrize("style", ["findings", "numbers"])
def test_the_reasons_of_eight_features_cost_at_most_twenty_predictions(smollm2, monkeypatch, style):
    """Counted in tokens; `python -m benchmarks.explanation_cost` measures it in time."""
    bundle = read_bundle("breast-us")
    own = Model(replace(bundle, card=bundle.card.model_copy(update={"style": style})))
    spent = []

    def embed(prompts, readouts, progress=None):
        spent.append(own.reader.effort(prompts))
        return {readout: np.zeros((len(prompts), 576), dtype=np.float32) for readout in readouts}

    monkeypatch.setattr(own.reader, "embed", embed)
    assert own.explainer.baseline  # once a model
    rows = read_table(Path(__file__).resolve().parents[2] / "Resources" / "TrainingTables" / "breast-us.csv").rows()
    for row in rows[::60]:
        spent.clear()
        own.predict(row)
        alone, *reasons = spent
        assert 1 < sum(reasons) / alone < 20
