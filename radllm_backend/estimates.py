"""Figures as they are kept: with their intervals."""

from __future__ import annotations

from radllm_backend.features import Record


class Estimate(Record):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


class CalibrationBin(Record):
    """Lesions with similar probabilities."""

    predicted: float
    """Their mean probability."""
    observed: float
    """The share of them that is malignant."""
    lesions: int
