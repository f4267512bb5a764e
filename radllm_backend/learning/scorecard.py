"""What an evaluation found, as records, and how the outcomes of its folds are summed up in a scorecard."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions
from radllm_backend.learning.intervals import draws, estimate, null_estimate, without_surplus
from radllm_backend.learning.metrics import (
    SelectionStability,
    area_under_curve,
    brier,
    calibration_curve,
    called_rates,
    decision_curve,
    delong_interval,
    delong_test,
    expected_calibration_error,
    holm,
    roc_points,
    selection_stability,
    treat_all,
)
from radllm_backend.learning.options import Family
from radllm_backend.records import SHA256, CalibrationBin, Estimate, Record

THRESHOLDS = tuple(round(0.01 * percent, 2) for percent in range(1, 100))
"""Of the decision curves."""
BOOTSTRAP_ROUNDS = 2000


class Outcome(Record):
    """What one model said of the lesions that one fold held out."""

    model: str
    family: Family
    seed: int
    fold: int
    rows: list[int]
    """Row numbers of the held-out lesions, from 0."""
    labels: list[int]
    """Of these lesions: the truth, or what was dealt out in its place."""
    scores: list[float]
    """Log-odds-like: for ranking."""
    probabilities: list[float]
    """Calibrated inside the training part of the fold."""
    threshold: float
    """On the probabilities, fixed on the training part: from there on a lesion is called malignant."""
    selected: list[str]
    """Features chosen; empty where all are used."""
    chosen: dict[str, float | int | str]
    """Hyperparameters, by inner folds."""
    seconds: float


class ModelResult(Record):
    """One model on the whole cohort. Figures are means over seeds; intervals are those of that mean.

    Intervals come from the bootstrap of patients and hold for the models as they were trained: how much they would
    change with other training lesions shows only in the spread over seeds.
    """

    model: str
    family: Family
    seeds: int
    """How many the model ran on."""
    auc: Estimate
    """Of the scores pooled over the folds. With shuffled labels and two or more seeds, which are as many dealings, the
    interval is that of the mean over these, and holds for all models at once (see `null_estimate`)."""
    auc_delong: Estimate
    """First seed."""
    auc_by_seed: list[float]
    accuracy: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: Estimate
    ece: Estimate
    """A resample looks worse calibrated than the sample it is drawn from: that surplus is taken off the interval."""
    roc: list[tuple[float, float]]
    """(1 - specificity, sensitivity), first seed."""
    calibration: list[CalibrationBin]
    """First seed."""
    net_benefit: list[float]
    """At the scorecard's thresholds, first seed."""
    difference: Estimate | None
    """AUC minus the best classical baseline's on the seeds that both ran on; None for that baseline itself."""
    p_value: float | None
    """Of that difference on the first seed, by DeLong's test."""
    p_holm: float | None
    """The same, corrected for the number of models."""
    seconds: float
    """All seeds and folds together."""
    chosen: list[dict[str, float | int | str]]
    """Hyperparameters of each seed and fold."""


class Scorecard(Record):
    """The content of ``evaluation.json``."""

    schema_version: Literal[1] = 1
    table: str
    """The file's name."""
    table_sha256: SHA256
    target: str
    group: str
    lesions: int
    """Those that were judged: all, or the test part of a locked split."""
    malignant: int
    patients: int
    features: int
    descriptors: int
    modality: str
    folds: int
    inner_folds: int
    seeds: list[int]
    split: str | None
    """Column of a locked split instead of folds."""
    shuffled_labels: bool
    best_baseline: str
    """The classical model with the highest mean AUC."""
    thresholds: list[float]
    treat_all: list[float]
    """Net benefit of calling every lesion malignant."""
    models: list[ModelResult]
    stability: list[SelectionStability]
    """Of the models that select features; none where there is a single fold and seed."""
    base_model: str | None
    base_sha256: str | None
    depths: list[int] = Field([])
    """How many of its layers inner folds chose from; none where the last was read, as in earlier versions."""
    versions: dict[str, str]
    hardware: str
    command: str
    started: str
    """ISO date."""


class Description(TypedDict):
    """The part of a scorecard that does not follow from outcomes and lesions."""

    table: str
    table_sha256: str
    target: str
    group: str
    modality: str
    folds: int
    inner_folds: int
    seeds: list[int]
    split: str | None
    shuffled_labels: bool
    base_model: str | None
    base_sha256: str | None
    depths: list[int]
    versions: dict[str, str]
    hardware: str
    command: str
    started: str


