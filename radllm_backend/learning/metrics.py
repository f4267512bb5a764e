"""Numbers of scores and labels: discrimination, calibration, usefulness, and how sure one can be of them.

Labels are 0 (benign) and 1 (malignant). Where a figure takes `counts` [rounds × lesions], it is computed for each round
of a bootstrap at once, each lesion as often as it was drawn, and comes back as [rounds]; without them as one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_curve

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.records import CalibrationBin, Estimate, Record

Figure = TypeVar("Figure", float, FloatArray)

NORMAL_QUANTILE = float(norm.ppf(0.975))
"""Half the width of a 95% interval in standard errors."""
_MOST_POINTS = 200


class CalledRates(NamedTuple, Generic[Figure]):
    """How often a model's call, benign or malignant, is right."""

    accuracy: Figure
    balanced_accuracy: Figure
    """Mean of sensitivity and specificity."""
    sensitivity: Figure
    specificity: Figure


# --- discrimination -------------------------------------------------------------------------------------------------


@overload
def area_under_curve(labels: IntArray, scores: FloatArray, counts: None = None) -> float: ...
@overload
def area_under_curve(labels: IntArray, scores: FloatArray, counts: IntArray) -> FloatArray: ...
def area_under_curve(labels: IntArray, scores: FloatArray, counts: IntArray | None = None) -> float | FloatArray:
    """Area under the ROC curve: the share of pairs in which the malignant lesion scores higher; a tie counts half.

    Hanley and McNeil, Radiology 143 (1982) 29.

    Raises:
        RadllmError: lesions of one class only, or a score is missing.
    """
    _check(labels, scores)
    drawn = _drawn(labels, counts)
    malignant = _summed_by_score(scores, drawn * labels)
    benign = _summed_by_score(scores, drawn * (1 - labels))
    won = (malignant * (benign.cumsum(axis=1) - benign / 2)).sum(axis=1)
    return _one_or_all(won / (malignant.sum(axis=1) * benign.sum(axis=1)), counts)


def delong_interval(labels: IntArray, scores: FloatArray) -> Estimate:
    """Area under the ROC curve with DeLong's interval, on the logit scale so that it stays within 0 and 1.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837; its variance by mid-ranks: Sun and Xu, IEEE Signal
    Process Lett 21 (2014) 1389; the logit: Pepe, *The Statistical Evaluation of Medical Tests* (2003).
    Lesions count as independent, also those of one patient.

    Raises:
        RadllmError: fewer than two lesions of a class, or a score is missing.
    """
    components = _components(labels, scores)
    area = float(components[0].mean())
    if area in (0, 1):
        return _without_spread(area, min(map(len, components)))
    half = NORMAL_QUANTILE * _variance(*components) ** 0.5 / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half])).tolist()
    return Estimate(value=area, low=low, high=high)


def delong_test(labels: IntArray, first: FloatArray, second: FloatArray) -> float:
    """Two-sided p of the difference between two areas under the ROC curve on the same lesions.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837.
    Lesions count as independent, also those of one patient.

    Raises:
        RadllmError: fewer than two lesions of a class, or a score is missing.
    """
    pairs = zip(_components(labels, first), _components(labels, second), strict=True)
    of_malignant, of_benign = (one - other for one, other in pairs)
    difference, error = abs(float(of_malignant.mean())), _variance(of_malignant, of_benign) ** 0.5
    if error == 0:
        return float(difference == 0)
    return float(2 * norm.sf(difference / error))


def roc_points(labels: IntArray, scores: FloatArray) -> list[tuple[float, float]]:
    """(1 - specificity, sensitivity) from (0, 0) to (1, 1), at most 200 points.

    Raises:
        RadllmError: lesions of one class only, or a score is missing.
    """
    _check(labels, scores)
    points = np.column_stack(roc_curve(labels, scores)[:2])
    shown = np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().astype(int)
    return [(false_positive, sensitivity) for false_positive, sensitivity in points[shown].tolist()]


@overload
def called_rates(labels: IntArray, called: NDArray[np.bool_], counts: None = None) -> CalledRates[float]: ...
@overload
def called_rates(labels: IntArray, called: NDArray[np.bool_], counts: IntArray) -> CalledRates[FloatArray]: ...
def called_rates(labels: IntArray, called: NDArray[np.bool_], counts: IntArray | None = None) -> CalledRates[Any]:
    """Accuracy, balanced accuracy, sensitivity and specificity.

    Args:
        called: whether each lesion was called malignant.

    Raises:
        RadllmError: lesions of one class only.
    """
    _check(labels, called)
    drawn = _drawn(labels, counts)
    right = called == labels
    sensitivity, specificity = (drawn @ (right & (labels == label)) / (drawn @ (labels == label)) for label in (1, 0))
    rates = drawn @ right / drawn.sum(axis=1), (sensitivity + specificity) / 2, sensitivity, specificity
    return CalledRates(*(_one_or_all(rate, counts) for rate in rates))


