"""Which features a model reads: filters and mRMR, fitted on training lesions only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import f_classif

from radllm_backend.errors import RadllmError

FloatArray = NDArray[np.float64]
_NEARLY_CONSTANT = 1e-9
_SMALLEST_REDUNDANCY = 1e-3


def usable_columns(values: FloatArray) -> NDArray[np.bool_]:
    """Columns with a finite value for every lesion and more than rounding noise between lesions.

    Args:
        values: lesions × features.
    """
    finite = np.isfinite(values).all(axis=0)
    spread = np.zeros(values.shape[1])
    spread[finite] = values[:, finite].std(axis=0)
    scale = np.abs(np.where(np.isfinite(values), values, 0)).max(axis=0, initial=0)
    return finite & (spread > _NEARLY_CONSTANT * np.maximum(scale, 1e-30))


def mrmr(values: FloatArray, labels: NDArray[np.int_], count: int) -> list[int]:
    """Minimum redundancy, maximum relevance: column numbers, the most useful first.

    The F-test correlation quotient (FCQ) of Ding and Peng, *Minimum redundancy feature selection from microarray gene
    expression data*, J Bioinform Comput Biol 3 (2005) 185: each step takes the feature with the largest F statistic
    divided by its mean absolute correlation with those already taken.

    Args:
        values: lesions × features, training lesions only.
        labels: 0 (benign) or 1 (malignant), one a lesion.
        count: how many features to take.

    Raises:
        RadllmError: fewer usable features than asked for.
    """
    candidates = np.flatnonzero(usable_columns(values))
    if len(candidates) < count:
        raise RadllmError(
            f"Only {len(candidates)} features vary between the training lesions and {count} are wanted: "
            "ask for fewer or extract more."
        )
    columns = values[:, candidates]
    relevance = np.nan_to_num(f_classif(columns, labels)[0])
    correlation = np.abs(np.nan_to_num(np.corrcoef(columns, rowvar=False).reshape(len(candidates), -1)))
    taken = [int(relevance.argmax())]
    while len(taken) < count:
        redundancy = np.maximum(correlation[:, taken].mean(axis=1), _SMALLEST_REDUNDANCY)
        quotient = relevance / redundancy
        quotient[taken] = -np.inf
        taken.append(int(quotient.argmax()))
    return [int(candidates[index]) for index in taken]


def select_features(names: Sequence[str], values: FloatArray, labels: NDArray[np.int_], count: int) -> list[str]:
    """`mrmr` by name. A tie goes to the earlier column, so the result does not depend on chance."""
    return [names[index] for index in mrmr(values, labels, count)]
