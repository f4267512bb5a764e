"""The language model's hidden states together with the classical features: concatenated, or as a weighted mean.

Both are fitted on training lesions only, and what they leave open (how many layers are read, which pooling, how many
components, how strongly, how much weight) is chosen by inner folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.language.prompt import Pooling, Readout
from radllm_backend.learning.classical import FUSIBLE, Chosen, choose
from radllm_backend.models.heads import EstimatorHead, HiddenStates, LinearHead, log_odds, side_by_side

DEPTHS = (1 / 6, 1 / 3, 2 / 3, 1.0)
"""Shares of a base model's layers that inner folds choose from: few, because each is one more chance to be fooled."""
_WEIGHTS = np.linspace(0, 1, 21)
COMPONENTS = "components"
"""The setting that says what becomes of the hidden states, by the last part of its scikit-learn name."""
AS_THEY_ARE = "passthrough"
"""Its value where they are not reduced."""
_DESIGN, _EMBEDDING = "features", "embedding"


def candidate_readouts(depth: int, layers: int | None = None) -> list[Readout]:
    """The readouts that inner folds choose from, those of few layers first.

    Args:
        depth: how many layers the base model has.
        layers: how many are read where that is not to be chosen.

    Raises:
        RadllmError: more layers than there are.
    """
    if layers is not None and layers > depth:
        raise RadllmError(f"The base model has {counted(depth, 'layer')}, and {layers} cannot be read: ask for fewer.")
    counts = [layers] if layers else sorted({max(1, round(depth * share)) for share in DEPTHS})
    return [Readout(count, pooling) for count in counts for pooling in get_args(Pooling)]


def cheapest_of_the_best(areas: Mapping[Readout, Sequence[float]]) -> Readout:
    """The readout of the fewest layers that is not worse than the best by more than a standard error of the difference.

    That is the rule of one standard error (Breiman et al., Classification and Regression Trees (1984) 78): what inner
    folds cannot tell apart is decided by what it costs. Of as many layers, the better pooling.

    Args:
        areas: the AUC of each inner fold.
    """
    known = {one: own or (0.5,) for one, own in areas.items()}
    best = max(known, key=lambda one: np.mean(known[one]))
    lost = {one: np.subtract(known[best], own) for one, own in known.items()}
    alike = [one for one, less in lost.items() if np.mean(less) <= (stats.sem(less) if len(less) > 1 else 0)]
    return min(alike, key=lambda one: (one.layers, np.mean(lost[one])))


@dataclass(frozen=True)
class Concatenation:
    """A classifier on the standardised features beside the hidden states or their principal components."""

    kind: str
    """Name of the classifier (`classical.FUSIBLE`)."""
    readout: Readout
    chosen: Chosen
    """The fitted pipeline, what inner folds chose, and its inner out-of-fold scores."""

    def logits(self, design: FloatArray, embeddings: HiddenStates) -> FloatArray:
        """Log-odds of lesions from their standardised features [lesions × columns] and hidden states."""
        return log_odds(self.chosen.estimator, side_by_side(design, embeddings[self.readout]))

    def head(self) -> LinearHead | EstimatorHead:
        """The same as a bundle keeps it."""
        return (
            self.linear()
            if FUSIBLE[self.kind].linear
            else EstimatorHead(self.kind, self.readout, self.chosen.estimator)
        )

    def linear(self) -> LinearHead:
        """The same as one vector of coefficients; only of a linear classifier."""
        columns, classifier = (self.chosen.estimator[step] for step in (0, -1))
        coefficients = classifier.coef_[0]
        scaler, components = columns.named_transformers_[_EMBEDDING]
        # A column transformer multiplies its outputs by their weight; the design passes as it is.
        weights = columns.transformer_weights[_EMBEDDING] * coefficients
        if components == AS_THEY_ARE:
            count = len(coefficients) - len(scaler.mean_)
            embedding, centre = weights[count:] / scaler.scale_, scaler.mean_
        else:
            count = len(coefficients) - components.n_components_
            spread = np.sqrt(components.explained_variance_)[:, None]
            projection = components.components_ / np.maximum(spread, np.finfo(float).eps) / scaler.scale_
            embedding, centre = weights[count:] @ projection, scaler.mean_ + components.mean_ * scaler.scale_
        intercept = classifier.intercept_[0] - embedding @ centre
        return LinearHead(self.readout, coefficients[:count], embedding, float(intercept))


def fit_concatenation(
    kind: str,
    design: FloatArray,
    embeddings: HiddenStates,
    labels: IntArray,
    groups: NDArray[np.str_],
    inner_folds: int = 5,
    seed: int = 0,
) -> Concatenation:
    """Choose readout, number of components, emphasis and the classifier's own settings by inner folds, and refit.

    The readout is chosen first (`cheapest_of_the_best`), with all else in the middle of its range. So inner folds
    compare dozens of settings and not hundreds, of which the luckiest would win.

    Standardised hidden states, or their whitened principal components, are multiplied by the emphasis: a small one lets
    the classifier's penalty ignore hidden states that do not help.

    Args:
        kind: one of `classical.FUSIBLE`.
        design: standardised features and indicators of descriptors, [lesions × columns].
        embeddings: of every readout that may be chosen.
    """

    def best(readout: Readout, middle: bool) -> Chosen:
        columns = side_by_side(design, embeddings[readout])
        estimator, grid = _pipeline(kind, design.shape[1], columns.shape)
        if middle:
            grid = {name: values[len(values) // 2 :][:1] for name, values in grid.items()}
        return choose(estimator, grid, columns, labels, groups, inner_folds, seed)

    readout = cheapest_of_the_best({one: best(one, middle=True).areas for one in sorted(embeddings)})
    return Concatenation(kind, readout, best(readout, middle=False))


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
    reduction = Pipeline([("scale", StandardScaler()), (COMPONENTS, AS_THEY_ARE)])
    blocks = ColumnTransformer(
        [(_DESIGN, "passthrough", slice(0, columns)), (_EMBEDDING, reduction, slice(columns, width))],
        transformer_weights={_EMBEDDING: 1.0},
    )
    most = min(lesions // 2, width - columns)
    counts = list(dict.fromkeys(count and min(count, most) for count in recipe.components))
    grid: dict[str, list[Any]] = {f"classifier__{name}": list(values) for name, values in recipe.grid.items()}
    grid[f"columns__{_EMBEDDING}__{COMPONENTS}"] = [
        PCA(count, whiten=True, random_state=0) if count else AS_THEY_ARE
        for count in (counts if recipe.linear else counts[:2][-1:])
    ]
    # Trees do not care how large a column is; and without features beside it, the penalty says it all.
    emphases = (recipe.emphases if recipe.scaled else recipe.emphases[-1:]) if columns else (1.0,)
    grid["columns__transformer_weights"] = [{_EMBEDDING: emphasis} for emphasis in emphases]
    return Pipeline([("columns", blocks), ("classifier", recipe.classifier())]), grid
