"""Whether a selection of features is the same each time, or what chance would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radllm_backend.learning.metrics import NORMAL_QUANTILE
from radllm_backend.records import Record


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
