"""From a model's log-odds to a probability that means what it says."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from radllm_backend.features.arrays import FloatArray
from radllm_backend.records import Record

CalibrationMethod = Literal["none", "platt", "temperature", "prevalence"]


class Calibration(Record):
    """Probability = 1 / (1 + exp(-(slope · logit + intercept))), by one of two ways to the numbers, or none.

    Temperature scaling, slope 1/T and no intercept: C. Guo et al., *On calibration of modern neural networks*, ICML
    (2017). Platt scaling, both: J. Platt, *Probabilistic outputs for support vector machines*, in Advances in Large
    Margin Classifiers (1999) 61.
    """

    slope: float = 1.0
    intercept: float = 0.0
    fitted_on: int = 0
    """Number of out-of-fold scores it was fitted on; 0: not calibrated."""
    method: CalibrationMethod = "none"
    """``prevalence``: the scores rank no better than chance, so every lesion gets the share of malignant ones."""
    reason: str = ""
    """Why this method, in a sentence with its numbers."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_method(cls, content: Any) -> Any:
        """Older model cards have the numbers only: they are of Platt scaling, or of the prevalence."""
        if not isinstance(content, dict) or "method" in content or not content.get("fitted_on"):
            return content
        return {**content, "method": "platt" if content.get("slope", 1) else "prevalence"}

    def probability(self, logit: float) -> float:
        """Calibrated probability of malignancy in 0..1."""
        z = self.slope * logit + self.intercept
        # Two forms of one function: neither overflows.
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """`probability` of each of many."""
        return np.array([self.probability(logit) for logit in logits.tolist()])