def summarise(outcomes: Sequence[Outcome], lesions: Lesions, **description: Unpack[Description]) -> Scorecard:
    """Every model's figures with intervals, and its difference from the best classical baseline.

    The best baseline is the classical model with the highest mean AUC on these very lesions. It is chosen after the
    fact, which favours it: a model that does not beat it may still beat what would have been chosen beforehand.

    Args:
        lesions: those of the table, whose rows the outcomes count.
        description: the fields of `Scorecard` of the same names.

    Raises:
        RadllmError: no classical model, a lesion that a model judged twice or not at all, or too few of a class.
    """
    judged = np.unique([row for outcome in outcomes for row in outcome.rows])
    cohort = lesions.take(judged)
    by_seed = {seed: [outcome for outcome in outcomes if outcome.seed == seed] for seed in description["seeds"]}
    truths = _truths({seed: own for seed, own in by_seed.items() if own}, judged, cohort)
    models = [_judged(own, truths) for own in _by_model(outcomes)]
    baseline = _best_baseline(models)
    return Scorecard(
        **description,
        lesions=len(cohort),
        malignant=int(cohort.labels.sum()),
        patients=len(np.unique(cohort.groups)),
        features=len(lesions.features),
        descriptors=len(lesions.descriptors),
        best_baseline=baseline.name,
        thresholds=list(THRESHOLDS),
        treat_all=treat_all(cohort.labels, THRESHOLDS),
        models=_results(models, baseline, description["shuffled_labels"]),
        stability=_stabilities(models, lesions.features),
    )