# --- calibration and usefulness -------------------------------------------------------------------------------------


@overload
def brier(labels: IntArray, probabilities: FloatArray, counts: None = None) -> float: ...
@overload
def brier(labels: IntArray, probabilities: FloatArray, counts: IntArray) -> FloatArray: ...
def brier(labels: IntArray, probabilities: FloatArray, counts: IntArray | None = None) -> float | FloatArray:
    """Mean squared difference between probability and truth: 0 is best (Brier, Mon Weather Rev 78 (1950) 1)."""
    drawn = _drawn(labels, counts)
    return _one_or_all(drawn @ (probabilities - labels) ** 2 / drawn.sum(axis=1), counts)


@overload
def expected_calibration_error(
    labels: IntArray, probabilities: FloatArray, bins: int = 10, counts: None = None
) -> float: ...
@overload
def expected_calibration_error(
    labels: IntArray, probabilities: FloatArray, bins: int = 10, *, counts: IntArray
) -> FloatArray: ...
def expected_calibration_error(
    labels: IntArray, probabilities: FloatArray, bins: int = 10, counts: IntArray | None = None
) -> float | FloatArray:
    """Mean distance between predicted and observed share of malignant lesions over bins, each weighted by its lesions.

    Naeini, Cooper and Hauskrecht, AAAI (2015) 2901, with bins of equally many lesions, which misjudge it less than bins
    of equal width (Roelofs et al., AISTATS (2022) 4036). It is above zero even for perfect probabilities, the more so
    the fewer lesions there are, and larger still in a bootstrap.
    """
    drawn = _drawn(labels, counts)
    cells = _equal_bins(probabilities, drawn, bins) + bins * np.arange(len(drawn))[:, None]
    surplus = np.bincount(cells.ravel(), (drawn * (probabilities - labels)).ravel(), bins * len(drawn))
    return _one_or_all(np.abs(surplus.reshape(-1, bins)).sum(axis=1) / drawn.sum(axis=1), counts)


def calibration_curve(labels: IntArray, probabilities: FloatArray, bins: int = 10) -> list[CalibrationBin]:
    """Predicted against observed, in the bins of `expected_calibration_error`; a bin without lesions is left out."""
    where = _equal_bins(probabilities, _drawn(labels, None), bins)[0]
    members = [where == number for number in np.unique(where)]
    return [
        CalibrationBin(
            predicted=float(probabilities[inside].mean()),
            observed=float(labels[inside].mean()),
            lesions=int(inside.sum()),
        )
        for inside in members
    ]


def decision_curve(labels: IntArray, probabilities: FloatArray, thresholds: Sequence[float]) -> list[float]:
    """Net benefit at each threshold: true positives a lesion, less false positives weighted by the threshold's odds.

    Vickers and Elkin, Med Decis Making 26 (2006) 565. Treating none has a net benefit of 0.

    Raises:
        RadllmError: a threshold outside 0 to 1 (1 excluded).
    """
    if not all(0 <= threshold < 1 for threshold in thresholds):
        raise RadllmError("A threshold of a decision curve is not a probability below 1: give numbers from 0 to 0.99.")
    at = np.array(thresholds, dtype=float)
    called = probabilities >= at[:, None]
    benefit = called @ labels - called @ (1 - labels) * at / (1 - at)
    net: list[float] = (benefit / len(labels)).tolist()
    return net


def treat_all(labels: IntArray, thresholds: Sequence[float]) -> list[float]:
    """Net benefit of calling every lesion malignant; otherwise as `decision_curve`."""
    return decision_curve(labels, np.ones(len(labels)), thresholds)


# --- how sure -------------------------------------------------------------------------------------------------------


def patient_bootstrap(groups: NDArray[np.str_], labels: IntArray, rounds: int = 2000, seed: int = 0) -> IntArray:
    """How often each lesion was drawn in each round, [rounds × lesions].

    As many patients as there are, drawn with replacement, each with all its lesions, so that lesions of one patient do
    not count as independent (Field and Welsh, J R Stat Soc B 69 (2007) 369). Rounds with one class only are redrawn.

    Args:
        groups: the patient of each lesion.

    Raises:
        RadllmError: lesions of one class only.
    """
    _check(labels, labels)
    random = np.random.default_rng(seed)
    names, patient = np.unique(groups, return_inverse=True)
    counts = np.empty((rounds, len(labels)), dtype=np.int_)
    todo = np.arange(rounds)
    while todo.size:
        counts[todo] = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=todo.size)[:, patient]
        malignant = counts[todo] @ labels
        todo = todo[(malignant == 0) | (malignant == counts[todo].sum(axis=1))]
    return counts


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given (Holm, Scand J Stat 6 (1979) 65)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


