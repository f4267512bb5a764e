"""How good a model is on lesions it has not seen: grouped cross-validation beside baselines on the same folds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from radllm_backend.base_models import BaseModelFolder
from radllm_backend.bundle import Performance
from radllm_backend.cohort import Lesions, outer_folds
from radllm_backend.features import Record
from radllm_backend.llm import AdapterShape, LoraClassifier, best_device
from radllm_backend.safe_files import read_json, write_atomically
from radllm_backend.selection import usable_columns
from radllm_backend.training import FittedModel, Report, TrainingOptions, fit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int_]

LORA = "LoRA head"
SELECTED_BASELINE = "logistic regression, the same selected features"
ALL_BASELINE = "logistic regression, all features"

_BOOTSTRAP_ROUNDS = 2000


class FoldResult(Record):
    """Scores of one held-out fold."""

    rows: list[int]
    """Row numbers of the held-out lesions."""
    scores: dict[str, list[float]]
    """By model: the log-odds it gave to each of them."""
    features: list[str]
    """What was selected on the training lesions of this fold."""
    epochs: int
    """After how many epochs the weights were kept."""


def cross_validate(
    lesions: Lesions,
    modality: str,
    base: BaseModelFolder,
    options: TrainingOptions,
    work: Path,
    report: Report,
) -> list[FoldResult]:
    """Train and score each outer fold; finished folds are kept in `work` and not computed again.

    Selection, scaling, early stopping and the baselines see the training lesions of the fold only; no patient is on
    both sides.
    """
    results = []
    for number, (training, held_out) in enumerate(outer_folds(lesions, options.folds, options.seed)):

        def report_fold(what: str, done: float, number: int = number) -> None:
            report(f"fold {number + 1}/{options.folds}, {what}", (number + done) / options.folds)

        result, identity = work / f"fold-{number}.json", _identity(lesions, options, base, held_out)
        kept = _kept(result, identity)
        if kept is None:
            checkpoint = work / f"fold-{number}.safetensors"
            kept = _fold(lesions, training, held_out, modality, base, options, checkpoint, report_fold)
            write_atomically(result, json.dumps({"identity": identity, "result": kept.model_dump()}))
            checkpoint.unlink(missing_ok=True)
        results.append(kept)
    return results


def score_fitted(fitted: FittedModel, lesions: Lesions, base: BaseModelFolder, options: TrainingOptions) -> list[float]:
    """Log-odds of lesions by a fitted model, merged as it is for prediction."""
    classifier = LoraClassifier(base, AdapterShape(options.rank, options.alpha))
    classifier.load_weights(fitted.weights)
    classifier.merge()
    classifier.to(best_device())
    return classifier.score(fitted.prompts(lesions))


def performances(results: list[FoldResult], lesions: Lesions, seed: int = 0) -> list[Performance]:
    """Out-of-fold AUC of each model, with percentile intervals from a bootstrap of patients.

    2,000 rounds (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993); patients are drawn with replacement
    and bring all their lesions, so that lesions of one patient do not count as independent.
    """
    scores = {model: out_of_fold(results, model, len(lesions)) for model in results[0].scores}
    draws = _bootstrap(scores, lesions, seed)
    auc = {model: area_under_curve(lesions.labels, values) for model, values in scores.items()}
    return [
        Performance(
            model=model,
            auc=auc[model],
            auc_interval=_interval(draws[model]),
            difference=None if model == LORA else auc[model] - auc[LORA],
            difference_interval=None if model == LORA else _interval(draws[model] - draws[LORA]),
        )
        for model in scores
    ]


def area_under_curve(labels: IntArray, scores: FloatArray) -> float:
    """Area under the ROC curve by mid-ranks (Hanley and McNeil, Radiology 143 (1982) 29): a tie counts half."""
    malignant = int(labels.sum())
    surplus = rankdata(scores)[labels == 1].sum() - malignant * (malignant + 1) / 2
    return float(surplus / (malignant * (len(labels) - malignant)))


def out_of_fold(results: list[FoldResult], model: str, lesions: int) -> FloatArray:
    """Each lesion's score from the fold that held it out."""
    scores = np.full(lesions, np.nan)
    for result in results:
        scores[result.rows] = result.scores[model]
    return scores


def _fold(
    lesions: Lesions,
    training: IntArray,
    held_out: IntArray,
    modality: str,
    base: BaseModelFolder,
    options: TrainingOptions,
    checkpoint: Path,
    report: Report,
) -> FoldResult:
    inside, outside = lesions.take(training), lesions.take(held_out)
    fitted = fit(inside, modality, base, options, checkpoint, report)
    selected = list(fitted.template.features)
    usable = [name for name, good in zip(lesions.features, usable_columns(inside.values), strict=True) if good]
    return FoldResult(
        rows=held_out.tolist(),
        scores={
            LORA: score_fitted(fitted, outside, base, options),
            SELECTED_BASELINE: _logistic_regression(inside, outside, selected),
            ALL_BASELINE: _logistic_regression(inside, outside, usable),
        },
        features=selected,
        epochs=fitted.kept_epoch,
    )


def _logistic_regression(inside: Lesions, outside: Lesions, features: list[str]) -> list[float]:
    """Log-odds by scikit-learn's logistic regression (L2, C = 0.1, balanced classes)."""
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000))
    regression.fit(inside.columns(features), inside.labels)
    # A value that is missing outside the training lesions counts as average.
    columns = outside.columns(features)
    filled = np.where(np.isfinite(columns), columns, inside.columns(features).mean(axis=0))
    return [float(score) for score in regression.decision_function(filled)]


def _kept(path: Path, identity: str) -> FoldResult | None:
    """The result of a fold that an earlier run of the same training finished."""
    if not path.is_file():
        return None
    kept = read_json(path)
    return FoldResult.model_validate(kept["result"]) if kept.get("identity") == identity else None


def _identity(lesions: Lesions, options: TrainingOptions, base: BaseModelFolder, held_out: IntArray) -> str:
    digest = hashlib.sha256(options.model_dump_json().encode() + base.sha256.encode())
    digest.update(json.dumps([lesions.features, lesions.labels.tolist(), lesions.groups.tolist()]).encode())
    digest.update(np.ascontiguousarray(lesions.values, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(held_out, dtype="<i8").tobytes())
    return digest.hexdigest()


def _bootstrap(scores: dict[str, FloatArray], lesions: Lesions, seed: int) -> dict[str, FloatArray]:
    random = np.random.default_rng(seed)
    patients = [np.flatnonzero(lesions.groups == patient) for patient in np.unique(lesions.groups)]
    draws: dict[str, list[float]] = {model: [] for model in scores}
    while len(draws[LORA]) < _BOOTSTRAP_ROUNDS:
        rows = np.concatenate([patients[index] for index in random.integers(len(patients), size=len(patients))])
        if len(set(lesions.labels[rows])) < 2:
            continue
        for model, values in scores.items():
            draws[model].append(area_under_curve(lesions.labels[rows], values[rows]))
    return {model: np.array(values) for model, values in draws.items()}


def _interval(draws: FloatArray) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
