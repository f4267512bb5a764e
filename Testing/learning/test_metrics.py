"""Metrics against scikit-learn, their definitions worked out the slow way, and simulated data whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
)

from radllm_backend.errors import RadllmError
from radllm_backend.learning.metrics import (
    area_under_curve,
    brier,
    calibration_curve,
    called_rates,
    decision_curve,
    delong_interval,
    delong_test,
    expected_calibration_error,
    holm,
    patient_bootstrap,
    roc_points,
    treat_all,
)


def binormal(random, benign=60, malignant=40, distance=1.2):
    """Labels and scores of a model whose AUC is Φ(distance / √2)."""
    labels = np.repeat([0, 1], [benign, malignant])
    return labels, random.normal(labels * distance)


@pytest.fixture
def sample():
    """Labels, tied scores and probabilities of 90 lesions, and how often five rounds drew each."""
    random = np.random.default_rng(1)
    labels, scores = binormal(random, 50, 40)
    probabilities = 1 / (1 + np.exp(-scores.round(1)))
    return labels, scores.round(1), probabilities, patient_bootstrap(np.arange(90).astype(str), labels, 5)


@st.composite
def ranked_lesions(draw):
    """Labels of both classes with scores among which there are ties."""
    labels = draw(st.lists(st.integers(0, 1), min_size=4, max_size=40))
    scores = draw(
        st.lists(st.sampled_from([-2.5, -1.0, 0.0, 0.5, 1e-9, 3.0]), min_size=len(labels), max_size=len(labels))
    )
    return np.array([0, 0, 1, 1, *labels]), np.array([0.0, -1.0, 0.5, -1.0, *scores])


def kernel(labels, scores):
    """1 where a malignant lesion scores higher than a benign one, ½ where they tie: [malignant × benign]."""
    surplus = scores[labels == 1][:, None] - scores[labels == 0]
    return (surplus > 0) + (surplus == 0) / 2


def slow_covariance(labels, first, second):
    """DeLong's covariance of two AUCs from every pair of lesions."""
    one, other = kernel(labels, first), kernel(labels, second)
    malignant, benign = one.shape
    s10 = np.cov(one.mean(axis=1), other.mean(axis=1))
    s01 = np.cov(one.mean(axis=0), other.mean(axis=0))
    return s10 / malignant + s01 / benign


@given(ranked_lesions())
def test_the_area_under_the_curve_is_scikit_learns(lesions):
    assert area_under_curve(*lesions) == pytest.approx(roc_auc_score(*lesions))


def test_every_figure_of_a_bootstrap_round_is_that_of_the_lesions_drawn(sample):
    labels, scores, probabilities, counts = sample
    called = probabilities >= 0.5
    figures = (
        (area_under_curve, scores),
        (brier, probabilities),
        (lambda *given, counts=None: expected_calibration_error(*given, counts=counts), probabilities),
        *((lambda *given, at=at, counts=None: called_rates(*given, counts)[at], called) for at in range(4)),
    )
    for figure, answers in figures:
        repeated = [np.repeat(np.arange(len(labels)), drawn) for drawn in counts]
        expected = [figure(labels[rows], answers[rows]) for rows in repeated]
        np.testing.assert_allclose(figure(labels, answers, counts=counts), expected)


def test_weighted_figures_are_scikit_learns(sample):
    labels, scores, probabilities, counts = sample
    called = probabilities >= 0.5
    oracles = (
        (area_under_curve(labels, scores, counts), roc_auc_score, scores),
        (brier(labels, probabilities, counts), brier_score_loss, probabilities),
        *zip(
            called_rates(labels, called, counts),
            (accuracy_score, balanced_accuracy_score, recall_score, specificity),
            itertools.repeat(called),
            strict=False,
        ),
    )
    for ours, oracle, answers in oracles:
        np.testing.assert_allclose(ours, [oracle(labels, answers, sample_weight=weights) for weights in counts])


def specificity(labels, called, sample_weight):
    return recall_score(labels, called, pos_label=0, sample_weight=sample_weight)


