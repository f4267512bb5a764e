"""What methods learn from the training lesions of a fold: prompts are turned into a score, and how is learned here.

One method serves twice: as a model of the comparison, judged on held-out lesions, and as the model that a bundle keeps.
`methods` gives each its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from radllm_backend.features.arrays import FloatArray
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.language.prompt import Readout
from radllm_backend.learning.calibrating import fit_calibration, youden_threshold
from radllm_backend.learning.classical import Chosen, choose, logistic_regression
from radllm_backend.learning.fit import FittedModel
from radllm_backend.learning.fusion import AS_THEY_ARE, COMPONENTS, Concatenation, fit_concatenation, fit_weight
from radllm_backend.learning.options import TrainingOptions
from radllm_backend.learning.study import Fold, Verdict
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.heads import Head, HiddenStates, LinearHead, WeightedMean, weighted_mean


@dataclass(frozen=True)
class Learned:
    """A method as fitted on the training lesions of a fold, and what it says of those it was not fitted on."""

    scores: FloatArray
    """Log-odds-like, of the held-out lesions."""
    apart: Lesions
    """Training lesions that were held out of what gave `own`: they calibrate and fix the threshold."""
    own: FloatArray
    """Scores of `apart`."""
    adapter: FittedModel | None = None
    """None: the base model is frozen."""
    head: Head | None = None
    """None: the adapter's own linear head."""
    chosen: dict[str, float | int | str] = field(default_factory=dict)
    features: tuple[str, ...] | None = None
    """Those of the prompt, where they are not the fold's usual ones."""

    def verdict(self, fold: Fold) -> Verdict:
        """Calibrated, with a threshold, by the lesions that were kept apart."""
        inside, outside = calibrated(self.own, self.apart, self.scores)[:2]
        threshold = youden_threshold(inside, self.apart.labels)
        features = fold.writer.template.features if self.features is None else self.features
        return Verdict(self.scores, outside, threshold, features, self.chosen)


def lora(fold: Fold, change: dict[str, str] | None = None, shuffled: bool = False) -> Learned:
    """The paper's model: an adapter and a linear head on the last token.

    Args:
        change: training options that differ from the fold's.
        shuffled: the features of each held-out lesion come in an order of their own.
    """
    options = fold.options.model_copy(update=change or {})
    fitted = fold.adapted(options)
    classifier = fitted.reader(fold.base, options)
    writer = fitted.writer
    prompts = writer.write_shuffled(fold.outside, fold.seed) if shuffled else writer.write(fold.outside)
    apart = _kept_apart(fold, options)
    return Learned(
        np.array(classifier.score(prompts)),
        apart,
        np.array(classifier.score(writer.write(apart))),
        adapter=fitted,
        chosen={"epochs": fitted.kept_epoch},
        features=writer.template.features,
    )


def frozen(
    fold: Fold, change: dict[str, str] | None = None, shuffled: bool = False, kind: str = "logistic regression"
) -> Learned:
    """A linear classifier on the frozen model's hidden states, or on their principal components.

    Args:
        change: training options that differ from the fold's.
        shuffled: the features of each held-out lesion come in an order of their own.
        kind: a linear one of `classical.FUSIBLE`.
    """
    options = fold.options.model_copy(update=change or {})
    inside, outside = fold.frozen(options)
    if shuffled:
        prompts = fold.writer.write_shuffled(fold.outside, fold.seed)
        outside = fold.reader.embed(prompts, list(inside))
    learned = _learned(fold, *_concatenation(fold, kind, inside, outside, with_features=False))
    features = fold.write_as(options).template.features if change else None
    assert isinstance(learned.head, LinearHead)  # of a linear classifier
    return replace(learned, head=_reading_no_features(learned.head, fold.writer.columns), features=features)


def concatenated(fold: Fold, kind: str) -> Learned:
    """A classifier on the features beside the frozen model's hidden states."""
    return _learned(fold, *_concatenation(fold, kind, *fold.frozen(fold.options)))


def concatenated_lora(fold: Fold, kind: str) -> Learned:
    """As in Ra et al.: the adapter has seen the training lesions whose hidden states the classifier learns from."""
    fitted = fold.adapted(fold.options)
    found = _concatenation(fold, kind, *fold.enhanced(fold.options))
    return _learned(fold, *found, adapter=fitted, more={"epochs": fitted.kept_epoch})


def weighted(fold: Fold) -> Learned:
    """Frozen model and logistic regression, each calibrated on inner folds, in the mean that inner folds like best."""
    language, states = _concatenation(fold, "logistic regression", *fold.frozen(fold.options), with_features=False)
    classical = _regression(fold, fold.inside)
    pairs = (
        (language.chosen.scores, states),
        (classical.scores, _regression_scores(fold, classical)),
    )
    (first, others, one), (second, other_others, other) = (calibrated(own, fold.inside, held) for own, held in pairs)
    weight = fit_weight(first, second, fold.inside.labels)
    heads = _language_and_classical(language.linear(), classical)
    return Learned(
        weighted_mean(weight, others, other_others),
        fold.inside,
        weighted_mean(weight, first, second),
        head=WeightedMean(weight, *heads, (one, other)),
        chosen={"weight of the language model": weight, **language.readout._asdict()},
    )


