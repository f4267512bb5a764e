"""Why: how much each feature moved a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Value = TypeVar("Value")
Score = Callable[[list[list[float]], list[list[str]]], list[float]]
"""Log-odds of lesions from their standardised values and their descriptors, both in the prompt's order."""


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


def _without(given: Sequence[Value], position: int, nothing: Value) -> list[Value]:
    return [nothing if index == position else value for index, value in enumerate(given)]
