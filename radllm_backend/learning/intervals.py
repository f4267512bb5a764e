"""A figure with its interval, from bootstrap rounds or from dealings of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from radllm_backend.features.arrays import FloatArray
from radllm_backend.records import Estimate

CONFIDENCE = 0.95


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
