"""How well a trained model does on lesions it has not seen, as its card says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions
from radllm_backend.features.descriptors import descriptor_name
from radllm_backend.learning.calibrating import cross_fitted_probabilities
from radllm_backend.learning.intervals import draws, estimate, without_surplus
from radllm_backend.learning.metrics import (
    area_under_curve,
    brier,
    calibration_curve,
    expected_calibration_error,
)
from radllm_backend.learning.scorecard import BOOTSTRAP_ROUNDS, Outcome
from radllm_backend.models.bundle import CalibrationCheck, Performance, Subgroup
from radllm_backend.records import Estimate


@dataclass(frozen=True)
class OutOfFold:
    """What the models of a cross-validation said of each lesion when it was held out."""

    scores: dict[str, FloatArray]
    """By model, the one of the bundle first; log-odds-like, one a lesion."""
    folds: IntArray
    """In which fold each lesion was held out."""
    draws: IntArray
    """Of these lesions, as `intervals.draws` gives them: every figure of a card is of the same rounds."""

    @classmethod
    def pooled(cls, outcomes: Sequence[Outcome], own: str, lesions: Lesions) -> OutOfFold:
        """Of one seed.

        Args:
            own: name of the model of the bundle.
        """
        names = sorted(dict.fromkeys(outcome.model for outcome in outcomes), key=lambda name: name != own)
        scores = {name: np.full(len(lesions), np.nan) for name in names}
        folds = np.zeros(len(lesions), dtype=np.int_)
        for outcome in outcomes:
            scores[outcome.model][outcome.rows] = outcome.scores
            folds[outcome.rows] = outcome.fold
        return cls(scores, folds, draws(lesions.groups, lesions.labels, BOOTSTRAP_ROUNDS))

    @property
    def logits(self) -> FloatArray:
        """Of the model of the bundle."""
        return next(iter(self.scores.values()))

    def csv(self, lesions: Lesions, probabilities: FloatArray) -> str:
        """Fold, label, log-odds and calibrated probability of each lesion when it was held out; no identifiers."""
        lines = ["fold,label,logit,probability"]
        for row in np.argsort(self.folds, kind="stable"):
            lines.append(f"{self.folds[row]},{lesions.labels[row]},{self.logits[row]:.6f},{probabilities[row]:.6f}")
        return "\n".join(lines) + "\n"


def performances(judged: OutOfFold, lesions: Lesions) -> list[Performance]:
    """The AUC of every model with its interval, and its difference from the first one's on the same lesions."""
    areas = {name: area_under_curve(lesions.labels, scores, judged.draws) for name, scores in judged.scores.items()}
    own, *baselines = areas.items()
    return [_performance(*own), *(_performance(name, area, own[1]) for name, area in baselines)]


def check_descriptor(lesions: Lesions, descriptor: str) -> None:
    """RadllmError where the lesions have no descriptor of this name, by which `subgroups` could divide them."""
    if descriptor not in lesions.descriptors:
        known = ", ".join(lesions.descriptors) or "none"
        raise RadllmError(f"The table has no descriptor '{descriptor[:40]}' to report by: it has {known}.")


def subgroups(judged: OutOfFold, lesions: Lesions, descriptor: str) -> list[Subgroup]:
    """The performance in the lesions of each value of one of their descriptors that has both classes."""
    values = lesions.named([descriptor])[:, 0]
    found = []
    for value in dict.fromkeys(values.tolist()):
        rows = np.flatnonzero(values == value)
        part = lesions.take(rows)
        if len(set(part.labels.tolist())) == 2:
            own = OutOfFold(
                {name: scores[rows] for name, scores in judged.scores.items()},
                judged.folds[rows],
                draws(part.groups, part.labels, BOOTSTRAP_ROUNDS),  # its own patients
            )
            found.append(
                Subgroup(
                    name=f"{descriptor_name(descriptor)}: {value or 'not given'}",
                    lesions=len(part),
                    malignant=int(part.labels.sum()),
                    performance=performances(own, part),
                )
            )
    return found


def calibration_check(judged: OutOfFold, lesions: Lesions) -> CalibrationCheck:
    """Expected calibration error and Brier score before and after calibration, with intervals."""
    raw = 1 / (1 + np.exp(-np.clip(judged.logits, -50, 50)))
    scaled = cross_fitted_probabilities(judged.logits, lesions.labels, lesions.groups)

    def ece(probabilities: FloatArray) -> Estimate:
        return estimate(without_surplus(expected_calibration_error(lesions.labels, probabilities, counts=judged.draws)))

    return CalibrationCheck(
        ece_before=ece(raw),
        ece_after=ece(scaled),
        brier_before=estimate(brier(lesions.labels, raw, judged.draws)),
        brier_after=estimate(brier(lesions.labels, scaled, judged.draws)),
        curve=calibration_curve(lesions.labels, scaled),
    )


def _performance(name: str, area: FloatArray, own: FloatArray | None = None) -> Performance:
    auc = estimate(area)
    difference = estimate(area - own) if own is not None else None
    return Performance(
        model=name,
        auc=auc.value,
        auc_interval=(auc.low, auc.high),
        difference=difference.value if difference else None,
        difference_interval=(difference.low, difference.high) if difference else None,
    )
