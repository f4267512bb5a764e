"""Probabilities that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions, outer_folds
from radllm_backend.learning.calibrating import cross_fitted_probabilities, fit_calibration, youden_threshold
from radllm_backend.learning.metrics import expected_calibration_error
from radllm_backend.models.calibration import Calibration


def sample(lesions, sharpness=1.0, shift=0.0, seed=0):
    """Scores that are so many times as extreme as their log-odds, and shifted; and labels drawn from these."""
    random = np.random.default_rng(seed)
    truth = random.normal(0, 1.5, lesions)
    labels = (random.random(lesions) < 1 / (1 + np.exp(-truth))).astype(int)
    return sharpness * truth + shift, labels


def log_loss(labels, log_odds):
    return np.mean(np.log1p(np.exp(-np.where(labels == 1, log_odds, -log_odds))))


def test_overconfident_scores_are_brought_back():
    scores, labels = sample(4000, sharpness=5, shift=2)
    fitted = fit_calibration(scores, labels)
    assert fitted.method == "platt"
    assert fitted.slope == pytest.approx(0.2, rel=0.1)
    assert fitted.intercept == pytest.approx(-0.4, abs=0.15)
    assert fitted.fitted_on == 4000
    assert expected_calibration_error(labels, fitted.probabilities(scores)) < 0.02


def test_scores_that_are_not_shifted_need_a_temperature_only():
    half, truth = sample(200, sharpness=4)
    scores, labels = np.append(half, -half), np.append(truth, 1 - truth)
    fitted = fit_calibration(scores, labels)
    assert (fitted.method, fitted.intercept) == ("temperature", 0)
    assert fitted.slope == pytest.approx(0.25, rel=0.15)
    assert fitted.reason.startswith("Temperature scaling: mean log loss 0.")
    assert fitted.reason.endswith("of Platt scaling, which has one parameter more.")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 20), st.integers(40, 200))
def test_the_temperature_is_that_of_the_highest_likelihood(seed, sharpness, lesions):
    scores, labels = sample(lesions, sharpness, seed=seed)
    fitted = fit_calibration(scores, labels)
    if fitted.method == "temperature":
        reached = log_loss(labels, fitted.slope * scores)
        around = np.outer(fitted.slope * np.array([0.5, 0.9, 0.99, 1.01, 1.1, 2]), scores)
        assert all(reached <= log_loss(labels, other) + 1e-9 for other in around)


def test_scores_that_separate_the_classes_get_no_infinite_slope():
    labels = np.arange(40) % 2
    fitted = fit_calibration(np.where(labels == 1, 3.0, -3.0), labels)
    assert math.isfinite(fitted.slope)
    assert 0 < fitted.probability(-3.0) < 0.01
    assert 0.99 < fitted.probability(3.0) <= 1


def test_with_too_few_patients_to_compare_it_is_the_simpler_one():
    scores, labels = np.array([-1.0, 0.5, -0.2, 2.0, 1.0]), np.array([0, 0, 0, 1, 1])
    groups = np.array(["a", "b", "c", "d", "d"])
    fitted = fit_calibration(scores, labels, groups)
    assert (fitted.method, fitted.intercept) == ("temperature", 0)
    assert "too few patients" in fitted.reason


def test_lesions_of_one_patient_are_never_on_both_sides_of_the_comparison():
    """Twenty patients of ten equal lesions each: taken for two hundred they would seem to bear the second parameter."""
    methods = []
    for seed in range(12):
        scores, labels = sample(20, seed=seed)
        repeated, truth, groups = (np.repeat(column, 10) for column in (scores, labels, np.arange(20).astype(str)))
        methods.append((fit_calibration(repeated, truth, groups).method, fit_calibration(repeated, truth).method))
    by_patient, by_lesion = ([pair[place] for pair in methods].count("platt") for place in (0, 1))
    assert by_patient < by_lesion


def test_scores_worse_than_chance_never_turn_the_model_round():
    labels = np.array([0, 0, 0, 1] * 10)
    fitted = fit_calibration(-labels.astype(float) + np.linspace(0, 0.1, 40), labels)
    assert fitted.slope == 0
    assert fitted.probability(7.0) == pytest.approx(0.25)
    slightly_worse = fit_calibration(np.tile([2.0, -1.0, 0.0, 0.0], 10), labels)
    assert (slightly_worse.slope, slightly_worse.probability(9.0)) == (0, pytest.approx(0.25))
    assert fit_calibration(np.zeros(40), labels).probability(1.0) == pytest.approx(0.25)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_probabilities_are_in_range_and_in_order(one, other):
    calibration = Calibration(slope=0.7, intercept=-1)
    low, high = sorted((one, other))
    assert 0 <= calibration.probability(low) <= calibration.probability(high) <= 1


def test_the_threshold_separates_what_can_be_separated():
    threshold = youden_threshold(np.array([0.1, 0.2, 0.3, 0.8]), np.array([0, 0, 1, 1]))
    assert threshold == pytest.approx(0.25)
    assert youden_threshold(np.array([0.9, 0.1]), np.array([0, 1])) == 0.5
    assert math.isfinite(youden_threshold(np.array([0.5, 0.5]), np.array([0, 1])))


def test_older_cards_say_their_method_by_their_numbers():
    def method(**numbers):
        return Calibration.model_validate(numbers).method

    assert method(slope=0.5, intercept=0.1, fitted_on=100) == "platt"
    assert method(slope=0.0, intercept=-1.0, fitted_on=100) == "prevalence"
    assert method(slope=0.5, fitted_on=100, method="temperature") == "temperature"
    assert method() == "none"


def test_many_probabilities_are_those_of_each():
    calibration, scores = Calibration(slope=0.7, intercept=-1), np.array([-800.0, -1.0, 0.0, 3.0, 800.0])
    assert calibration.probabilities(scores).tolist() == [calibration.probability(score) for score in scores.tolist()]


# --- how good a calibration is --------------------------------------------------------------------------------------


def test_each_lesion_is_judged_by_a_calibration_that_has_not_seen_its_patient():
    scores, labels = sample(60, sharpness=3)
    groups = np.array([f"patient {row // 2}" for row in range(60)])
    found = cross_fitted_probabilities(scores, labels, groups, seed=4)
    for training, held_out in outer_folds(Lesions((), np.empty((60, 0)), labels, groups), 5, 4):
        assert not set(groups[training]) & set(groups[held_out])
        expected = fit_calibration(scores[training], labels[training], groups[training]).probabilities(scores[held_out])
        assert (found[held_out] == expected).all()


def test_judged_on_its_own_scores_a_calibration_looks_better_than_it_is():
    surplus = []
    for seed in range(15):
        scores, labels = sample(40, sharpness=3, seed=seed)
        groups = np.arange(40).astype(str)
        own, crossed = (
            np.mean((probabilities - labels) ** 2)
            for probabilities in (
                fit_calibration(scores, labels, groups).probabilities(scores),
                cross_fitted_probabilities(scores, labels, groups),
            )
        )
        surplus.append(crossed - own)
    assert np.mean(surplus) > 2 * np.std(surplus) / 15**0.5


def test_one_patient_of_a_class_is_not_enough_to_judge_it():
    with pytest.raises(RadllmError, match="fewer than two patients of each class"):
        cross_fitted_probabilities(np.arange(4.0), np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "c"]))
