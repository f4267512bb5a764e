"""Why: how much each feature moved a prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
BoolArray = NDArray[np.bool_]
Score = Callable[[list[list[float]], list[list[str]]], list[float]]
"""Log-odds of lesions from their standardised values and their descriptors, both in the prompt's order."""

BUDGET = 512
"""So many prompts at most are scored for the shares of one lesion: up to nine features and descriptors exactly."""


@dataclass(frozen=True)
class Shares:
    """Of the difference between a lesion's log-odds and those of the baseline, to which they add up."""

    effects: list[float]
    """One a feature, then one a descriptor; 0 for a descriptor that was not given."""
    errors: list[float]
    """Standard error of each; 0 where all coalitions were scored."""
    baseline: float
    """Log-odds with every feature at the training mean and no descriptor given."""


def occlusion_effects(
    standardised: Sequence[float], descriptors: Sequence[str], logit: float, score: Score
) -> list[float]:
    """Change of the log-odds when each feature alone is put back to the training mean, or each descriptor left out.

    One-at-a-time occlusion (Zeiler and Fergus, ECCV 2014, on pixels): exact for each feature by itself, but the effects
    of features that act together do not add up to the whole difference.

    Args:
        standardised: values in the prompt's order; the training mean is 0.
        descriptors: values in the prompt's order; the empty one is not given.
        logit: the log-odds of the lesion as it is.
        score: scores as many lesions as there are features and descriptors.

    Returns:
        One effect a feature, then one a descriptor.
    """
    values = [_without(standardised, position, 0.0) for position in range(len(standardised))]
    named = [_without(descriptors, position, "") for position in range(len(descriptors))]
    occluded = score(
        values + [list(standardised)] * len(named),
        [list(descriptors)] * len(values) + named,
    )
    return [logit - without for without in occluded]


def shapley_shares(
    standardised: Sequence[float], descriptors: Sequence[str], score: Score, *, budget: int = BUDGET, seed: int = 0
) -> Shares:
    """Shapley values of features and given descriptors (Shapley, Contributions to the Theory of Games II (1953) 307).

    Of a coalition, the features outside it stand at the training mean and the descriptors outside it are not given
    (the baseline Shapley value: Sundararajan and Najmi, ICML 2020). Exact where the 2^k coalitions of k players fit the
    budget; otherwise the mean over random orders of the players, each followed by its reverse, which cancels part of
    the error (Mitchell et al., J Mach Learn Res 23 (2022) 43).

    Args:
        standardised: values in the prompt's order; the training mean is 0.
        descriptors: values in the prompt's order; the empty one is not given.
        score: scores up to `budget` lesions at once.
        budget: how many prompts may be scored, at least 2 (k + 1).
    """
    given = [len(standardised) + index for index, value in enumerate(descriptors) if value]
    players = [*range(len(standardised)), *given]

    def worth(coalitions: BoolArray) -> NDArray[np.float64]:
        present = np.zeros((len(coalitions), len(standardised) + len(descriptors)), dtype=bool)
        present[:, players] = coalitions
        values = [[value * float(kept) for value, kept in zip(standardised, row, strict=False)] for row in present]
        named = [
            [value if kept else "" for value, kept in zip(descriptors, row[len(standardised) :], strict=True)]
            for row in present
        ]
        return np.array(score(values, named))

    exact = 2 ** len(players) <= budget
    found, errors, baseline = _exact(len(players), worth) if exact else _sampled(len(players), worth, budget, seed)
    effects, deviations = (np.zeros(len(standardised) + len(descriptors)) for _ in range(2))
    effects[players], deviations[players] = found, errors
    return Shares(effects.tolist(), deviations.tolist(), baseline)


Estimates = tuple[NDArray[np.float64], NDArray[np.float64], float]
"""Shares, their standard errors, and the worth of nobody."""


def _exact(count: int, worth: Callable[[BoolArray], NDArray[np.float64]]) -> Estimates:
    numbers = np.arange(2**count)
    coalitions = (numbers[:, np.newaxis] >> np.arange(count)) & 1 == 1
    worths, sizes = worth(coalitions), coalitions.sum(axis=1)
    shares = np.empty(count)
    for player in range(count):
        without = np.flatnonzero(~coalitions[:, player])
        weights = [1 / (count * math.comb(count - 1, size)) for size in sizes[without].tolist()]
        shares[player] = weights @ (worths[without + (1 << player)] - worths[without])
    return shares, np.zeros(count), float(worths[0])


def _sampled(count: int, worth: Callable[[BoolArray], NDArray[np.float64]], budget: int, seed: int) -> Estimates:
    random = np.random.default_rng(seed)
    pairs = max(1, budget // (2 * (count + 1)))
    orders = [order for _ in range(pairs) for one in [random.permutation(count)] for order in (one, one[::-1])]
    ranks = np.argsort(np.array(orders), axis=1)
    steps = ranks[:, np.newaxis, :] < np.arange(count + 1)[np.newaxis, :, np.newaxis]
    worths = worth(steps.reshape(-1, count)).reshape(len(orders), count + 1)
    gains = np.take_along_axis(np.diff(worths, axis=1), ranks, axis=1)
    means = gains.reshape(pairs, 2, count).mean(axis=1)
    errors = means.std(axis=0, ddof=1) / math.sqrt(pairs) if pairs > 1 else np.full(count, np.nan)
    return means.mean(axis=0), errors, float(worths[0, 0])


def _without(given: Sequence[Value], position: int, nothing: Value) -> list[Value]:
    return [nothing if index == position else value for index, value in enumerate(given)]
