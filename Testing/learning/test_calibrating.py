"""Probabilities that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

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


def test_the_threshold_separates_what_can_be_separated():
    threshold = youden_threshold(np.array([0.1, 0.2, 0.3, 0.8]), np.array([0, 0, 1, 1]))
    assert threshold == pytest.approx(0.25)
    assert youden_threshold(np.array([0.9, 0.1]), np.array([0, 1])) == 0.5
    assert math.isfinite(youden_threshold(np.array([0.5, 0.5]), np.array([0, 1])))


# --- by another way to the same numbers -----------------------------------------------------------------------------


def most_likely(scores, labels, *, shifted):
    """Slope and intercept of the highest likelihood, by a search that knows nothing of logistic regression."""

    def loss(numbers):
        return log_loss(labels, numbers[0] * scores + (numbers[1] if shifted else 0))

    found = minimize(loss, [1 / np.std(scores), 0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14})
    return found.x[0], found.x[1] if shifted else 0.0


def losses(scores, labels, groups):
    """Mean log loss of temperature and of Platt scaling over five folds of whole patients."""
    rows = Lesions((), np.empty((len(labels), 0)), labels, groups)
    log_odds = np.empty((2, len(labels)))
    for training, held_out in outer_folds(rows, 5, 0):
        for which, shifted in enumerate((False, True)):
            slope, intercept = most_likely(scores[training], labels[training], shifted=shifted)
            log_odds[which, held_out] = slope * scores[held_out] + intercept
    return [log_loss(labels, one) for one in log_odds]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_platt_scaling_has_the_highest_likelihood_of_all_slopes_and_intercepts(size):
    scores, labels = sample(300, sharpness=3, shift=4, seed=2)
    fitted = fit_calibration(size * scores, labels)
    slope, intercept = most_likely(scores, labels, shifted=True)
    assert (fitted.slope * size, fitted.intercept) == pytest.approx((slope, intercept), rel=1e-3)
    groups = np.arange(300).astype(str)
    temperature, platt = losses(scores, labels, groups)
    assert fitted == Calibration(
        slope=fitted.slope,
        intercept=fitted.intercept,
        fitted_on=300,
        method="platt",
        reason=f"Platt scaling: mean log loss {platt:.4f} in cross-validation against {temperature:.4f} of temperature "
        "scaling, which cannot move back scores that are shifted, as those of class-weighted training are.",
    )
    assert fit_calibration(size * scores, labels, groups) == fitted


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_temperature_has_the_highest_likelihood_of_all_slopes(size):
    half, truth = sample(100, sharpness=4)
    scores, labels = np.append(half, -half), np.append(truth, 1 - truth)
    fitted = fit_calibration(size * scores, labels)
    assert fitted.slope * size == pytest.approx(most_likely(scores, labels, shifted=False)[0], rel=1e-5)
    temperature, platt = losses(scores, labels, np.arange(200).astype(str))
    assert fitted == Calibration(
        slope=fitted.slope,
        intercept=0,
        fitted_on=200,
        method="temperature",
        reason=f"Temperature scaling: mean log loss {temperature:.4f} in cross-validation against {platt:.4f} of Platt "
        "scaling, which has one parameter more.",
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_temperature_is_exact_to_six_digits(seed):
    """Where the likelihood is highest, the scores weigh as much in the labels as in the probabilities."""
    half, truth = sample(100, sharpness=2, seed=seed)
    scores, labels = np.append(half, -half), np.append(truth, 1 - truth)
    slope = brentq(lambda slope: scores @ (1 / (1 + np.exp(-slope * scores)) - labels), 0.01, 10, xtol=1e-12)
    assert fit_calibration(scores, labels).slope == pytest.approx(slope, rel=1e-6)


def test_a_fold_without_any_score_but_zero_is_judged_by_its_share():
    scores, labels = np.zeros(20), np.arange(20) % 2
    scores[1] = 1.0
    fitted = fit_calibration(scores, labels)
    assert fitted.method in ("temperature", "platt")
    assert "in cross-validation" in fitted.reason


def test_the_temperature_of_separable_scores_is_a_hundred_times_their_size():
    labels = np.arange(40) % 2
    for size in (1e-3, 3.0):
        fitted = fit_calibration(size * (2.0 * labels - 1), labels)
        assert fitted.method == "temperature"
        assert 50 < fitted.slope * size <= 100


@pytest.mark.parametrize(
    ("labels", "share"), [([0] * 8, 0.001), ([1] * 8, 0.999), ([0, 1, 1, 1] * 2, 0.75), ([0] * 7 + [1], 0.125)]
)
def test_where_scores_say_nothing_the_probability_is_the_share(labels, share):
    expected = Calibration(
        slope=0,
        intercept=math.log(share / (1 - share)),
        fitted_on=8,
        method="prevalence",
        reason="The share of malignant lesions, whatever the score: the scores rank no better than chance.",
    )
    for scores in (np.full(8, 3.0), 1 + 1e-13 * np.arange(8)):
        found = fit_calibration(scores, np.array(labels))
        assert found == expected.model_copy(update={"intercept": pytest.approx(expected.intercept)})


def test_two_patients_of_each_class_are_enough_to_compare_and_one_is_not():
    scores, labels = np.array([-1.0, 0.5, 0.2, 2.0, 1.0, -0.5]), np.array([0, 0, 0, 1, 1, 1])
    compared = fit_calibration(scores, labels, np.array(list("aabccd")))
    assert "mean log loss" in compared.reason
    alone = fit_calibration(scores, labels, np.array(list("abcddd")))
    assert alone.reason == "Temperature scaling: too few patients to compare it with Platt scaling."


def test_very_small_scores_are_scores():
    scores, labels = sample(80, seed=3)
    assert fit_calibration(1e-9 * scores, labels).method != "prevalence"
    assert fit_calibration(1e-9 * scores, labels).slope == pytest.approx(1e9 * fit_calibration(scores, labels).slope)


# --- a threshold ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=2, max_size=30))
def test_no_other_threshold_separates_more(lesions):
    scores, labels = (np.array(column) for column in zip(*lesions, strict=True))
    probabilities = scores / 20
    if not 0 < labels.sum() < len(labels):
        return

    def separated(threshold):
        called = probabilities >= threshold
        return called[labels == 1].mean() - called[labels == 0].mean()

    found = youden_threshold(probabilities, labels)
    best = max(map(separated, [*probabilities, 2.0]))
    if best > 1e-9:
        assert separated(found) == pytest.approx(best)
        assert not (np.abs(probabilities - found) < 1e-9).any()
        higher, lower = probabilities[probabilities > found].min(), probabilities[probabilities < found].max()
        assert found == pytest.approx((higher + lower) / 2)
    else:
        assert found == 0.5


# --- how good a calibration is --------------------------------------------------------------------------------------


def test_each_lesion_is_judged_by_a_calibration_that_has_not_seen_its_patient():
    scores, labels = sample(60, sharpness=3)
    groups = np.array([f"patient {row // 2}" for row in range(60)])
    found = cross_fitted_probabilities(scores, labels, groups, seed=4)
    for training, held_out in outer_folds(Lesions((), np.empty((60, 0)), labels, groups), 5, 4):
        assert not set(groups[training]) & set(groups[held_out])
        expected = fit_calibration(scores[training], labels[training], groups[training]).probabilities(scores[held_out])
        assert (found[held_out] == expected).all()


def test_folds_are_drawn_with_the_seed_0_unless_told_otherwise():
    scores, labels = sample(60, sharpness=3)
    groups = np.arange(60).astype(str)
    default, first, second = (
        cross_fitted_probabilities(scores, labels, groups, **given).tolist() for given in ({}, {"seed": 0}, {"seed": 1})
    )
    assert default == first != second


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
    with pytest.raises(RadllmError) as caught:
        cross_fitted_probabilities(np.arange(4.0), np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "c"]))
    said = "Calibration cannot be judged on fewer than two patients of each class: add lesions."
    assert str(caught.value) == said
