"""Why: how much each feature moved a prediction, and what it would have to be for another call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radllm_backend.features.arrays import BoolArray, FloatArray

Variants = tuple[list[list[float]], list[list[str]]]
"""Standardised values and descriptors of variants of a lesion, both in the prompt's order."""
Score = Callable[[Variants], Sequence[float]]
"""Log-odds of variants."""
Effort = Callable[[Variants], float]
"""What scoring variants costs, in scores of one lesion."""

AFFORDABLE = 14.0
"""In scores of one lesion. Together with the counterfactuals an explanation costs at most 20."""
MOST_EXACT = 12
"""Of more players than this not even the number of coalitions is counted: they are sampled."""
_FEWEST_PAIRS, _MOST_PAIRS = 3, 32
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Shares:
    """Of the difference between a lesion's log-odds and those of the baseline, to which they add up."""

    effects: list[float]
    """One a feature, then one a descriptor; 0 for a descriptor that was not given."""
    error: float
    """95% of the effects lie within this of the exact ones; 0 where all coalitions were scored."""


@dataclass(frozen=True)
class _Game:
    """The lesion's features and given descriptors as players, each in a coalition or not.

    Those outside it stand at the training mean, or are not given (the baseline Shapley value: Sundararajan and Najmi,
    ICML 2020).
    """

    standardised: Sequence[float]
    descriptors: Sequence[str]
    whole: float
    """Log-odds of the lesion as it is: what everybody together is worth."""
    baseline: float
    """What nobody is worth."""
    score: Score
    effort: Effort

    @property
    def players(self) -> list[int]:
        given = [len(self.standardised) + index for index, value in enumerate(self.descriptors) if value]
        return [*range(len(self.standardised)), *given]

    def variants(self, coalitions: BoolArray) -> Variants:
        """The lesion of each coalition [coalitions × players]."""
        present = np.zeros((len(coalitions), len(self.standardised) + len(self.descriptors)), dtype=bool)
        present[:, self.players] = coalitions
        count = len(self.standardised)
        values = (np.array(self.standardised) * present[:, :count]).tolist()
        named = np.where(present[:, count:], np.array(self.descriptors, dtype=object), "").tolist()
        return values, named

    def cost(self, coalitions: BoolArray) -> float:
        return self.effort(self.variants(coalitions[_unknown(coalitions)]))

    def worth(self, coalitions: BoolArray) -> FloatArray:
        """Log-odds [coalitions]."""
        worths = np.where(coalitions.any(axis=1), self.whole, self.baseline)
        unknown = _unknown(coalitions)
        worths[unknown] = self.score(self.variants(coalitions[unknown]))
        return worths


def _unknown(coalitions: BoolArray) -> BoolArray:
    """Which are neither everybody nor nobody."""
    players = coalitions.sum(axis=1)
    unknown: BoolArray = (players > 0) & (players < coalitions.shape[1])
    return unknown


def shapley_shares(
    standardised: Sequence[float],
    descriptors: Sequence[str],
    whole: float,
    baseline: float,
    score: Score,
    effort: Effort,
    *,
    affordable: float = AFFORDABLE,
    seed: int = 0,
) -> Shares:
    """Shapley values of features and given descriptors (Shapley, Contributions to the Theory of Games II (1953) 307).

    Exact where scoring all 2^k coalitions of k players is affordable; otherwise the mean over random orders of the
    players, each followed by its reverse, which cancels part of the error (Mitchell et al., J Mach Learn Res 23 (2022)
    43), as many as are affordable and three at least.

    Args:
        standardised: values in the prompt's order; the training mean is 0.
        descriptors: values in the prompt's order; the empty one is not given.
        whole: the log-odds of the lesion as it is.
        baseline: the log-odds with every feature at the training mean and no descriptor given.
        affordable: in scores of one lesion.
    """
    game = _Game(standardised, descriptors, whole, baseline, score, effort)
    count = len(game.players)
    everything = _all_coalitions(count) if count <= MOST_EXACT else None
    if everything is not None and game.cost(everything) <= affordable:
        found, error = _exact(everything, game.worth(everything)), 0.0
    else:
        found, error = _sampled(game, affordable, seed)
    effects = np.zeros(len(standardised) + len(descriptors))
    effects[game.players] = found
    return Shares(effects.tolist(), error)


def _all_coalitions(count: int) -> BoolArray:
    """Row n holds the players whose bits are set in n."""
    present: BoolArray = (np.arange(2**count)[:, np.newaxis] >> np.arange(count)) & 1 == 1
    return present


def _exact(coalitions: BoolArray, worths: FloatArray) -> FloatArray:
    count, sizes = coalitions.shape[1], coalitions.sum(axis=1)
    shares = np.empty(count)
    for player in range(count):
        without = np.flatnonzero(~coalitions[:, player])
        weights = [1 / (count * math.comb(count - 1, size)) for size in sizes[without].tolist()]
        shares[player] = weights @ (worths[without + (1 << player)] - worths[without])
    return shares


def _sampled(game: _Game, affordable: float, seed: int) -> tuple[FloatArray, float]:
    from scipy.special import stdtrit  # takes a quarter of a second, and exact shares do without

    count = len(game.players)
    random = np.random.default_rng(seed)
    orders: list[NDArray[np.int_]] = []
    for pairs in range(1, _MOST_PAIRS + 1):
        order = random.permutation(count)
        more = [*orders, order, order[::-1]]
        steps = _growing(more).reshape(-1, count)
        if pairs > _FEWEST_PAIRS and game.cost(steps) > affordable:
            break
        orders = more
    pairs = len(orders) // 2
    worths = game.worth(_growing(orders).reshape(-1, count)).reshape(len(orders), count + 1)
    gains = np.take_along_axis(np.diff(worths, axis=1), np.argsort(np.array(orders), axis=1), axis=1)
    means = gains.reshape(pairs, 2, count).mean(axis=1)
    # Of so few pairs a feature's own deviation says little: one is estimated from all features together. Those of one
    # order hang together, so the degrees of freedom are the orders'.
    deviation = math.sqrt(means.var(axis=0, ddof=1).mean() / pairs)
    error = deviation * float(stdtrit(pairs - 1, (1 + _CONFIDENCE) / 2))
    return means.mean(axis=0), error


def _growing(orders: Sequence[NDArray[np.int_]]) -> BoolArray:
    """For each order the coalitions from nobody to everybody, [orders × (players + 1) × players]."""
    ranks = np.argsort(np.array(orders), axis=1)
    count = ranks.shape[1]
    grown: BoolArray = ranks[:, np.newaxis, :] < np.arange(count + 1)[np.newaxis, :, np.newaxis]
    return grown


def alternatives(
    standardised: Sequence[float], descriptors: Sequence[str], others: Sequence[tuple[int, float | str]]
) -> Variants:
    """Variants of a lesion in each of which one feature or descriptor has another value, and all else is the same.

    Args:
        others: positions, of features and then of descriptors, each with its standardised value or its term.
    """
    values: list[list[float]] = []
    named: list[list[str]] = []
    for position, other in others:
        row: list[float | str] = [*standardised, *descriptors]
        row[position] = other
        values.append([float(one) for one in row[: len(standardised)]])
        named.append([str(one) for one in row[len(standardised) :]])
    return values, named