# --- DeLong ---------------------------------------------------------------------------------------------------------


@given(ranked_lesions(), st.randoms(use_true_random=False))
def test_delongs_test_is_that_of_the_covariance_from_every_pair(lesions, random):
    labels, first = lesions
    second = np.array(random.sample(first.tolist(), len(first)))
    covariance = slow_covariance(labels, first, second)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = kernel(labels, first).mean() - kernel(labels, second).mean()
    p = delong_test(labels, first, second)
    assert p == delong_test(labels, second, first)
    if variance > 1e-12:
        assert p == pytest.approx(2 * norm.sf(abs(difference) / variance**0.5), abs=1e-9)


@given(ranked_lesions())
def test_delongs_interval_is_that_of_the_variance_from_every_pair(lesions):
    labels, scores = lesions
    area = kernel(labels, scores).mean()
    interval = delong_interval(labels, scores)
    assert interval.value == pytest.approx(area)
    if 0 < area < 1:
        half = 1.959964 * slow_covariance(labels, scores, scores)[0, 0] ** 0.5 / (area * (1 - area))
        odds = area / (1 - area)
        low, high = odds * np.exp(-half), odds * np.exp(half)
        assert (interval.low, interval.high) == pytest.approx((low / (1 + low), high / (1 + high)))


@pytest.mark.parametrize("distance", [0.0, 1.2, 2.5])
def test_delongs_interval_covers_the_truth_95_times_in_100(distance):
    random = np.random.default_rng(7)
    truth = norm.cdf(distance / 2**0.5)
    intervals = [delong_interval(*binormal(random, 60, 40, distance)) for _ in range(1500)]
    coverage = np.mean([one.low <= truth <= one.high for one in intervals])
    assert coverage == pytest.approx(0.95, abs=0.017)  # three standard errors


def test_equally_good_models_are_told_apart_5_times_in_100():
    random = np.random.default_rng(8)
    p_values = []
    for _ in range(1500):
        labels, shared = binormal(random)
        first, second = (shared + random.normal(0, 0.7, len(labels)) for _ in range(2))
        p_values.append(delong_test(labels, first, second))
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.017)


def test_perfect_separation_is_not_certainty():
    labels, scores = np.repeat([0, 1], [30, 12]), np.arange(42.0)
    best, worst = delong_interval(labels, scores), delong_interval(labels, -scores)
    assert (best.value, best.high, best.low) == (1, 1, pytest.approx(12 / (12 + 1.959964**2)))
    assert (worst.value, worst.low, worst.high) == (0, 0, pytest.approx(1 - best.low))


def test_without_any_spread_equal_models_are_equal_and_others_are_not():
    labels, scores = np.repeat([0, 1], 20), np.arange(40.0)
    assert delong_test(labels, scores, 3 * scores + 1) == 1
    assert delong_test(labels, scores, np.zeros(40)) == 0


# --- curves ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(ranked_lesions())
def test_the_roc_curve_rises_from_corner_to_corner_and_its_area_is_the_area(lesions):
    labels, scores = lesions
    points = roc_points(labels, scores)
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    assert points == sorted(points)
    assert np.trapezoid(*reversed(list(zip(*points, strict=True)))) == pytest.approx(area_under_curve(labels, scores))


def test_a_long_roc_curve_is_thinned():
    labels, scores = binormal(np.random.default_rng(2), 3000, 2000)
    points = roc_points(labels, scores)
    assert len(points) == 200
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    assert np.trapezoid(*reversed(list(zip(*points, strict=True)))) == pytest.approx(
        area_under_curve(labels, scores), abs=1e-3
    )


def test_net_benefit_by_its_definition(sample):
    labels, _, probabilities, _ = sample
    thresholds = [0.0, 0.1, 0.5, 0.9]
    expected = []
    for threshold in thresholds:
        calls = [probability >= threshold for probability in probabilities]
        true = sum(call and label for call, label in zip(calls, labels, strict=True))
        false = sum(call and not label for call, label in zip(calls, labels, strict=True))
        expected.append(true / 90 - false / 90 * threshold / (1 - threshold))
    assert decision_curve(labels, probabilities, thresholds) == pytest.approx(expected)


