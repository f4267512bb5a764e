"""The baselines: classical classifiers on radiomics features and descriptors, every choice made on training lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions, outer_folds, patients_by_class
from radllm_backend.features.descriptors import indicators
from radllm_backend.features.selection import RadiomicsSelector
from radllm_backend.learning.calibrating import fit_calibration, youden_threshold
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.heads import log_odds

Grid = Mapping[str, Sequence[Any]]
"""Values to try, by scikit-learn parameter name; the simplest first, because the first of equals is chosen."""

COUNTS = (4, 8, 16, 32)
"""Numbers of selected features that inner folds choose from."""
_FEATURES, _DESCRIPTORS, _SELECT = "features", "descriptors", "select"
_NEIGHBOURS = "n_neighbors"
_INNER_FOLDS = 5


@dataclass(frozen=True)
class Recipe:
    """A classifier and the settings that inner folds choose from."""

    classifier: Callable[..., Any]
    """Makes one from a seed, which is 0 unless given."""
    grid: Grid
    linear: bool = False
    scaled: bool = True
    """Whether the scale of a column matters to it."""
    components: Sequence[int | None] = (5, 10, 20)
    """Numbers of principal components of hidden states that it may read beside the features (`fusion`); None: the
    hidden states as they are, for the penalty to shrink."""
    emphases: Sequence[float] = (0.1, 0.3, 1.0)
    """How large these may be beside the features: the smaller, the more of them a penalty suppresses."""


@dataclass(frozen=True)
class Chosen:
    """What inner folds chose, refitted on all the lesions they were made of."""

    estimator: Any
    parameters: dict[str, Any]
    scores: FloatArray
    """Log-odds-like, of each lesion by the chosen settings fitted without its inner fold."""
    areas: tuple[float, ...]
    """The AUC of each inner fold that has both classes."""

    @property
    def auc(self) -> float:
        """Mean over the inner folds."""
        return float(np.mean(self.areas)) if self.areas else 0.5


@dataclass(frozen=True)
class Fitted:
    """A baseline fitted to training lesions, with its calibration and threshold."""

    features: tuple[str, ...]
    descriptors: tuple[str, ...]
    known: NDArray[np.bool_]
    """Which columns of `descriptors.indicators` a training lesion has; the others say nothing."""
    estimator: Pipeline
    calibration: Calibration
    threshold: float
    """On the calibrated probability."""
    selected: list[str]
    """The features chosen, in the table's order; empty where all are used."""
    chosen: dict[str, float | int | str]
    """Settings chosen by inner folds."""

    def score(self, lesions: Lesions) -> FloatArray:
        """Log-odds-like score of each lesion: higher is more malignant."""
        terms = indicators(self.descriptors, lesions.named(self.descriptors))
        return log_odds(self.estimator, np.hstack([lesions.columns(self.features), terms[:, self.known]]))

    def probabilities(self, lesions: Lesions) -> FloatArray:
        """Calibrated probability of malignancy of each lesion."""
        return self.calibration.probabilities(self.score(lesions))


def fit_classical(name: str, lesions: Lesions, *, select: bool, inner_folds: int = 5, seed: int = 0) -> Fitted:
    """Fit one baseline to training lesions.

    Missing values are imputed with the training median; features that more than a fifth of the lesions lack are left
    out. Descriptors enter as one column a term, 0 where not given, and are never selected away; a term that no
    training lesion has is ignored. Settings are chosen by inner folds that keep patients whole, and the chosen
    setting's inner out-of-fold scores fit Platt scaling and fix the threshold.

    Args:
        name: one of `CLASSICAL`.
        select: whether the correlation filter and mRMR choose features, their number among the settings.
        inner_folds: at least 2.
        seed: of the inner folds and of the classifier.

    Raises:
        RadllmError: an unknown name, nothing to learn from, or too few patients for the inner folds.
    """
    if name not in CLASSICAL:
        raise RadllmError(f"There is no classical model '{name[:40]}': the known ones are {', '.join(CLASSICAL)}.")
    terms = indicators(lesions.descriptors, lesions.categories)
    known = (terms > 0).any(axis=0).reshape(-1)
    design = np.hstack([lesions.values, terms[:, known]])
    if not design.shape[1]:
        raise RadllmError("The lesions have neither a feature nor a descriptor: fill in the table.")
    estimator, grid = _pipeline(CLASSICAL[name], lesions, design.shape[1], select, seed)
    chosen = choose(estimator, grid, design, lesions.labels, lesions.groups, inner_folds, seed)
    calibration = fit_calibration(chosen.scores, lesions.labels)
    return Fitted(
        lesions.features,
        lesions.descriptors,
        known,
        chosen.estimator,
        calibration,
        youden_threshold(calibration.probabilities(chosen.scores), lesions.labels),
        _selected(chosen.estimator, lesions.features) if select else [],
        {_short(parameter): value for parameter, value in chosen.parameters.items()},
    )


