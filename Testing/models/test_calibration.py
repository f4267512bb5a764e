"""The numbers of a calibration: probabilities from any score, and the method of older cards."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.models.calibration import Calibration


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_probabilities_are_in_range_and_in_order(one, other):
    calibration = Calibration(slope=0.7, intercept=-1)
    low, high = sorted((one, other))
    assert 0 <= calibration.probability(low) <= calibration.probability(high) <= 1


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
