"""Fusion: what it learns, that its folded form is the same model, and that useless hidden states do little harm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radllm_backend.learning.classical import AVERAGED, FUSIBLE, choose, logistic_regression
from radllm_backend.learning.fusion import fit_concatenation, fit_weight
from radllm_backend.models.heads import weighted_mean

LESIONS, COLUMNS, HIDDEN = 120, 4, 30


@pytest.fixture(scope="module")
def lesions():
    """Standardised features, hidden states, labels and patients: either block holds half of the signal."""
    random = np.random.default_rng(0)
    labels = np.arange(LESIONS) % 2
    design = random.normal(size=(LESIONS, COLUMNS))
    design[:, 0] += labels
    mean, last = random.normal(size=(2, LESIONS, HIDDEN))
    mean[:, :10] += 0.7 * labels[:, None]
    return design, {"last": last, "mean": mean}, labels, np.arange(LESIONS).astype(str)


@pytest.fixture(scope="module")
def fitted(lesions):
    """Fits a fusion, each once."""
    design, embeddings, labels, groups = lesions

    @cache
    def fit(kind="logistic regression", columns=COLUMNS):
        return fit_concatenation(kind, design[:, :columns], embeddings, labels, groups, inner_folds=3)

    return fit


def test_inner_folds_find_the_pooling_that_holds_the_signal(lesions, fitted):
    fusion = fitted()
    assert fusion.pooling == "mean"
    design, _, labels, _ = lesions
    alone = roc_auc_score(labels, design[:, 0])
    assert roc_auc_score(labels, fusion.chosen.scores) > alone + 0.05


@pytest.mark.parametrize("columns", [0, COLUMNS])
@pytest.mark.long
def test_the_folded_form_is_the_same_model(lesions, fitted, columns):
    fusion = fitted(columns=columns)
    design, embeddings, _, _ = lesions
    direct = fusion.logits(design[:, :columns], embeddings)
    assert fusion.linear().logits(design[:, :columns], embeddings) == pytest.approx(direct, abs=1e-9)


@pytest.mark.parametrize("kind", [kind for kind in FUSIBLE if kind != AVERAGED])
@pytest.mark.long
def test_every_classifier_learns_from_both_blocks(lesions, fitted, kind):
    fusion = fitted(kind)
    assert roc_auc_score(lesions[2], fusion.chosen.scores) > 0.75
    assert np.isfinite(fusion.logits(*lesions[:2])).all()


def test_the_averaged_regression_gains_little_from_hidden_states_and_loses_nothing_by_them(lesions, fitted):
    design, embeddings, labels, groups = lesions
    estimator, grid = logistic_regression(averaged=True)
    alone = choose(estimator, grid, design, labels, groups, 3, 0).scores
    random = np.random.default_rng(5)
    noise = {pooling: random.normal(size=states.shape) for pooling, states in embeddings.items()}
    deaf = fit_concatenation(AVERAGED, design, noise, labels, groups, inner_folds=3).chosen.scores
    areas = [roc_auc_score(labels, scores) for scores in (alone, fitted(AVERAGED).chosen.scores, deaf)]
    assert areas[0] < areas[1] < areas[0] + 0.05
    assert areas[2] == pytest.approx(areas[0], abs=0.01)


def test_useless_hidden_states_do_little_harm(lesions):
    """A hundred times as many columns of noise as of signal."""
    design, _, labels, groups = lesions
    random = np.random.default_rng(1)
    noise = {pooling: random.normal(size=(LESIONS, 400)) for pooling in ("last", "mean")}
    fusion = fit_concatenation("logistic regression", design, noise, labels, groups, inner_folds=3)
    others = np.arange(1000) % 2
    unseen = random.normal(size=(1000, COLUMNS))
    unseen[:, 0] += others
    hidden = {pooling: random.normal(size=(1000, 400)) for pooling in ("last", "mean")}
    assert roc_auc_score(others, fusion.logits(unseen, hidden)) > roc_auc_score(others, unseen[:, 0]) - 0.05


def test_the_weight_goes_to_the_better_probability():
    labels = np.arange(200) % 2
    random = np.random.default_rng(0)
    good = np.clip(0.5 + 0.3 * (labels - 0.5) + random.normal(scale=0.1, size=200), 0.01, 0.99)
    chance = random.uniform(0.3, 0.7, size=200)
    assert fit_weight(good, chance, labels) > 0.8
    assert fit_weight(chance, good, labels) < 0.2
    assert weighted_mean(1.0, good, chance) == pytest.approx(np.log(good / (1 - good)))
