"""From a model's log-odds to a probability that means what it says, and the threshold that goes with it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from radllm_backend.features import Record

FloatArray = NDArray[np.float64]


class Calibration(Record):
    """Platt scaling: probability = 1 / (1 + exp(-(slope · logit + intercept))).

    J. Platt, *Probabilistic outputs for support vector machines*, in Advances in Large Margin Classifiers (1999) 61.
    """

    slope: float = 1.0
    intercept: float = 0.0
    fitted_on: int = 0
    """Number of out-of-fold scores it was fitted on; 0: not calibrated."""

    def probability(self, logit: float) -> float:
        """Calibrated probability of malignancy in 0..1."""
        z = self.slope * logit + self.intercept
        # Two forms of one function: neither overflows.
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def fit_calibration(logits: FloatArray, labels: NDArray[np.int_]) -> Calibration:
    """Platt scaling of scores that the model gave to lesions it was not trained on.

    Where the scores rank no better than chance the slope would come out negative and turn the model round: then the
    probability is the prevalence, whatever the score.
    """
    spread = float(np.std(logits))
    if spread < 1e-12:
        return _prevalence_only(labels)
    scaled = (logits / spread).reshape(-1, 1)
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(scaled, labels)
    slope = float(fitted.coef_[0, 0]) / spread
    if slope <= 0:
        return _prevalence_only(labels)
    return Calibration(slope=slope, intercept=float(fitted.intercept_[0]), fitted_on=len(labels))


def youden_threshold(probabilities: FloatArray, labels: NDArray[np.int_]) -> float:
    """The threshold that maximises sensitivity + specificity - 1 (Youden, Cancer 3 (1950) 32).

    Halfway between the two neighbouring scores, so that no lesion lies on it; 0.5 where nothing separates the classes.
    """
    false_positive, sensitivity, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
    best = int(np.argmax(sensitivity - false_positive))
    if best == 0:
        return 0.5
    below = probabilities[probabilities < thresholds[best]]
    low = float(below.max()) if below.size else 0.0
    return (low + float(thresholds[best])) / 2


def _prevalence_only(labels: NDArray[np.int_]) -> Calibration:
    share = min(max(float(np.mean(labels)), 1e-3), 1 - 1e-3)
    return Calibration(slope=0.0, intercept=math.log(share / (1 - share)), fitted_on=len(labels))