def test_treating_all_is_worth_the_prevalence_less_the_harm():
    labels = np.repeat([0, 1], [70, 30])
    assert treat_all(labels, [0, 0.3, 0.5]) == pytest.approx([0.3, 0.0, 0.3 - 0.7])
    assert decision_curve(labels, labels.astype(float), [0.2, 0.8]) == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("thresholds", [[0.5, 1.0], [-0.1, 0.5], [1.5]])
def test_a_threshold_that_is_no_probability_below_one_is_refused(thresholds):
    labels = np.array([0, 1])
    with pytest.raises(RadllmError) as caught:
        decision_curve(labels, labels.astype(float), thresholds)
    assert str(caught.value) == (
        "A threshold of a decision curve is not a probability below 1: give numbers from 0 to 0.99."
    )


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand():
    probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    labels = np.array([0, 1, 0, 0, 1, 0, 1, 1])
    # Four bins of two: |.15 - .5|, |.35 - 0|, |.65 - .5|, |.85 - 1|, each a quarter.
    assert expected_calibration_error(labels, probabilities, bins=4) == pytest.approx((0.35 + 0.35 + 0.15 + 0.15) / 4)
    curve = calibration_curve(labels, probabilities, bins=4)
    assert [(one.predicted, one.observed, one.lesions) for one in curve] == [
        (pytest.approx(predicted), observed, 2)
        for predicted, observed in ((0.15, 0.5), (0.35, 0.0), (0.65, 0.5), (0.85, 1.0))
    ]


@given(ranked_lesions(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_bins_hold_every_lesion_keep_ties_together_and_ignore_the_order(lesions, bins, random):
    labels, scores = lesions
    probabilities = 1 / (1 + np.exp(-scores))
    curve = calibration_curve(labels, probabilities, bins)
    assert sum(one.lesions for one in curve) == len(labels)
    assert len(curve) <= min(bins, len(set(probabilities)))
    weighted = sum(one.lesions * abs(one.predicted - one.observed) for one in curve) / len(labels)
    assert expected_calibration_error(labels, probabilities, bins) == pytest.approx(weighted)
    order = random.sample(range(len(labels)), len(labels))
    assert expected_calibration_error(labels[order], probabilities[order], bins) == pytest.approx(weighted)


def test_equal_probabilities_go_to_the_bin_of_their_middle():
    """Ten lesions in two bins: the seven at 0.5 have the ranks 3 to 9, whose middle lies in the upper half."""
    probabilities = np.repeat([0.1, 0.5, 0.9], [2, 7, 1])
    labels = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 1])
    curve = calibration_curve(labels, probabilities, bins=2)
    assert [(one.predicted, one.observed, one.lesions) for one in curve] == [
        (pytest.approx(0.1), 0.5, 2),
        (pytest.approx(4.4 / 8), pytest.approx(4 / 8), 8),
    ]
    expected = (2 * 0.4 + 8 * 0.05) / 10
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(expected)


@pytest.mark.parametrize(("below", "tied", "lower"), [(1, 7, True), (2, 7, False), (0, 9, True), (3, 5, False)])
def test_equal_probabilities_go_to_the_bin_of_their_middle_rank_of_ten(below, tied, lower):
    probabilities = np.repeat([0.1, 0.5, 0.9], [below, tied, 10 - below - tied])
    curve = calibration_curve(np.arange(10) % 2, probabilities, bins=2)
    assert [one.lesions for one in curve] == ([below + tied, 10 - below - tied] if lower else [below, 10 - below])


def test_the_highest_score_need_not_be_drawn():
    """Nor the lowest: what was not drawn has a place in no bin, and weighs nothing."""
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.7, 0.95])
    counts = np.array([[0, 2, 1, 1], [1, 1, 2, 0]])
    drawn = [np.repeat(np.arange(4), one) for one in counts]
    expected = [expected_calibration_error(labels[rows], probabilities[rows], 3) for rows in drawn]
    assert expected_calibration_error(labels, probabilities, 3, counts) == pytest.approx(expected)


