"""Probabilities that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.calibration import Calibration, fit_calibration, youden_threshold


def test_overconfident_scores_are_brought_back():
    random = np.random.default_rng(0)
    truth = random.normal(0, 1.5, 4000)
    labels = (random.random(4000) < 1 / (1 + np.exp(-truth))).astype(int)
    fitted = fit_calibration(5 * truth + 2, labels)
    assert fitted.slope == pytest.approx(0.2, rel=0.1)
    assert fitted.intercept == pytest.approx(-0.4, abs=0.15)
    assert fitted.fitted_on == 4000


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