# --- shared ---------------------------------------------------------------------------------------------------------


def _check(labels: IntArray, scores: NDArray[Any], least: int = 1) -> None:
    smaller = min(int((labels == label).sum()) for label in (0, 1))
    if smaller < least:
        raise RadllmError(
            f"Too few lesions of one class were judged ({smaller}, at least {least} needed): "
            "add benign and malignant ones."
        )
    if not np.isfinite(scores).all():
        raise RadllmError("A lesion has no score or an infinite one: run its model again.")


def _drawn(labels: IntArray, counts: IntArray | None) -> FloatArray:
    """As [rounds × lesions]: without counts one round with each lesion once. Floats, which multiply faster."""
    return np.ones((1, len(labels))) if counts is None else counts.astype(float)


def _one_or_all(rounds: FloatArray, counts: IntArray | None) -> float | FloatArray:
    return float(rounds[0]) if counts is None else rounds


def _summed_by_score(scores: FloatArray, drawn: FloatArray) -> FloatArray:
    """How many lesions have each distinct score, the lowest first, [rounds × distinct scores]."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    return np.add.reduceat(drawn[:, order], starts, axis=1)


def _equal_bins(probabilities: FloatArray, drawn: FloatArray, bins: int) -> IntArray:
    """Bin of each lesion, [rounds × lesions], by its mid-rank among those drawn: equal probabilities stay together."""
    there = _summed_by_score(probabilities, drawn)
    middle = there.cumsum(axis=1) - there / 2
    # A score that was not drawn may lie beyond the last bin; it weighs nothing.
    numbers = np.minimum((bins * middle / drawn.sum(axis=1, keepdims=True)).astype(int), bins - 1)
    bins_of_lesions: IntArray = numbers[:, np.unique(probabilities, return_inverse=True)[1]]
    return bins_of_lesions


def _components(labels: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """DeLong's structural components by mid-ranks.

    Of each malignant lesion the share of benign ones below it; of each benign lesion the share of malignant ones above.
    """
    _check(labels, scores, least=2)
    malignant, benign = labels == 1, labels == 0
    ranks = rankdata(scores)
    below = (ranks[malignant] - rankdata(scores[malignant])) / benign.sum()
    above = 1 - (ranks[benign] - rankdata(scores[benign])) / malignant.sum()
    return below, above


def _variance(of_malignant: FloatArray, of_benign: FloatArray) -> float:
    """Of the mean of DeLong's components."""
    return float(sum(part.var(ddof=1) / len(part) for part in (of_malignant, of_benign)))


def _without_spread(area: float, lesions: int) -> Estimate:
    """Where the classes do not overlap DeLong's variance is zero and tells nothing.

    Then Wilson's limit for as many successes out of as many as the smaller class has lesions
    (J Am Stat Assoc 22 (1927) 209).
    """
    limit = lesions / (lesions + NORMAL_QUANTILE**2)
    return Estimate(value=area, low=limit if area else 0.0, high=1.0 if area else 1 - limit)


class SelectionStability(Record):
    """Whether a model chose the same features over folds and seeds."""

    model: str
    index: float
    """1: always the same; 0: as by chance."""
    low: float
    high: float
    """95% interval. Folds share lesions, so it is narrower than new data would give."""
    frequency: dict[str, float]
    """Share of folds and seeds in which each feature was chosen, the most frequent first."""


def selection_stability(
    model: str, selections: Sequence[Sequence[str]], candidates: Sequence[str]
) -> SelectionStability:
    """How much a model's selections agree, beyond what chance would give.

    Nogueira, Sechidis and Brown, *On the stability of feature selection algorithms*, J Mach Learn Res 18 (2018) 174:
    their index with the interval of its asymptotic normal distribution, cut at -1 and 1.

    Args:
        selections: the features chosen each time, at least two of them.
        candidates: the features that could be chosen, more than are chosen.
    """
    chosen = np.array([[name in own for name in candidates] for own in map(set, selections)], dtype=float)
    times, features = chosen.shape
    share = chosen.mean(axis=0)
    size = chosen.mean(axis=1)
    expected = share.mean() * (1 - share.mean())
    index = 1 - times / (times - 1) * (share * (1 - share)).mean() / expected
    influence = (
        chosen @ share / features - size * size.mean() + index / 2 * (2 * size * size.mean() - size - size.mean() + 1)
    ) / expected
    half = NORMAL_QUANTILE * 2 * influence.std() / times**0.5
    return SelectionStability(
        model=model,
        index=index,
        low=max(index - half, -1.0),
        high=min(index + half, 1.0),
        frequency={candidates[at]: float(share[at]) for at in np.argsort(-share, kind="stable") if share[at] > 0},
    )