def test_without_ties_bins_are_equally_full():
    probabilities = np.random.default_rng(3).random(104)
    assert {one.lesions for one in calibration_curve(np.arange(104) % 2, probabilities)} == {10, 11}


def test_probabilities_that_mean_what_they_say_have_next_to_no_calibration_error():
    random = np.random.default_rng(4)
    probabilities = random.random(50_000)
    labels = (random.random(50_000) < probabilities).astype(int)
    assert expected_calibration_error(labels, probabilities) < 0.01
    assert expected_calibration_error(labels, probabilities**3) > 0.2


# --- bootstrap and correction ---------------------------------------------------------------------------------------


def test_whole_patients_are_drawn_as_many_as_there_are():
    groups = np.array(["c", "a", "c", "b", "c", "d", "a", "e"])
    labels = np.array([0, 1, 1, 0, 0, 1, 1, 0])
    counts = patient_bootstrap(groups, labels, rounds=3000, seed=5)
    assert counts.shape == (3000, 8)
    one_each = np.unique(groups, return_index=True)[1]
    for patient in set(groups):
        of_patient = counts[:, groups == patient]
        assert (of_patient == of_patient[:, :1]).all()
    assert (counts[:, one_each].sum(axis=1) == 5).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.07)
    np.testing.assert_array_equal(counts, patient_bootstrap(groups, labels, rounds=3000, seed=5))
    assert (counts != patient_bootstrap(groups, labels, rounds=3000, seed=6)).any()


def test_there_are_two_thousand_rounds_of_the_seed_0_unless_told_otherwise():
    labels, groups = np.arange(10) % 2, np.arange(10).astype(str)
    counts = patient_bootstrap(groups, labels)
    assert counts.shape == (2000, 10)
    np.testing.assert_array_equal(counts, patient_bootstrap(groups, labels, rounds=2000, seed=0))


@pytest.mark.parametrize("rare", [0, 1])
def test_every_round_holds_both_classes(rare):
    labels = np.array([rare, *[1 - rare] * 5])
    counts = patient_bootstrap(np.array(list("abcdef")), labels, rounds=500)
    assert (counts @ labels > 0).all()
    assert (counts @ (1 - labels) > 0).all()


def test_lesions_of_one_patient_make_the_interval_wider():
    random = np.random.default_rng(9)
    labels, scores = binormal(random, 30, 30)
    labels, scores = np.repeat(labels, 4), np.repeat(scores, 4)
    as_patients, as_lesions = (
        area_under_curve(labels, scores, patient_bootstrap(groups.astype(str), labels)).std()
        for groups in (np.repeat(np.arange(60), 4), np.arange(240))
    )
    assert as_patients == pytest.approx(2 * as_lesions, rel=0.1)


def test_holm_as_in_a_worked_example():
    # 4 × .005, max(3 × .01, ...), 2 × .03, max(.06, .04), in the order given.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_rejects_what_stepping_down_rejects(p_values):
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


# --- what cannot be computed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figure", [area_under_curve, roc_points, called_rates, lambda labels, _: patient_bootstrap(labels, labels)]
)
def test_one_class_alone_is_refused_in_words(figure):
    with pytest.raises(RadllmError, match="one class were judged \\(0,"):
        figure(np.ones(4, dtype=int), np.arange(4.0))


def test_delong_needs_two_lesions_of_each_class():
    with pytest.raises(RadllmError) as caught:
        delong_interval(np.array([0, 0, 1]), np.arange(3.0))
    assert str(caught.value) == (
        "Too few lesions of one class were judged (1, at least 2 needed): add benign and malignant ones."
    )


def test_a_missing_score_is_never_ranked():
    for missing in (np.nan, np.inf, -np.inf):
        with pytest.raises(RadllmError) as caught:
            area_under_curve(np.array([0, 0, 1]), np.array([0, missing, 1]))
        assert str(caught.value) == "A lesion has no score or an infinite one: run its model again."
