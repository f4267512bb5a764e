"""Fusion: what it learns, that its folded form is the same model, and that useless hidden states do little harm."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import Readout
from radllm_backend.learning.classical import AVERAGED, FUSIBLE, choose, logistic_regression
from radllm_backend.learning.fusion import (
    AS_THEY_ARE,
    candidate_readouts,
    cheapest_of_the_best,
    fit_concatenation,
    fit_weight,
)
from radllm_backend.models.heads import weighted_mean

LESIONS, COLUMNS, HIDDEN = 120, 4, 30
READOUTS = candidate_readouts(12)
TOLD = Readout(4, "mean")
"""The one that holds signal: neither of the first layers nor of the last."""
LINEAR = [kind for kind, recipe in FUSIBLE.items() if recipe.linear]


@pytest.fixture(scope="module")
def lesions():
    """Standardised features, hidden states, labels and patients: either block holds half of the signal."""
    random = np.random.default_rng(0)
    labels = np.arange(LESIONS) % 2
    design = random.normal(size=(LESIONS, COLUMNS))
    design[:, 0] += labels
    states = {readout: random.normal(size=(LESIONS, HIDDEN)) for readout in READOUTS}
    states[TOLD][:, :10] += 0.7 * labels[:, None]
    return design, states, labels, np.arange(LESIONS).astype(str)


@pytest.fixture(scope="module")
def fitted(lesions):
    """Fits a fusion, each once."""
    design, embeddings, labels, groups = lesions

    @cache
    def fit(kind="logistic regression", columns=COLUMNS):
        return fit_concatenation(kind, design[:, :columns], embeddings, labels, groups, inner_folds=3)

    return fit


@pytest.mark.parametrize(
    ("depth", "counts"), [(30, [5, 10, 20, 30]), (12, [2, 4, 8, 12]), (2, [1, 2]), (1, [1]), (32, [5, 11, 21, 32])]
)
def test_few_depths_are_tried_and_the_whole_model_is_one_of_them(depth, counts):
    assert candidate_readouts(depth) == [Readout(count, pooling) for count in counts for pooling in ("last", "mean")]


def test_a_wish_for_layers_is_kept_and_too_many_are_refused():
    assert candidate_readouts(12, 3) == [Readout(3, "last"), Readout(3, "mean")]
    assert candidate_readouts(12, 12) == [Readout(12, "last"), Readout(12, "mean")]
    with pytest.raises(RadllmError, match="has 12 layers, and 13 cannot be read: ask for fewer"):
        candidate_readouts(12, 13)


@pytest.mark.parametrize("told", [Readout(2, "last"), Readout(12, "mean")])
def test_inner_folds_find_the_readout_that_holds_the_signal(lesions, told):
    design, states, labels, groups = lesions
    moved = {**states, TOLD: states[told], told: states[TOLD]}
    assert fit_concatenation("LDA", design, moved, labels, groups, inner_folds=3).readout == told


def test_a_deeper_readout_has_to_be_better_beyond_doubt():
    shallow, deep = Readout(5, "mean"), Readout(30, "mean")
    assert cheapest_of_the_best({shallow: (0.80, 0.70, 0.75), deep: (0.79, 0.72, 0.76)}) == shallow
    assert cheapest_of_the_best({shallow: (0.70, 0.71, 0.72), deep: (0.79, 0.80, 0.81)}) == deep
    assert cheapest_of_the_best({shallow: (0.8, 0.9), Readout(5, "last"): (0.8, 0.85), deep: (0.8, 0.9)}) == shallow
    assert cheapest_of_the_best({deep: (), shallow: ()}) == shallow  # no inner fold has both classes
    assert cheapest_of_the_best({deep: (0.8,), shallow: (0.7,)}) == deep


def test_of_equal_readouts_the_one_that_costs_least_is_read(lesions):
    design, states, labels, groups = lesions
    alike = dict.fromkeys(reversed(READOUTS), states[TOLD])
    assert fit_concatenation("LDA", design, alike, labels, groups, inner_folds=3).readout == READOUTS[0]


def test_the_readout_that_holds_the_signal_adds_to_the_features(lesions, fitted):
    fusion = fitted()
    assert fusion.readout == TOLD
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


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("components", [5, None])
@pytest.mark.parametrize("columns", [0, COLUMNS])
def test_with_principal_components_and_without_the_folded_form_is_the_same_model(
    lesions, monkeypatch, kind, components, columns
):
    design, states, labels, groups = lesions
    one = {TOLD: 3 + 5 * states[TOLD]}  # neither centred nor of unit spread
    monkeypatch.setitem(FUSIBLE, kind, replace(FUSIBLE[kind], components=(components,)))
    fusion = fit_concatenation(kind, design[:, :columns], one, labels, groups, inner_folds=3)
    reduction = fusion.chosen.estimator["columns"].named_transformers_["embedding"][-1]
    assert (reduction == AS_THEY_ARE) == (components is None)
    head = fusion.head()
    assert (len(head.features), len(head.embedding)) == (columns, HIDDEN)
    direct = fusion.logits(design[:, :columns], one)
    assert np.ptp(direct) > 0.1
    assert head.logits(design[:, :columns], one) == pytest.approx(direct, abs=1e-9)


@pytest.mark.parametrize("kind", [pytest.param("logistic regression", marks=pytest.mark.long), "LDA"])
def test_shuffled_labels_leave_the_choice_of_a_readout_nothing_to_find(lesions, kind):
    """Judged on lesions that chose nothing: eight readouts are eight chances to be fooled."""
    design, states, labels, groups = lesions
    half, areas = LESIONS // 2, []
    for seed in range(6):
        dealt = np.random.default_rng(seed).permutation(labels)
        inside = {readout: rows[:half] for readout, rows in states.items()}
        fusion = fit_concatenation(kind, design[:half], inside, dealt[:half], groups[:half], inner_folds=3)
        outside = {readout: rows[half:] for readout, rows in states.items()}
        areas.append(roc_auc_score(dealt[half:], fusion.logits(design[half:], outside)))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)  # three standard errors of six such AUCs


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
    noise = {readout: random.normal(size=states.shape) for readout, states in embeddings.items()}
    deaf = fit_concatenation(AVERAGED, design, noise, labels, groups, inner_folds=3).chosen.scores
    areas = [roc_auc_score(labels, scores) for scores in (alone, fitted(AVERAGED).chosen.scores, deaf)]
    assert areas[0] < areas[1] < areas[0] + 0.05
    assert areas[2] == pytest.approx(areas[0], abs=0.01)


def test_useless_hidden_states_do_little_harm(lesions):
    """A hundred times as many columns of noise as of signal."""
    design, _, labels, groups = lesions
    random = np.random.default_rng(1)
    noise = {readout: random.normal(size=(LESIONS, 400)) for readout in READOUTS}
    fusion = fit_concatenation("logistic regression", design, noise, labels, groups, inner_folds=3)
    others = np.arange(1000) % 2
    unseen = random.normal(size=(1000, COLUMNS))
    unseen[:, 0] += others
    hidden = {readout: random.normal(size=(1000, 400)) for readout in READOUTS}
    assert roc_auc_score(others, fusion.logits(unseen, hidden)) > roc_auc_score(others, unseen[:, 0]) - 0.05


def test_the_weight_goes_to_the_better_probability():
    labels = np.arange(200) % 2
    random = np.random.default_rng(0)
    good = np.clip(0.5 + 0.3 * (labels - 0.5) + random.normal(scale=0.1, size=200), 0.01, 0.99)
    chance = random.uniform(0.3, 0.7, size=200)
    assert fit_weight(good, chance, labels) > 0.8
    assert fit_weight(chance, good, labels) < 0.2
    assert weighted_mean(1.0, good, chance) == pytest.approx(np.log(good / (1 - good)))
