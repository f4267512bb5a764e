"""The evaluation of a table of lesions, as the command line and the training of a model ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import IntArray
from radllm_backend.features.cohort import Lesions
from radllm_backend.features.table import FeatureTable, modality_of
from radllm_backend.files import sha256_of
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.learning.fit import TrainingOptions
from radllm_backend.learning.provenance import hardware, make_work_folder, versions_used
from radllm_backend.learning.scorecard import Outcome, Scorecard, summarise
from radllm_backend.learning.study import ComparedModel, Study, evaluate_models
from radllm_backend.records import Progress

_TRAINING, _TEST = {"train", "training"}, {"test"}


@dataclass(frozen=True)
class EvaluationPlan:
    """What `evaluate_table` is asked to do."""

    table: FeatureTable
    table_path: Path
    target: str
    """Column that says benign or malignant."""
    group: str
    """Column that names the patient."""
    base: BaseModelFolder | None
    options: TrainingOptions
    work: Path
    command: str
    """What repeats the evaluation, without the user's folders."""
    modality: str | None = None
    folds: int = 5
    inner_folds: int = 5
    seeds: int = 3
    trained_seeds: int = 1
    split: str | None = None
    """Column that says train or test for each lesion."""
    shuffle_labels: bool = False


def evaluate_table(
    plan: EvaluationPlan, models: Sequence[ComparedModel], progress: Progress
) -> tuple[Scorecard, list[Outcome]]:
    """Evaluate models on a table of lesions.

    Returns:
        The scorecard, and the outcomes it sums up.

    Raises:
        RadllmError: the table is unfit, or too few lesions of a class.
    """
    lesions = Lesions.from_table(plan.table, plan.target, plan.group, scale_free=plan.options.scale_free)
    seeds = tuple(range(plan.options.seed, plan.options.seed + plan.seeds))
    study = Study(
        lesions=lesions,
        modality=modality_of(plan.table, plan.modality),
        base=plan.base,
        options=plan.options,
        work=plan.work,
        folds=plan.folds,
        inner_folds=plan.inner_folds,
        seeds=seeds,
        trained_seeds=plan.trained_seeds,
        split=_locked_split(plan) if plan.split else None,
        shuffled=plan.shuffle_labels,
    )
    started = datetime.now(UTC).date().isoformat()
    make_work_folder(plan.work)
    outcomes = evaluate_models(study, models, progress)
    scorecard = summarise(
        outcomes,
        lesions,
        table=plan.table_path.name,
        table_sha256=sha256_of(plan.table_path),
        target=plan.target,
        group=plan.group,
        modality=study.modality,
        folds=plan.folds,
        inner_folds=plan.inner_folds,
        seeds=list(seeds),
        split=plan.split,
        shuffled_labels=plan.shuffle_labels,
        base_model=plan.base.public_name if plan.base else None,
        base_sha256=plan.base.sha256 if plan.base else None,
        versions=versions_used(),
        hardware=hardware(),
        command=plan.command,
        started=started,
    )
    return scorecard, outcomes


def _locked_split(plan: EvaluationPlan) -> tuple[IntArray, IntArray]:
    words = [cell.lower() for cell in plan.table.column(str(plan.split))]
    for row, word in enumerate(words, start=2):
        if word not in _TRAINING | _TEST:
            raise RadllmError(
                f"{plan.table.name} has '{word[:40]}' as '{plan.split}' in line {row}: use train and test."
            )
    training = np.array([word in _TRAINING for word in words])
    groups = np.array(plan.table.column(plan.group))
    both = set(groups[training]) & set(groups[~training])
    if both:
        raise RadllmError(
            f"{len(both)} patients of {plan.table.name} are in both parts of '{plan.split}': keep each in one."
        )
    labels = plan.table.labels(plan.target)
    for name, part in (("training", training), ("test", ~training)):
        if len(set(labels[part].tolist())) < 2:
            raise RadllmError(
                f"The {name} part of '{plan.split}' in {plan.table.name} does not hold both classes: "
                "put benign and malignant lesions in each."
            )
    return np.flatnonzero(training), np.flatnonzero(~training)