def select_by_inner_folds(lesions: Lesions, counts: Sequence[int], seed: int) -> list[str]:
    """The features of training lesions that logistic regression does best with, in the table's order.

    Of correlated features the weaker ones are dropped, mRMR orders the rest, and inner folds choose how many it takes
    (with the penalty): all of it as in the baseline on selected features.

    Args:
        counts: to choose from.
        seed: of the inner folds.

    Raises:
        RadllmError: no feature passes the filters.
    """
    estimator, grid = _pipeline(CLASSICAL["logistic regression (L2)"], lesions, len(lesions.features), True, seed)
    grid[f"columns__{_FEATURES}__{_SELECT}__count"] = _capped(counts, len(lesions.features))
    inner_folds = max(2, min(_INNER_FOLDS, *patients_by_class(lesions)))
    chosen = choose(estimator, grid, lesions.values, lesions.labels, lesions.groups, inner_folds, seed)
    return _selected(chosen.estimator, lesions.features)


def choose(
    estimator: Any,
    grid: Grid,
    design: FloatArray,
    labels: IntArray,
    groups: NDArray[np.str_],
    inner_folds: int,
    seed: int,
) -> Chosen:
    """The setting with the highest mean AUC over inner folds, refitted on all lesions given.

    The folds are stratified by label and keep patients whole. Runs on one thread: several cost more than they bring
    on so few lesions.

    Args:
        estimator: a scikit-learn classifier or pipeline; it is cloned, not changed.
        design: lesions × columns, training lesions only.
        groups: the patient of each lesion.

    Raises:
        RadllmError: fewer patients of a class than inner folds.
    """
    folds = outer_folds(Lesions((), np.empty((len(labels), 0)), labels, groups), inner_folds, seed)
    with threadpool_limits(1):
        tried = [_try(estimator, parameters, design, labels, folds) for parameters in ParameterGrid(dict(grid))]
        best = max(tried, key=lambda one: one.auc)
        best.estimator.fit(design, labels)
    return best


class AveragedRegression(LogisticRegression):
    """The mean of L2-penalised logistic regressions of several penalties, which leaves no penalty to be chosen.

    Inner folds tell penalties apart less well than they differ on new lesions: the mean of all is then as good as the
    best, and does not change with the folds. A mean of linear models is a linear model.
    """

    def __init__(self, penalties: Sequence[float] = (0.1, 0.3, 1.0, 3.0)) -> None:
        """
        Args:
            penalties: inverse strengths, scikit-learn's ``C``.
        """
        super().__init__()
        self.penalties = penalties

    def fit(self, X: FloatArray, y: IntArray) -> AveragedRegression:  # noqa: N803 (scikit-learn's names)
        """Fit one regression a penalty on [lesions × columns], and take the mean of their coefficients."""
        parts = [_l2().set_params(C=penalty).fit(X, y) for penalty in self.penalties]
        self.classes_, self.n_features_in_ = parts[0].classes_, parts[0].n_features_in_
        self.n_iter_ = np.max([part.n_iter_ for part in parts], axis=0)
        self.coef_ = np.mean([part.coef_ for part in parts], axis=0)
        self.intercept_ = np.mean([part.intercept_ for part in parts], axis=0)
        return self


def logistic_regression(averaged: bool = False) -> tuple[Any, Grid]:
    """L2-penalised logistic regression and the penalties to choose from, or the mean of several (nothing to choose)."""
    recipe = FUSIBLE[AVERAGED if averaged else "logistic regression"]
    return recipe.classifier(), recipe.grid


def plain_classifier(name: str, seed: int) -> Any:
    """One of `FUSIBLE` with the settings it has before inner folds choose others."""
    return FUSIBLE[name].classifier(seed)


def _try(
    estimator: Any,
    parameters: dict[str, Any],
    design: FloatArray,
    labels: IntArray,
    folds: list[tuple[IntArray, IntArray]],
) -> Chosen:
    """A setting judged by the inner folds; its estimator is not fitted yet."""
    scores = np.zeros(len(labels))
    areas = []
    for training, held_out in folds:
        fitted = clone(estimator).set_params(**parameters).fit(design[training], labels[training])
        scores[held_out] = log_odds(fitted, design[held_out])
        if len(set(labels[held_out])) == 2:  # with few patients a part can lack a class
            areas.append(roc_auc_score(labels[held_out], scores[held_out]))
    return Chosen(clone(estimator).set_params(**parameters), parameters, scores, tuple(areas))


