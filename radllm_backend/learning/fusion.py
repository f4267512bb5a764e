"""The language model's hidden states together with the classical features: concatenated, or as a weighted mean.

Both are fitted on training lesions only, and what they leave open (how many components, how strongly, which pooling,
how much weight) is chosen by inner folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.language.prompt import Pooling
from radllm_backend.learning.classical import FUSIBLE, Chosen, choose
from radllm_backend.models.heads import EstimatorHead, HiddenStates, LinearHead, log_odds, side_by_side

_WEIGHTS = np.linspace(0, 1, 21)
_DESIGN, _EMBEDDING = "features", "embedding"


@dataclass(frozen=True)
class Concatenation:
    """A classifier on the standardised features beside the principal components of the hidden states."""

    kind: str
    """Name of the classifier (`classical.FUSIBLE`)."""
    pooling: Pooling
    chosen: Chosen
    """The fitted pipeline, what inner folds chose, and its inner out-of-fold scores."""

    def logits(self, design: FloatArray, embeddings: HiddenStates) -> FloatArray:
        """Log-odds of lesions from their standardised features [lesions × columns] and hidden states."""
        return log_odds(self.chosen.estimator, side_by_side(design, embeddings[self.pooling]))

    def head(self) -> LinearHead | EstimatorHead:
        """The same as a bundle keeps it."""
        return (
            self.linear()
            if FUSIBLE[self.kind].linear
            else EstimatorHead(self.kind, self.pooling, self.chosen.estimator)
        )

    def linear(self) -> LinearHead:
        """The same as one vector of coefficients; only of logistic regression."""
        columns, classifier = (self.chosen.estimator[step] for step in (0, -1))
        coefficients = classifier.coef_[0]
        # A column transformer multiplies its outputs by their weight; the design passes as it is.
        count = len(coefficients) - columns.named_transformers_[_EMBEDDING][-1].n_components_
        scaler, components = columns.named_transformers_[_EMBEDDING]
        spread = np.sqrt(components.explained_variance_)[:, None]
        projection = components.components_ / np.maximum(spread, np.finfo(float).eps) / scaler.scale_
        emphasis = columns.transformer_weights[_EMBEDDING]
        embedding = emphasis * coefficients[count:] @ projection
        intercept = classifier.intercept_[0] - embedding @ (scaler.mean_ + components.mean_ * scaler.scale_)
        return LinearHead(self.pooling, coefficients[:count], embedding, float(intercept))


def fit_concatenation(
    kind: str,
    design: FloatArray,
    embeddings: HiddenStates,
    labels: IntArray,
    groups: NDArray[np.str_],
    inner_folds: int = 5,
    seed: int = 0,
) -> Concatenation:
    """Choose pooling, number of components, emphasis and the classifier's own settings by inner folds, and refit.

    Principal components are whitened, then multiplied by the emphasis: a small one lets the classifier's penalty ignore
    hidden states that do not help.

    Args:
        kind: one of `classical.FUSIBLE`.
        design: standardised features and indicators of descriptors, [lesions × columns].
    """
    fitted = []
    for pooling in get_args(Pooling):
        columns = side_by_side(design, embeddings[pooling])
        estimator, grid = _pipeline(kind, design.shape[1], columns.shape)
        fitted.append(Concatenation(kind, pooling, choose(estimator, grid, columns, labels, groups, inner_folds, seed)))
    return max(fitted, key=lambda one: one.chosen.auc)


def fit_weight(first: FloatArray, second: FloatArray, labels: IntArray) -> float:
    """Share of the first of two probabilities in their mean: the one with the lowest log loss, in steps of 0.05.

    Both have to come from lesions that neither model was fitted on.
    """

    def loss(weight: float) -> float:
        mixed = np.clip(weight * first + (1 - weight) * second, 1e-6, 1 - 1e-6)
        return float(-np.mean(labels * np.log(mixed) + (1 - labels) * np.log(1 - mixed)))

    return min((float(weight) for weight in _WEIGHTS), key=loss)


def _pipeline(kind: str, columns: int, shape: tuple[int, ...]) -> tuple[Pipeline, dict[str, list[Any]]]:
    """The classifier behind its column transformer, and the grid of what inner folds choose."""
    lesions, width = shape
    recipe = FUSIBLE[kind]
    reduction = Pipeline([("scale", StandardScaler()), ("components", PCA(whiten=True, random_state=0))])
    blocks = ColumnTransformer(
        [(_DESIGN, "passthrough", slice(0, columns)), (_EMBEDDING, reduction, slice(columns, width))],
        transformer_weights={_EMBEDDING: 1.0},
    )
    most = min(lesions // 2, width - columns)
    components = sorted({min(count, most) for count in recipe.components})
    grid: dict[str, list[Any]] = {f"classifier__{name}": list(values) for name, values in recipe.grid.items()}
    grid[f"columns__{_EMBEDDING}__components__n_components"] = components if recipe.linear else components[:2][-1:]
    # Trees do not care how large a column is.
    emphases = recipe.emphases if recipe.scaled else recipe.emphases[-1:]
    grid["columns__transformer_weights"] = [{_EMBEDDING: emphasis} for emphasis in emphases]
    return Pipeline([("columns", blocks), ("classifier", recipe.classifier())]), grid