def weighted_lora(fold: Fold) -> Learned:
    """The LoRA head and logistic regression; the weight is learned on the lesions kept apart, which neither saw.

    On all lesions nothing is kept apart, so no bundle holds it.
    """
    fitted = fold.adapted(fold.options)
    classifier = fitted.reader(fold.base, fold.options)
    training, validation = split_by_patient(fold.inside, fold.options.validation, fold.options.seed)
    apart = fold.inside.take(validation)
    pairs = (
        (classifier.score(fitted.writer.write(apart)), classifier.score(fitted.writer.write(fold.outside))),
        (
            _regression(fold, fold.inside.take(training)).estimator.decision_function(fold.writer.design(apart)),
            _regression_scores(fold, _regression(fold, fold.inside)),
        ),
    )
    (first, others, _), (second, other_others, _) = (
        calibrated(np.array(own), apart, np.array(held)) for own, held in pairs
    )
    weight = fit_weight(first, second, apart.labels)
    return Learned(
        weighted_mean(weight, others, other_others),
        apart,
        weighted_mean(weight, first, second),
        chosen={"weight of the language model": weight},
    )


def head_only(fold: Fold) -> Learned:
    """The paper's head on a model that was not fine-tuned: linear, on the last token of the last layer that is read."""
    inside, outside = fold.frozen(fold.options)
    estimator, grid = logistic_regression()
    readout = Readout(max(one.layers for one in inside), "last")
    last, others = (np.asarray(states[readout], dtype=np.float64) for states in (inside, outside))
    labels, groups = fold.inside.labels, fold.inside.groups
    fitted = choose(estimator, grid, last, labels, groups, fold.inner_folds, fold.seed)
    scores = fitted.estimator.decision_function(others)
    return Learned(scores, fold.inside, fitted.scores, chosen=_named(fitted.parameters))


def regression(fold: Fold, averaged: bool = False) -> Learned:
    """No language model: logistic regression on what the prompt says, as numbers.

    Args:
        averaged: over penalties, instead of choosing one.
    """
    fitted = _regression(fold, fold.inside, averaged)
    return Learned(_regression_scores(fold, fitted), fold.inside, fitted.scores, chosen=_named(fitted.parameters))


def calibrated(own: FloatArray, apart: Lesions, others: FloatArray) -> tuple[FloatArray, FloatArray, Calibration]:
    """Probabilities of the lesions that calibrate, of the others, and the calibration."""
    calibration = fit_calibration(own, apart.labels, apart.groups)
    return calibration.probabilities(own), calibration.probabilities(others), calibration


def _concatenation(
    fold: Fold, kind: str, inside: HiddenStates, outside: HiddenStates, with_features: bool = True
) -> tuple[Concatenation, FloatArray]:
    """The fitted fusion, and its scores of the held-out lesions."""
    design, others = (fold.writer.design(lesions) for lesions in (fold.inside, fold.outside))
    if not with_features:
        design, others = design[:, :0], others[:, :0]
    labels, groups = fold.inside.labels, fold.inside.groups
    fitted = fit_concatenation(kind, design, inside, labels, groups, fold.inner_folds, fold.seed)
    return fitted, fitted.logits(others, outside)


def _learned(
    fold: Fold,
    fitted: Concatenation,
    scores: FloatArray,
    adapter: FittedModel | None = None,
    more: Mapping[str, float | int | str] | None = None,
) -> Learned:
    chosen = {**fitted.readout._asdict(), **_named(fitted.chosen.parameters), **(more or {})}
    return Learned(scores, fold.inside, fitted.chosen.scores, adapter, fitted.head(), chosen)


def _regression(fold: Fold, lesions: Lesions, averaged: bool = False) -> Chosen:
    """Logistic regression on what the prompt says, with its penalty chosen by inner folds or averaged over."""
    estimator, grid = logistic_regression(averaged)
    design = fold.writer.design(lesions)
    return choose(estimator, grid, design, lesions.labels, lesions.groups, fold.inner_folds, fold.seed)


def _regression_scores(fold: Fold, fitted: Chosen) -> FloatArray:
    return fitted.estimator.decision_function(fold.writer.design(fold.outside)) if len(fold.outside) else np.empty(0)


def _kept_apart(fold: Fold, options: TrainingOptions) -> Lesions:
    """The lesions that decided when to stop; none where the number of epochs was known."""
    if fold.epochs is not None:
        return fold.inside.take(np.arange(0))
    return fold.inside.take(split_by_patient(fold.inside, options.validation, options.seed)[1])


def _language_and_classical(language: LinearHead, classical: Chosen) -> tuple[LinearHead, LinearHead]:
    """Two heads of the same columns: one reads the hidden states only, the other the features only."""
    coefficients = classical.estimator.coef_[0]
    return (
        _reading_no_features(language, len(coefficients)),
        LinearHead(
            language.readout,
            coefficients,
            np.zeros_like(language.embedding),
            float(classical.estimator.intercept_[0]),
        ),
    )


def _reading_no_features(head: LinearHead, columns: int) -> LinearHead:
    return replace(head, features=np.zeros(columns))


def _named(parameters: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Settings that inner folds chose, by the last part of their scikit-learn name."""
    named: dict[str, float | int | str] = {}
    for name, value in parameters.items():
        short = name.split("__")[-1]
        if isinstance(value, dict):  # a column transformer's weights: there is one
            short, value = "emphasis", next(iter(value.values()))
        if short == COMPONENTS:
            value = "all" if value == AS_THEY_ARE else value.n_components
        named[short] = value if isinstance(value, int | float) else str(value)
    return named
