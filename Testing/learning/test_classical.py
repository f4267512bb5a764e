"""The baselines: nothing leaks, a planted signal is found, and gaps and unknown terms do what the docstrings say."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions, outer_folds
from radllm_backend.features.selection import mrmr
from radllm_backend.learning import classical
from radllm_backend.learning.calibrating import fit_calibration, youden_threshold
from radllm_backend.learning.classical import (
    AVERAGED,
    CLASSICAL,
    FUSIBLE,
    Recipe,
    choose,
    fit_classical,
    log_odds,
    plain_classifier,
)

SIGNAL = 3
"""The column that the planted signal is in."""


def noise(count=60, columns=300, seed=0):
    """Lesions whose features say nothing of their label."""
    random = np.random.default_rng(seed)
    return Lesions(
        tuple(f"feature{index}" for index in range(columns)),
        random.normal(size=(count, columns)),
        np.arange(count) % 2,
        np.array([f"patient{index}" for index in range(count)]),
    )


def planted(count=80, columns=12, seed=0):
    """Lesions of which one feature separates the classes well."""
    lesions = noise(count, columns, seed)
    values = lesions.values.copy()
    values[:, SIGNAL] += 3.5 * lesions.labels
    return replace(lesions, values=values)


def described(shapes, values=None):
    """Malignant and benign lesions by turns, with the mass shapes given."""
    shapes = np.array(shapes).reshape(-1, 1)
    values = np.empty((len(shapes), 0)) if values is None else values
    names = tuple(f"feature{index}" for index in range(values.shape[1]))
    patients = np.arange(len(shapes)).astype(str)
    return Lesions(names, values, np.arange(len(shapes)) % 2, patients, ("mass_shape",), shapes)


def outer_auc(lesions, name, **options):
    """Mean over three outer folds."""
    areas = []
    for training, held_out in outer_folds(lesions, 3, 0):
        judged = lesions.take(held_out)
        fitted = fit_classical(name, lesions.take(training), inner_folds=3, **options)
        areas.append(roc_auc_score(judged.labels, fitted.score(judged)))
    return np.mean(areas)


def test_selection_inside_the_folds_finds_nothing_in_noise_and_before_them_it_would(monkeypatch):
    monkeypatch.setattr(classical, "COUNTS", (16,))
    nested, leaked = [], []
    for seed in range(4):
        lesions = noise(columns=200, seed=seed).shuffled(seed)
        nested.append(outer_auc(lesions, "LDA", select=True))
        before = mrmr(lesions.values, lesions.labels, 16)
        names = tuple(lesions.features[index] for index in before)
        chosen_too_early = replace(lesions, features=names, values=lesions.columns(names))
        leaked.append(outer_auc(chosen_too_early, "LDA", select=False))
    assert np.mean(nested) == pytest.approx(0.5, abs=0.1)
    assert np.mean(leaked) > 0.8


@pytest.mark.parametrize("select", [False, True])
@pytest.mark.parametrize("name", CLASSICAL)
def test_every_baseline_finds_a_planted_signal_without_a_word(name, select, monkeypatch):
    monkeypatch.setitem(CLASSICAL, name, fewer_trees(CLASSICAL[name]))
    monkeypatch.setattr(classical, "COUNTS", (4, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training, judged = planted(), planted(seed=1)
        fitted = fit_classical(name, training, select=select, inner_folds=3)
        probabilities = fitted.probabilities(judged)
    assert roc_auc_score(judged.labels, fitted.score(judged)) > 0.85
    assert ((probabilities >= fitted.threshold) == judged.labels).mean() > 0.75
    assert np.array_equal(np.argsort(np.argsort(probabilities)), np.argsort(np.argsort(fitted.score(judged))))
    assert (f"feature{SIGNAL}" in fitted.selected) is select
    assert ("features" in fitted.chosen) is select
    assert len(fitted.selected) == fitted.chosen.get("features", 0)
    json.dumps(fitted.chosen)


def fewer_trees(recipe):
    """The same recipe, with a forest that takes a tenth of the time."""
    return replace(recipe, grid={**recipe.grid, "n_estimators": (20,)}) if not recipe.scaled else recipe


@pytest.mark.parametrize("name", ["logistic regression (L1)", "SVM", "gradient boosting"])
def test_the_same_lesions_and_seed_give_the_same_numbers(name, monkeypatch):
    monkeypatch.setattr(classical, "COUNTS", (4,))
    lesions = planted()
    first, second = (fit_classical(name, lesions, select=True, inner_folds=3, seed=4) for _ in range(2))
    assert np.array_equal(first.score(lesions), second.score(lesions))
    assert first.chosen == second.chosen
    assert (first.threshold, first.calibration) == (second.threshold, second.calibration)


def test_gaps_are_filled_with_the_median_of_the_training_lesions():
    lesions, judged = planted(), planted(seed=1)
    values = lesions.values.copy()
    values[::9, SIGNAL] = np.nan
    fitted = fit_classical("logistic regression (L2)", replace(lesions, values=values), select=True, inner_folds=3)
    gaps, medians = judged.values.copy(), judged.values.copy()
    gaps[:, SIGNAL] = np.nan
    medians[:, SIGNAL] = np.nanmedian(values[:, SIGNAL])
    assert f"feature{SIGNAL}" in fitted.selected
    assert fitted.score(replace(judged, values=gaps)) == pytest.approx(fitted.score(replace(judged, values=medians)))
    assert roc_auc_score(judged.labels, fitted.score(judged)) > 0.85


@pytest.mark.parametrize("select", [False, True])
def test_a_feature_that_many_lesions_lack_is_not_used(select):
    lesions = planted()
    values = lesions.values.copy()
    values[::3, SIGNAL] = np.nan
    fitted = fit_classical("LDA", replace(lesions, values=values), select=select, inner_folds=3)
    other = lesions.values.copy()
    other[:, SIGNAL] = 1000
    assert f"feature{SIGNAL}" not in fitted.selected
    assert np.array_equal(fitted.score(lesions), fitted.score(replace(lesions, values=other)))


class Spy(ClassifierMixin, BaseEstimator):
    """Remembers which lesions it was fitted on (the design's only column is the row number)."""

    seen: list[set[int]] = []  # noqa: RUF012 - shared by the clones, on purpose

    def __init__(self, setting=0):
        self.setting = setting

    def fit(self, design, labels):
        self.classes_ = np.unique(labels)
        Spy.seen.append({int(row) for row in design[:, 0]})
        return self

    def decision_function(self, design):
        return design[:, 0] * self.setting


def test_inner_folds_keep_patients_whole_and_hold_every_lesion_out_once(monkeypatch):
    monkeypatch.setattr(Spy, "seen", [])
    groups = np.repeat(np.arange(20), 3).astype(str)
    labels = np.repeat(np.arange(20) % 2, 3)
    rows = np.arange(60.0)[:, None]
    choose(Spy(), {"setting": [1]}, rows, labels, groups, 4, seed=0)
    *inner, refitted = Spy.seen
    assert refitted == set(range(60))
    assert len(inner) == 4
    held_out = [refitted - seen for seen in inner]
    assert sorted(row for part in held_out for row in part) == sorted(range(60))
    assert all(not set(groups[list(part)]) & set(groups[list(refitted - part)]) for part in held_out)


def test_the_setting_with_the_highest_mean_inner_auc_is_chosen_and_the_first_of_equals():
    labels = (np.arange(60) >= 30).astype(int)
    rows, groups = np.arange(60.0)[:, None], np.arange(60).astype(str)
    chosen = choose(Spy(), {"setting": [-1, 0, 2, 5]}, rows, labels, groups, 3, seed=0)
    assert chosen.parameters == {"setting": 2}
    assert chosen.estimator.setting == 2
    assert chosen.auc == 1
    assert np.array_equal(chosen.scores, 2 * np.arange(60))


def test_calibration_and_threshold_come_from_inner_scores_of_the_chosen_setting():
    lesions = planted()
    names = lesions.features[: SIGNAL + 1]
    lesions = replace(lesions, features=names, values=lesions.columns(names))
    fitted = fit_classical("logistic regression (L2)", lesions, select=False, inner_folds=4, seed=2)
    scores = np.zeros(len(lesions))
    for training, held_out in outer_folds(lesions, 4, 2):
        scale = lesions.values[training].mean(axis=0), lesions.values[training].std(axis=0)
        apart = LogisticRegression(C=fitted.chosen["C"], class_weight="balanced", max_iter=2000)
        apart.fit((lesions.values[training] - scale[0]) / scale[1], lesions.labels[training])
        scores[held_out] = apart.decision_function((lesions.values[held_out] - scale[0]) / scale[1])
    calibration = fit_calibration(scores, lesions.labels)
    probabilities = np.array([calibration.probability(score) for score in scores])
    assert fitted.calibration.slope == pytest.approx(calibration.slope)
    assert fitted.threshold == pytest.approx(youden_threshold(probabilities, lesions.labels))


@pytest.mark.parametrize("name", ["logistic regression (L2)", "k-NN", "SVM"])
def test_descriptors_alone_are_enough_and_an_unknown_term_is_like_none(name):
    lesions = described(["oval", "irregular"] * 20)
    fitted = fit_classical(name, lesions, select=True, inner_folds=3)
    oval, irregular, unknown, missing = fitted.score(described(["oval", "irregular", "lobulated", ""]))
    assert oval < missing < irregular
    assert unknown == missing
    assert fitted.selected == []
    assert "features" not in fitted.chosen


def test_a_value_of_two_terms_counts_for_both():
    lesions = described(["oval", "irregular", "oval and lobulated", "irregular and lobulated"] * 10)
    fitted = fit_classical("logistic regression (L2)", lesions, select=False, inner_folds=3)
    nothing, first, second, both = fitted.score(described(["", "oval", "lobulated", "oval and lobulated"]))
    assert first < nothing
    assert both - nothing == pytest.approx(first - nothing + second - nothing)


def test_descriptors_are_never_selected_away():
    random = np.random.default_rng(0)
    lesions = described(["oval", "irregular"] * 30, random.normal(size=(60, 40)))
    fitted = fit_classical("logistic regression (L2)", lesions, select=True, inner_folds=3)
    assert roc_auc_score(lesions.labels, fitted.score(replace(lesions, values=random.normal(size=(60, 40))))) > 0.95


def test_a_handful_of_lesions_is_enough_for_every_baseline():
    lesions = planted(count=8, columns=5)
    for name in CLASSICAL:
        assert np.isfinite(fit_classical(name, lesions, select=True, inner_folds=2).score(lesions)).all()


def test_where_probabilities_are_all_there_is_they_become_finite_log_odds():
    neighbours = CLASSICAL["k-NN"].classifier().set_params(n_neighbors=1)
    design, labels = np.array([[0.0], [1.0]]), np.array([0, 1])
    benign, malignant = log_odds(neighbours.fit(design, labels), design)
    assert malignant == pytest.approx(-benign)
    assert malignant > 5


def test_the_plain_classifiers_are_those_that_can_be_fused_and_give_probabilities():
    lesions = planted()
    for name in ("logistic regression", "random forest", "gradient boosting"):
        classifier = plain_classifier(name, 3).fit(lesions.values, lesions.labels)
        assert classifier.random_state == 3
        assert classifier.predict_proba(lesions.values).shape == (80, 2)
        assert isinstance(FUSIBLE[name], Recipe)


def test_the_averaged_regression_is_the_mean_of_its_parts():
    """scikit-learn's own regressions, one a penalty, against the one linear model that stands for them."""
    lesions = planted()
    averaged = plain_classifier(AVERAGED, 0).fit(lesions.values, lesions.labels)
    parts = [
        LogisticRegression(C=penalty, class_weight="balanced", max_iter=2000).fit(lesions.values, lesions.labels)
        for penalty in averaged.penalties
    ]
    expected = np.mean([part.decision_function(lesions.values) for part in parts], axis=0)
    assert averaged.decision_function(lesions.values) == pytest.approx(expected, abs=1e-12)
    assert averaged.predict_proba(lesions.values)[:, 1] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-12)
    assert clone(averaged).penalties == averaged.penalties


def test_what_cannot_be_fitted_is_said_in_one_sentence():
    lesions = planted()
    with pytest.raises(RadllmError, match="no classical model 'oracle'"):
        fit_classical("oracle", lesions, select=True)
    with pytest.raises(RadllmError, match="only 2 patients"):
        fit_classical("LDA", lesions.take(np.arange(4)), select=True)
    with pytest.raises(RadllmError, match="neither a feature nor a descriptor"):
        fit_classical("LDA", described([""] * 20), select=True)
    with pytest.raises(RadllmError, match="No feature varies"):
        fit_classical("LDA", replace(lesions, values=np.ones((80, 12))), select=True)
