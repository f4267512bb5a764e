"""Which features a model reads: filters, mRMR and L1, fitted on training lesions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin, f_classif, mutual_info_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray

Relevance = Literal["F statistic", "mutual information"]
SelectionMethod = Literal["mrmr", "mrmr-mi", "l1", "all"]
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
    varying: NDArray[np.bool_] = spread > _NEARLY_CONSTANT * np.maximum(scale, 1e-30)
    return finite & varying


def mrmr(
    values: FloatArray,
    labels: NDArray[np.int_],
    count: int,
    relevance: Relevance = "F statistic",
    seed: int = 0,
) -> list[int]:
    """Minimum redundancy, maximum relevance: column numbers, the most useful first.

    The F-test correlation quotient (FCQ) of Ding and Peng, *Minimum redundancy feature selection from microarray gene
    expression data*, J Bioinform Comput Biol 3 (2005) 185: each step takes the feature with the largest F statistic
    divided by its mean absolute correlation with those already taken.

    With mutual information the numerator is that of their MIQ and the denominator stays the correlation, as in the
    RFCQ of Zhao, Anand and Wang, *Maximum relevance and minimum redundancy feature selection methods for a marketing
    machine learning platform*, IEEE DSAA (2019) 442: mutual information of two continuous features, which MIQ divides
    by, is too noisy an estimate from a hundred lesions. It is estimated from nearest neighbours (Ross, PLoS ONE 9
    (2014) e87357).

    Args:
        values: lesions × features, training lesions only.
        labels: 0 (benign) or 1 (malignant), one a lesion.
        count: how many features to take.
        relevance: what is divided by the mean absolute correlation.
        seed: of the noise by which the estimate of mutual information breaks ties.

    Raises:
        RadllmError: fewer usable features than asked for.
    """
    candidates = np.flatnonzero(usable_columns(values))
    if len(candidates) < count:
        raise RadllmError(
            f"{count} features are wanted, and only {len(candidates)} of the given ones differ between the training "
            "lesions: ask for fewer or extract more."
        )
    columns = values[:, candidates]
    useful = _relevance(columns, labels, relevance, seed)
    correlation = _absolute_correlation(columns)
    taken = [int(useful.argmax())]
    while len(taken) < count:
        redundancy = np.maximum(correlation[:, taken].mean(axis=1), _SMALLEST_REDUNDANCY)
        quotient = useful / redundancy
        quotient[taken] = -np.inf
        taken.append(int(quotient.argmax()))
    return [int(candidates[index]) for index in taken]


def select_features(names: Sequence[str], values: FloatArray, labels: NDArray[np.int_], count: int) -> list[str]:
    """`mrmr` by name. A tie goes to the earlier column, so the result does not depend on chance."""
    return [names[index] for index in mrmr(values, labels, count)]


def uncorrelated(values: FloatArray, labels: NDArray[np.int_], limit: float) -> list[int]:
    """Column numbers, in the table's order, of features of which no two correlate at the limit or above it.

    Goes from the largest F statistic to the smallest and drops what correlates with a feature already kept: by
    Pearson's or Spearman's coefficient, whichever is larger. A tie goes to the earlier column.

    Args:
        values: lesions × features, training lesions only; every value finite.
        labels: 0 (benign) or 1 (malignant), one a lesion.
        limit: absolute correlation in 0..1.
    """
    strength = _relevance(values, labels, "F statistic", 0)
    correlation = np.maximum(_absolute_correlation(values), _absolute_correlation(rankdata(values, axis=0)))
    kept: list[int] = []
    for index in np.argsort(-strength, kind="stable"):
        if not (correlation[index, kept] >= limit).any():
            kept.append(int(index))
    return sorted(kept)


def l1_selected(values: FloatArray, labels: NDArray[np.int_], inverse_penalty: float) -> list[int]:
    """Column numbers of the features with a non-zero coefficient in an L1-penalised logistic regression.

    R. Tibshirani, *Regression shrinkage and selection via the lasso*, J R Stat Soc B 58 (1996) 267. Where the penalty
    leaves none, the feature with the largest F statistic: there is no model of nothing.

    Args:
        values: lesions × features, training lesions only; every value finite. They are standardised here.
        labels: 0 (benign) or 1 (malignant), one a lesion.
        inverse_penalty: scikit-learn's C; a smaller one leaves fewer features.
    """
    regression = LogisticRegression(
        C=inverse_penalty, l1_ratio=1, solver="liblinear", class_weight="balanced", max_iter=1000, random_state=0
    )
    coefficients = regression.fit(StandardScaler().fit_transform(values), labels).coef_[0]
    chosen = np.flatnonzero(coefficients).tolist()
    return chosen or [int(_relevance(values, labels, "F statistic", 0).argmax())]


class RadiomicsSelector(SelectorMixin, BaseEstimator):
    """Feature selection as a step of a scikit-learn pipeline, so that cross-validation of the pipeline includes it.

    In this order: features that many lesions lack or that do not vary are dropped, then of correlated features the
    weaker ones, then the method chooses. Only what the statistics see of a missing value is the median: `transform`
    leaves it missing.

    Args:
        method: ``mrmr`` (F statistic), ``mrmr-mi`` (mutual information), ``l1``, or ``all`` that pass the filters.
        count: how many features mRMR takes; all where fewer pass the filters.
        correlation: `uncorrelated`'s limit; None for no such filter.
        missing: largest share of the training lesions that may lack a feature.
        inverse_penalty: of ``l1``.
        seed: of ``mrmr-mi``.
    """

    def __init__(
        self,
        method: SelectionMethod = "mrmr",
        count: int = 8,
        correlation: float | None = 0.95,
        missing: float = 0.2,
        inverse_penalty: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.count = count
        self.correlation = correlation
        self.missing = missing
        self.inverse_penalty = inverse_penalty
        self.seed = seed

    def fit(self, values: FloatArray, labels: NDArray[np.int_]) -> RadiomicsSelector:
        """Select on training lesions.

        Args:
            values: lesions × features; NaN where a value is missing.
            labels: 0 (benign) or 1 (malignant), one a lesion.

        Raises:
            RadllmError: no feature passes the filters.
        """
        values, labels = validate_data(self, values, labels, dtype=np.float64, ensure_all_finite="allow-nan")
        filled = SimpleImputer(strategy="median", keep_empty_features=True).fit_transform(values)
        present = np.isnan(values).mean(axis=0) <= self.missing
        kept = np.flatnonzero(present & usable_columns(filled))
        if not kept.size:
            raise RadllmError(
                "No feature varies between the training lesions and is known of enough of them: "
                "leave the feature columns out of the table or extract others."
            )
        if self.correlation is not None:
            kept = kept[uncorrelated(filled[:, kept], labels, self.correlation)]
        self.support_ = np.zeros(values.shape[1], dtype=bool)
        self.support_[kept[self._chosen(filled[:, kept], labels)]] = True
        return self

    def _chosen(self, values: FloatArray, labels: NDArray[np.int_]) -> list[int]:
        if self.method == "all":
            return list(range(values.shape[1]))
        if self.method == "l1":
            return l1_selected(values, labels, self.inverse_penalty)
        relevance: Relevance = "mutual information" if self.method == "mrmr-mi" else "F statistic"
        return mrmr(values, labels, min(self.count, values.shape[1]), relevance, self.seed)

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def _relevance(values: FloatArray, labels: NDArray[np.int_], kind: Relevance, seed: int) -> FloatArray:
    """What each feature alone says of the label; 0 where it says nothing or does not vary."""
    if kind == "mutual information":
        said: FloatArray = mutual_info_classif(values, labels, random_state=seed, n_jobs=1)
    else:
        said = np.nan_to_num(f_classif(values, labels)[0])
    return said


def _absolute_correlation(values: FloatArray) -> FloatArray:
    """Features × features; 0 for one that does not vary."""
    return np.abs(np.nan_to_num(np.corrcoef(values, rowvar=False).reshape(values.shape[1], -1)))