def out_of_fold_rows(outcomes: Iterable[Outcome]) -> list[str]:
    """The lines of ``out_of_fold.csv``, with a heading: each lesion's row number in the table from 0, no patient."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", "seed", "fold", "row", "label", "score", "probability", "threshold", "called"])
    for outcome in outcomes:
        own = (outcome.model, outcome.seed, outcome.fold)
        called = [int(one >= outcome.threshold) for one in outcome.probabilities]
        lesions = zip(outcome.rows, outcome.labels, outcome.scores, outcome.probabilities, called, strict=True)
        for row, label, score, probability, call in lesions:
            writer.writerow([*own, row, label, score, probability, outcome.threshold, call])
    return buffer.getvalue().splitlines()


# --- one model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Truth:
    """What the models of one seed are judged by."""

    rows: IntArray
    """Of the judged lesions in the table, in order."""
    labels: IntArray
    draws: IntArray
    """How often each lesion counts: once each, then as each bootstrap round drew it, [1 + rounds × lesions]."""


@dataclass(frozen=True)
class _Run:
    """What a model said of every judged lesion with one seed, pooled over the folds."""

    labels: IntArray
    scores: FloatArray
    probabilities: FloatArray
    called: NDArray[np.bool_]
    figures: dict[str, FloatArray]
    """Each figure of the lesions as they are, then of each bootstrap round: [1 + rounds]."""


@dataclass(frozen=True)
class _Judged:
    """A model with its runs by seed, the first seed first."""

    outcomes: list[Outcome]
    runs: dict[int, _Run]

    @property
    def name(self) -> str:
        return self.outcomes[0].model

    @property
    def first(self) -> _Run:
        return next(iter(self.runs.values()))

    def mean(self, figure: str, seeds: Iterable[int] | None = None) -> FloatArray:
        """Over its seeds or some of them: of the lesions as they are, then of each bootstrap round."""
        mean: FloatArray = np.mean([self.runs[seed].figures[figure] for seed in seeds or self.runs], axis=0)
        return mean


def _by_model(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.model, []).append(outcome)
    return list(found.values())


def _truths(by_seed: Mapping[int, Sequence[Outcome]], judged: IntArray, cohort: Lesions) -> dict[int, _Truth]:
    """Of each seed. Seeds with the same labels, which are all unless these were shuffled, share one bootstrap."""
    labels = {seed: _labels(outcomes, judged) for seed, outcomes in by_seed.items()}
    drawn = {own: draws(cohort.groups, np.array(own), BOOTSTRAP_ROUNDS) for own in set(labels.values())}
    return {seed: _Truth(judged, np.array(own), drawn[own]) for seed, own in labels.items()}


def _labels(outcomes: Sequence[Outcome], judged: IntArray) -> tuple[int, ...]:
    """Of the judged lesions, as the outcomes of one seed have them."""
    label = {row: label for outcome in outcomes for row, label in zip(outcome.rows, outcome.labels, strict=True)}
    return tuple(label.get(row, 0) for row in judged.tolist())


def _judged(outcomes: list[Outcome], truths: Mapping[int, _Truth]) -> _Judged:
    own = {seed: [outcome for outcome in outcomes if outcome.seed == seed] for seed in truths}
    return _Judged(outcomes, {seed: _run(folds, truths[seed]) for seed, folds in own.items() if folds})


def _run(folds: Sequence[Outcome], truth: _Truth) -> _Run:
    order = np.argsort([row for fold in folds for row in fold.rows])
    if sorted(row for fold in folds for row in fold.rows) != truth.rows.tolist():
        raise RadllmError(
            f"“{folds[0].model}” did not judge every lesion once with seed {folds[0].seed}: run the evaluation again."
        )
    labels, draws = truth.labels, truth.draws
    scores = np.concatenate([fold.scores for fold in folds])[order]
    probabilities = np.concatenate([fold.probabilities for fold in folds])[order]
    called = np.concatenate([np.array(fold.probabilities) >= fold.threshold for fold in folds])[order]
    figures = {
        "auc": area_under_curve(labels, scores, draws),
        "brier": brier(labels, probabilities, draws),
        "ece": expected_calibration_error(labels, probabilities, counts=draws),
        **called_rates(labels, called, draws)._asdict(),
    }
    return _Run(labels, scores, probabilities, called, figures)


def _best_baseline(models: Sequence[_Judged]) -> _Judged:
    classical = [model for model in models if model.outcomes[0].family == "classical"]
    if not classical:
        raise RadllmError("No classical model was evaluated to compare the others with: include one.")
    return max(classical, key=lambda model: model.mean("auc")[0])


# --- all of them ----------------------------------------------------------------------------------------------------


def _results(models: Sequence[_Judged], baseline: _Judged, shuffled: bool) -> list[ModelResult]:
    others = [model for model in models if model is not baseline]
    p_values = [_p_value(model, baseline) for model in others]
    corrected = dict(zip((model.name for model in others), zip(p_values, holm(p_values), strict=True), strict=True))
    return [
        _result(model, baseline, _area(model, len(models) if shuffled else 0), *corrected.get(model.name, (None, None)))
        for model in models
    ]


def _area(model: _Judged, nulls: int) -> Estimate:
    """The AUC with its interval.

    Args:
        nulls: how many models were evaluated on shuffled labels, 0 on the truth.
    """
    if nulls and len(model.runs) > 1:
        return null_estimate(_areas(model), nulls)
    return estimate(model.mean("auc"))


def _areas(model: _Judged) -> list[float]:
    return [float(run.figures["auc"][0]) for run in model.runs.values()]


def _result(
    model: _Judged, baseline: _Judged, auc: Estimate, p_value: float | None, p_holm: float | None
) -> ModelResult:
    first = model.first
    return ModelResult(
        model=model.name,
        family=model.outcomes[0].family,
        seeds=len(model.runs),
        auc=auc,
        auc_delong=delong_interval(first.labels, first.scores),
        auc_by_seed=_areas(model),
        accuracy=estimate(model.mean("accuracy")),
        balanced_accuracy=estimate(model.mean("balanced_accuracy")),
        sensitivity=estimate(model.mean("sensitivity")),
        specificity=estimate(model.mean("specificity")),
        brier=estimate(model.mean("brier")),
        ece=estimate(without_surplus(model.mean("ece"))),
        roc=roc_points(first.labels, first.scores),
        calibration=calibration_curve(first.labels, first.probabilities),
        net_benefit=decision_curve(first.labels, first.probabilities, THRESHOLDS),
        difference=None if model is baseline else estimate(_difference(model, baseline)),
        p_value=p_value,
        p_holm=p_holm,
        seconds=sum(outcome.seconds for outcome in model.outcomes),
        chosen=[outcome.chosen for outcome in model.outcomes],
    )


def _shared(model: _Judged, baseline: _Judged) -> list[int]:
    """Seeds that both ran on: folds differ between seeds, and a pair must be judged on the same folds."""
    shared = [seed for seed in model.runs if seed in baseline.runs]
    if not shared:
        raise RadllmError(f"“{model.name}” and “{baseline.name}” have no seed in common: run the evaluation again.")
    return shared


def _p_value(model: _Judged, baseline: _Judged) -> float:
    seed = _shared(model, baseline)[0]
    return delong_test(model.runs[seed].labels, model.runs[seed].scores, baseline.runs[seed].scores)


def _difference(model: _Judged, baseline: _Judged) -> FloatArray:
    """Of AUCs, paired: the same patients are drawn for both."""
    seeds = _shared(model, baseline)
    return model.mean("auc", seeds) - baseline.mean("auc", seeds)


def _stabilities(models: Iterable[_Judged], features: Sequence[str]) -> list[SelectionStability]:
    """Of the models that left something out at least once, and chose at least twice."""
    choices = {model.name: [outcome.selected or features for outcome in model.outcomes] for model in models}
    return [
        selection_stability(name, selections, features)
        for name, selections in choices.items()
        if len(selections) > 1 and any(len(own) < len(features) for own in selections)
    ]
