"""A figure with its interval, from bootstrap rounds or from dealings of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.learning.metrics import patient_bootstrap
from radllm_backend.records import Estimate

CONFIDENCE = 0.95


def draws(groups: NDArray[np.str_], labels: IntArray, rounds: int) -> IntArray:
    """How often each lesion counts: once each, then as each round of `patient_bootstrap` drew it.

    All figures of the same lesions share one such draw, so that they can be compared round by round.

    Args:
        groups: the patient of each lesion.

    Returns:
        [1 + rounds × lesions], with which a figure of `metrics` becomes what `estimate` takes.

    Raises:
        RadllmError: lesions of one class only.
    """
    everybody = np.ones((1, len(labels)), dtype=np.int_)
    return np.vstack([everybody, patient_bootstrap(groups, labels, rounds)])


def estimate(figure: FloatArray) -> Estimate:
    """Its value and the percentile interval (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993)."""
    low, high = np.percentile(figure[1:], [2.5, 97.5]).tolist()
    return Estimate(value=float(figure[0]), low=low, high=high)


def null_estimate(areas: Sequence[float], models: int) -> Estimate:
    """The mean AUC over several dealings of the labels, with its interval if the labels say nothing.

    Student's t interval over the dealings: unlike the bootstrap of one dealing it holds what training adds. Where
    nothing leaks, the intervals of all models contain 0.5 together with a confidence of 95% (Bonferroni's correction).

    Args:
        areas: AUC of each dealing, at least two.
        models: how many are looked at.
    """
    mean, error = float(np.mean(areas)), float(stats.sem(areas))
    half = error * float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / models, len(areas) - 1))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def without_surplus(figure: FloatArray) -> FloatArray:
    """A figure that cannot be negative, its bootstrap rounds moved so that their mean is its value."""
    centred = np.maximum(figure[1:] - figure[1:].mean() + figure[0], 0)
    return np.concatenate([figure[:1], centred])
