"""Fusion: what it learns, that its folded form is the same model, and that useless hidden states do little harm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import Readout
from radllm_backend.learning.classical import AVERAGED, FUSIBLE, choose, logistic_regression
from radllm_backend.learning.fusion import candidate_readouts, cheapest_of_the_best, fit_concatenation, fit_weight
from radllm_backend.learning.methods import RIDGE
from radllm_backend.models.heads import weighted_mean

LESIONS, COLUMNS, HIDDEN = 120, 4, 30
LAST, MEAN = Readout(5, "last"), Readout(5, "mean")


@pytest.fixture(scope="module")
def lesions():
    """Standardised features, hidden states, labels and patients: either block holds half of the signal."""
    random = np.random.default_rng(0)
    labels = np.arange(LESIONS) % 2
    design = random.normal(size=(LESIONS, COLUMNS))
    design[:, 0] += labels
    mean, last = random.normal(size=(2, LESIONS, HIDDEN))
    mean[:, :10] += 0.7 * labels[:, None]
    return design, {LAST: last, MEAN: mean}, labels, np.arange(LESIONS).astype(str)


@pytest.fixture(scope="module")
def fitted(lesions):
    """Fits a fusion, each once."""
    design, embeddings, labels, groups = lesions

    @cache
    def fit(kind="logistic regression", columns=COLUMNS):
        return fit_concatenation(kind, design[:, :columns], embeddings, labels, groups, inner_folds=3)

    return fit


def test_candidates_are_four_depths_and_two_poolings_and_an_option_fixes_the_depth():
    assert [one.layers for one in candidate_readouts(30)] == [5, 5, 10, 10, 20, 20, 30, 30]
    assert {one.pooling for one in candidate_readouts(30)} == {"last", "mean"}
    assert {one.layers for one in candidate_readouts(2)} == {1, 2}
    assert candidate_readouts(30, 7) == [Readout(7, "last"), Readout(7, "mean")]
    with pytest.raises(RadllmError, match="has 30 layers and 31 are to be read: ask for fewer"):
        candidate_readouts(30, 31)


def test_a_deeper_readout_has_to_be_better_beyond_doubt():
    shallow, deep = Readout(5, "mean"), Readout(30, "mean")
    assert cheapest_of_the_best({shallow: (0.80, 0.70, 0.75), deep: (0.79, 0.72, 0.76)}) == shallow
    assert cheapest_of_the_best({shallow: (0.70, 0.71, 0.72), deep: (0.79, 0.80, 0.81)}) == deep
    assert cheapest_of_the_best({shallow: (0.8, 0.9), Readout(5, "last"): (0.8, 0.85), deep: (0.8, 0.9)}) == shallow
    assert cheapest_of_the_best({deep: (), shallow: ()}) == shallow  # no inner fold has both classes
    assert cheapest_of_the_best({deep: (0.8,), shallow: (0.7,)}) == deep


def test_fewer_layers_are_read_where_all_say_the_same(lesions):
    design, embeddings, labels, groups = lesions
    same = {Readout(layers, "mean"): embeddings[MEAN] for layers in (5, 10, 30)}
    assert fit_concatenation(RIDGE, design[:, :0], same, labels, groups, inner_folds=3).readout == MEAN


def test_shuffled_labels_are_chance_though_the_readout_is_chosen(lesions):
    """The choice is inside: on lesions that no inner fold saw, the luckiest of eight readouts is worth nothing."""
    random = np.random.default_rng(7)
    labels, groups = np.arange(300) % 2, np.arange(300).astype(str)
    noise = {one: random.normal(size=(300, HIDDEN)) for one in candidate_readouts(30)}
    training, held_out = np.arange(150), np.arange(150, 300)
    part = {one: states[training] for one, states in noise.items()}
    empty = np.empty((150, 0))
    fusion = fit_concatenation(RIDGE, empty, part, labels[training], groups[training], inner_folds=3)
    rest = {one: states[held_out] for one, states in noise.items()}
    assert roc_auc_score(labels[held_out], fusion.logits(empty, rest)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", ["logistic regression", RIDGE])
def test_one_vector_of_coefficients_says_what_the_pipeline_says(lesions, kind):
    design, embeddings, labels, groups = lesions
    fusion = fit_concatenation(kind, design, embeddings, labels, groups, inner_folds=2)
    assert fusion.linear().logits(design, embeddings) == pytest.approx(fusion.logits(design, embeddings), abs=1e-9)


def test_inner_folds_find_the_pooling_that_holds_the_signal(lesions, fitted):
    fusion = fitted()
    assert fusion.readout == MEAN
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


@pytest.mark.parametrize("kind", [kind for kind in FUSIBLE if kind not in (AVERAGED, RIDGE)])
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
    noise = {pooling: random.normal(size=(LESIONS, 400)) for pooling in (LAST, MEAN)}
    fusion = fit_concatenation("logistic regression", design, noise, labels, groups, inner_folds=3)
    others = np.arange(1000) % 2
    unseen = random.normal(size=(1000, COLUMNS))
    unseen[:, 0] += others
    hidden = {pooling: random.normal(size=(1000, 400)) for pooling in (LAST, MEAN)}
    assert roc_auc_score(others, fusion.logits(unseen, hidden)) > roc_auc_score(others, unseen[:, 0]) - 0.05


def test_the_weight_goes_to_the_better_probability():
    labels = np.arange(200) % 2
    random = np.random.default_rng(0)
    good = np.clip(0.5 + 0.3 * (labels - 0.5) + random.normal(scale=0.1, size=200), 0.01, 0.99)
    chance = random.uniform(0.3, 0.7, size=200)
    assert fit_weight(good, chance, labels) > 0.8
    assert fit_weight(chance, good, labels) < 0.2
    assert weighted_mean(1.0, good, chance) == pytest.approx(np.log(good / (1 - good)))
