"""Calibration and threshold, fitted on scores of lesions that the model was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions, outer_folds, patients_by_class
from radllm_backend.models.calibration import Calibration

_FOLDS = 5
_SHARPEST = 100.0
"""Largest standardised slope of temperature scaling: separable scores have no finite maximum of the likelihood."""


def fit_calibration(logits: FloatArray, labels: IntArray, groups: NDArray[np.str_] | None = None) -> Calibration:
    """Temperature or Platt scaling of scores that the model gave to lesions it was not trained on.

    Of the two the one with the lower log loss in a cross-validation over these scores; temperature scaling, which has
    one parameter less, where they tie or where there are too few patients to tell.

    Where the scores rank no better than chance the slope would come out negative and turn the model round: then the
    probability is the prevalence, whatever the score.

    Args:
        logits: one a lesion.
        labels: 0 benign, 1 malignant.
        groups: the patient of each lesion, never divided between folds; None where each lesion has its own.
    """
    platt = _platt(logits, labels)
    if platt.method == "prevalence":
        return platt
    temperature = _temperature(logits, labels)
    losses = _cross_validated_losses(logits, labels, groups)
    if losses is None:
        return _because(temperature, "Temperature scaling: too few patients to compare it with Platt scaling.")
    found = "mean log loss {:.4f} in cross-validation against {:.4f} of {} scaling, which"
    if losses[1] < losses[0]:
        words = found.format(losses[1], losses[0], "temperature")
        weak = "cannot move back scores that are shifted, as those of class-weighted training are"
        return _because(platt, f"Platt scaling: {words} {weak}.")
    words = found.format(*losses, "Platt")
    return _because(temperature, f"Temperature scaling: {words} has one parameter more.")


def cross_fitted_probabilities(
    logits: FloatArray, labels: IntArray, groups: NDArray[np.str_], seed: int = 0
) -> FloatArray:
    """The probability of each lesion from a calibration fitted without its patient's fold: to judge calibration by.

    A calibration judged on the scores it was fitted on looks better than it is.

    Raises:
        RadllmError: fewer than two patients of a class.
    """
    folds = _folds(labels, groups, seed)
    if not folds:
        raise RadllmError("Calibration cannot be judged on fewer than two patients of each class: add lesions.")
    probabilities = np.empty(len(labels))
    for training, held_out in folds:
        calibration = fit_calibration(logits[training], labels[training], groups[training])
        probabilities[held_out] = calibration.probabilities(logits[held_out])
    return probabilities


def youden_threshold(probabilities: FloatArray, labels: IntArray) -> float:
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


def _platt(logits: FloatArray, labels: IntArray) -> Calibration:
    spread = float(np.std(logits))
    if spread < 1e-12 or len(np.unique(labels)) < 2:
        return _prevalence_only(labels)
    scaled = (logits / spread).reshape(-1, 1)
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(scaled, labels)
    slope = float(fitted.coef_[0, 0]) / spread
    if slope <= 0:
        return _prevalence_only(labels)
    return Calibration(slope=slope, intercept=float(fitted.intercept_[0]), fitted_on=len(labels), method="platt")


def _temperature(logits: FloatArray, labels: IntArray) -> Calibration:
    """Maximum likelihood of 1/T. The mean log loss is convex in it, so that one search finds the minimum."""
    size = math.sqrt(float(np.mean(logits**2)))
    if size < 1e-12:
        return _prevalence_only(labels)
    scaled = logits / size
    found = minimize_scalar(
        lambda slope: _log_loss(slope * scaled, labels),
        bounds=(0, _SHARPEST),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return Calibration(slope=float(found.x) / size, fitted_on=len(labels), method="temperature")


def _prevalence_only(labels: IntArray) -> Calibration:
    share = min(max(float(np.mean(labels)), 1e-3), 1 - 1e-3)
    return Calibration(
        slope=0.0,
        intercept=math.log(share / (1 - share)),
        fitted_on=len(labels),
        method="prevalence",
        reason="The share of malignant lesions, whatever the score: the scores rank no better than chance.",
    )


def _because(calibration: Calibration, reason: str) -> Calibration:
    return calibration.model_copy(update={"reason": reason})


def _cross_validated_losses(
    logits: FloatArray, labels: IntArray, groups: NDArray[np.str_] | None
) -> tuple[float, float] | None:
    """Mean log loss of temperature and of Platt scaling on the folds they were not fitted on; None: too few."""
    patients = np.arange(len(labels)).astype(str) if groups is None else groups
    folds = _folds(labels, patients, seed=0)
    if not folds:
        return None

    def loss(fit: Callable[[FloatArray, IntArray], Calibration]) -> float:
        held_out_log_odds = np.empty(len(labels))
        for training, held_out in folds:
            fitted = fit(logits[training], labels[training])
            held_out_log_odds[held_out] = fitted.slope * logits[held_out] + fitted.intercept
        return _log_loss(held_out_log_odds, labels)

    return loss(_temperature), loss(_platt)


def _log_loss(log_odds: FloatArray, labels: IntArray) -> float:
    """Mean of -log of the probability given to the truth, without ever forming a probability of 0."""
    return float(np.mean(np.logaddexp(0, log_odds) - labels * log_odds))


def _folds(labels: IntArray, groups: NDArray[np.str_], seed: int) -> list[tuple[IntArray, IntArray]]:
    """Folds of whole patients, five or as many as the smaller class has patients; none where it has one."""
    lesions = Lesions((), np.empty((len(labels), 0)), labels, groups)
    folds = min(_FOLDS, *patients_by_class(lesions))
    return outer_folds(lesions, folds, seed) if folds > 1 else []