def _pipeline(
    recipe: Recipe, lesions: Lesions, columns: int, select: bool, seed: int
) -> tuple[Pipeline, dict[str, Any]]:
    """Select, impute and standardise the features, let the indicators of descriptors pass, classify.

    Selection comes first because it has to see which values are missing.
    """
    features = len(lesions.features)
    numbers = Pipeline(
        [
            (_SELECT, RadiomicsSelector() if select else RadiomicsSelector("all", correlation=None)),
            ("impute", SimpleImputer(strategy="median")),
            ("scale", StandardScaler()),
        ]
    )
    blocks = ColumnTransformer(
        [
            (_FEATURES, numbers, list(range(features))),
            (_DESCRIPTORS, "passthrough", list(range(features, columns))),
        ]
    )
    grid: dict[str, Any] = {f"classifier__{name}": values for name, values in recipe.grid.items()}
    if _NEIGHBOURS in recipe.grid:
        # More neighbours than an inner fold leaves would be an error; so many vote by prevalence anyway.
        grid[f"classifier__{_NEIGHBOURS}"] = _capped(recipe.grid[_NEIGHBOURS], max(1, len(lesions) // 4))
    if select and features:
        grid[f"columns__{_FEATURES}__{_SELECT}__count"] = _capped(COUNTS, features)
    return Pipeline([("columns", blocks), ("classifier", recipe.classifier(seed))]), grid


def _capped(values: Sequence[int], most: int) -> list[int]:
    return list(dict.fromkeys(min(value, most) for value in values))


def _selected(estimator: Pipeline, features: Sequence[str]) -> list[str]:
    if not features:
        return []
    support = estimator["columns"].named_transformers_[_FEATURES][_SELECT].get_support()
    return [name for name, kept in zip(features, support, strict=True) if kept]


def _short(parameter: str) -> str:
    """``classifier__C`` is 'C', and the number of selected features is 'features'."""
    return parameter.split("__")[-1] if parameter.startswith("classifier") else _FEATURES


def _l1(seed: int = 0) -> LogisticRegression:
    return LogisticRegression(l1_ratio=1, solver="liblinear", class_weight="balanced", max_iter=1000, random_state=seed)


def _l2(seed: int = 0) -> LogisticRegression:
    return LogisticRegression(class_weight="balanced", max_iter=2000, random_state=seed)


def _averaged(seed: int = 0) -> AveragedRegression:
    return AveragedRegression()


def _averaged_ridge(seed: int = 0) -> AveragedRegression:
    return AveragedRegression((0.001, 0.003, 0.01))


def _lda(seed: int = 0) -> LinearDiscriminantAnalysis:
    """With shrinkage; ``auto`` is that of Ledoit and Wolf, J Multivar Anal 88 (2004) 365."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def _neighbours(seed: int = 0) -> KNeighborsClassifier:
    return KNeighborsClassifier(weights="distance", n_jobs=1)


def _svm(seed: int = 0) -> SVC:
    return SVC(class_weight="balanced", random_state=seed)


def _forest(seed: int = 0) -> RandomForestClassifier:
    return RandomForestClassifier(200, min_samples_leaf=2, class_weight="balanced", n_jobs=1, random_state=seed)


def _boosting(seed: int = 0) -> LGBMClassifier:
    return LGBMClassifier(
        n_estimators=100,
        learning_rate=0.05,
        num_leaves=7,
        min_child_samples=5,
        colsample_bytree=0.5,
        class_weight="balanced",
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )


_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
CLASSICAL: dict[str, Recipe] = {
    "logistic regression (L1)": Recipe(_l1, {"C": (0.03, 0.1, 0.3, 1.0, 10.0)}, linear=True),
    "logistic regression (L2)": Recipe(_l2, {"C": _PENALTIES}, linear=True),
    "LDA": Recipe(_lda, {"shrinkage": (0.9, 0.5, 0.1, "auto")}, linear=True),
    "k-NN": Recipe(_neighbours, {_NEIGHBOURS: (35, 25, 15, 9, 5)}),
    "SVM": Recipe(_svm, {"C": (0.1, 1.0, 10.0, 100.0), "gamma": (0.001, 0.01, "scale")}),
    "random forest": Recipe(_forest, {"min_samples_leaf": (5, 2)}, scaled=False),
    "gradient boosting": Recipe(_boosting, {"n_estimators": (50, 150), "num_leaves": (3, 7)}, scaled=False),
}
"""The baselines by name."""

RIDGE = "averaged ridge regression"
"""Logistic regression on all hidden states; the mean over strong penalties."""
AVERAGED = "averaged logistic regression"
FUSIBLE: dict[str, Recipe] = {
    "logistic regression": CLASSICAL["logistic regression (L2)"],
    # Nearly all that the hidden states say, but so quietly that a penalised model turns to them only where the features
    # leave something open. Found on other divisions of CBIS-DDSM's lesions than the one that judges the shipped model:
    # there every choice by inner folds lost to the features alone, and this did not. What hidden states hold beyond the
    # features in plenty it leaves to the others.
    AVERAGED: Recipe(_averaged, {}, linear=True, components=(100,), emphases=(0.03,)),
    # For hidden states alone, all of them: of what radiologists write, principal components lose a part. The penalties
    # are the strong ones that did well on other divisions of CBIS-DDSM's lesions (seeds 20 to 22) than the card's.
    RIDGE: Recipe(_averaged_ridge, {}, linear=True, components=(None,), emphases=(1.0,)),
    **{name: CLASSICAL[name] for name in ("LDA", "SVM", "random forest", "gradient boosting")},
}
"""The classifiers that also read hidden states beside the features."""
