"""What continuing a model on a data set with another feature set is worth when few of its lesions are labelled.

The experiment of Ra et al. 2025: train on one data set, adapt to another with n labelled lesions, and compare with
models that learn from those n lesions alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats
from threadpoolctl import threadpool_limits

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions, outer_folds, patients_by_class
from radllm_backend.files import read_json, write_atomically
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.learning.classical import plain_classifier
from radllm_backend.learning.fit import Start, fit, fit_writer
from radllm_backend.learning.intervals import CONFIDENCE
from radllm_backend.learning.metrics import area_under_curve
from radllm_backend.learning.options import TrainingOptions
from radllm_backend.learning.plan import LabelledTable, Plan
from radllm_backend.learning.provenance import hardware, make_work_folder, versions_used
from radllm_backend.models.heads import log_odds
from radllm_backend.records import Estimate, Progress, Record

LORA_ADAPTED, LORA_FROM_SCRATCH = "LoRA, adapted", "LoRA, from scratch"
BASELINES = ("logistic regression", "random forest")
_FEWEST_STEPS = 30  # with fewer, a model that learns from ten lesions would hardly leave its start
_FEWEST_OF_A_CLASS = 2
_MOST_PARTS = 10
_SOURCE_SHARE = 0.3  # of the progress: training on the source


class CurveTrial(Record):
    """One model that learned from so many lesions of the target, judged on lesions of other patients."""

    model: str
    size: int
    """Labelled lesions that it learned from."""
    repeat: int
    auc: float


class CurvePoint(Record):
    """A model's mean AUC over the repeats at one size, with the 95% interval of that mean."""

    model: str
    size: int
    auc: Estimate


class AdaptationCurve(Record):
    """The content of ``adaptation.json``."""

    schema_version: Literal[1] = 1
    source: str
    """Names of the two tables."""
    target: str
    shared: list[str]
    """Features (PyRadiomics names) and descriptors that both data sets have."""
    only_source: list[str]
    only_target: list[str]
    source_lesions: int
    """That the source's model learned from."""
    left_out: int
    """Lesions of the source whose patients the target has too: an adapted model would have met them before."""
    test_lesions: list[int]
    """How many lesions judged, in each repeat."""
    points: list[CurvePoint]
    trials: list[CurveTrial]
    options: TrainingOptions
    base_model: str
    base_sha256: str
    command: str
    hardware: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Cohort:
    """Lesions of one origin."""

    name: str
    """The table's file name."""
    lesions: Lesions
    modality: str

    @classmethod
    def from_table(cls, labelled: LabelledTable, *, scale_free: bool = False) -> Cohort:
        """The lesions of a table.

        Args:
            scale_free: without the features that depend on the pixel spacing.

        Raises:
            RadllmError: the table is unfit, or its modality unknown or mixed.
        """
        return cls(labelled.table.name, labelled.lesions(scale_free=scale_free), labelled.modality)


@dataclass(frozen=True, kw_only=True)
class Experiment(Plan):
    """Two data sets, and how often and how much of the second one is learned from.

    The options' seed is that of the source's model and of the first repeat; each repeat has the next. What is kept
    serves an experiment with more sizes or repeats too.
    """

    base: BaseModelFolder
    source: Cohort
    target: Cohort
    command: str
    """What repeats the experiment, without the user's folders."""
    sizes: tuple[int, ...] = (10, 20, 50, 100)
    repeats: int = 5


@dataclass(frozen=True)
class Division:
    """The target of one repeat in two: no patient in both."""

    labelled: IntArray
    """Rows that may be labelled, in random order: the sample of n lesions is the first n, so the smaller lie in the
    larger, and each has the classes in proportion."""
    judges: IntArray
    """Rows that judge every model of the repeat."""


def run_experiment(experiment: Experiment, progress: Progress) -> AdaptationCurve:
    """Train on the source, adapt to the target, and compare; what an earlier run finished is not computed again.

    Lesions of the source whose patients the target has too (patients of the same name) are left out.

    Raises:
        RadllmError: too few repeats or lesions for the sizes, or the data cannot be trained on.
    """
    divisions = _divisions(experiment)
    source, target = _without_patients_of(experiment.target, experiment.source), experiment.target
    make_work_folder(experiment.work)
    start = _train_source(experiment, source, progress)
    trials = _trials(experiment, divisions, start, progress)
    shared, only_source, only_target = compare_names(source.lesions, target.lesions)
    return AdaptationCurve(
        source=source.name,
        target=target.name,
        shared=shared,
        only_source=only_source,
        only_target=only_target,
        source_lesions=len(source.lesions),
        left_out=len(experiment.source.lesions) - len(source.lesions),
        test_lesions=[len(division.judges) for division in divisions],
        points=curve_points(trials),
        trials=trials,
        options=experiment.options,
        base_model=experiment.base.public_name,
        base_sha256=experiment.base.sha256,
        command=experiment.command,
        hardware=hardware(),
        versions=versions_used(),
    )


def divide(target: Cohort, sizes: Sequence[int], seed: int) -> Division:
    """The target in two parts at random, as near to halves as leaves enough lesions for the largest sample.

    Raises:
        RadllmError: too few patients of a class, a sample larger than its part, or one that lacks a class.
    """
    pool, judges = _pool_and_judges(target, max(sizes), seed)
    labelled = pool[_in_proportion(target.lesions.labels[pool], seed)]
    smallest = np.bincount(target.lesions.labels[labelled[: min(sizes)]], minlength=2)
    if smallest.min() < _FEWEST_OF_A_CLASS:
        raise RadllmError(
            f"{min(sizes)} lesions of {target.name} are {smallest[0]} benign and {smallest[1]} malignant ones and "
            f"{_FEWEST_OF_A_CLASS} of each are needed: ask for larger sizes."
        )
    return Division(labelled, judges)


def compare_names(source: Lesions, target: Lesions) -> tuple[list[str], list[str], list[str]]:
    """Features and descriptors that (both, only the source, only the target) have, in the order of their tables."""
    first, second = ([*lesions.features, *lesions.descriptors] for lesions in (source, target))
    return (
        [name for name in first if name in second],
        [name for name in first if name not in second],
        [name for name in second if name not in first],
    )


def curve_points(trials: Sequence[CurveTrial]) -> list[CurvePoint]:
    """Each model's mean AUC at each size, with Student's t interval of the mean over repeats, cut off at 0 and 1.

    The interval says how much the choice of lesions matters. The repeats divide the same lesions, so it is narrower
    than new patients would make it.
    """
    points = []
    for model, size in dict.fromkeys((trial.model, trial.size) for trial in trials):
        aucs = [trial.auc for trial in trials if (trial.model, trial.size) == (model, size)]
        mean = float(np.mean(aucs))
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(aucs) - 1) * stats.sem(aucs))
        auc = Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))
        points.append(CurvePoint(model=model, size=size, auc=auc))
    return points


def _divisions(experiment: Experiment) -> list[Division]:
    """Of every repeat, before anything is trained: what cannot be divided is known at once."""
    if experiment.repeats < 2 or min(experiment.sizes, default=0) < 1:
        raise RadllmError("The curve needs a number of labelled lesions and at least 2 repeats: ask for more.")
    seed = experiment.options.seed
    return [divide(experiment.target, experiment.sizes, seed + repeat) for repeat in range(experiment.repeats)]


def _pool_and_judges(target: Cohort, largest: int, seed: int) -> tuple[IntArray, IntArray]:
    lesions = target.lesions
    patients = patients_by_class(lesions)
    if min(patients) < 2:
        raise RadllmError(
            f"{target.name} has {counted(patients[0], 'patient')} with benign and {patients[1]} with malignant "
            "lesions, and at least 2 of each are needed: add lesions."
        )
    for parts in range(2, min(_MOST_PARTS, *patients) + 1):
        pool, judges = outer_folds(lesions, parts, seed)[0]
        if len(pool) >= largest and len(set(lesions.labels[judges])) == 2:
            return pool, judges
    raise RadllmError(
        f"{largest} labelled lesions leave too few of the {len(lesions)} of {target.name} to judge: "
        "ask for smaller sizes."
    )


def _in_proportion(labels: IntArray, seed: int) -> IntArray:
    """A random order of lesions of which every beginning has the classes in proportion, to within one lesion."""
    random = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in (0, 1):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def _without_patients_of(other: Cohort, data: Cohort) -> Cohort:
    lesions = data.lesions
    kept = lesions.take(np.flatnonzero(~np.isin(lesions.groups, other.lesions.groups)))
    if len(set(kept.labels.tolist())) < 2:
        raise RadllmError(
            f"{data.name} and {other.name} name the same patients, and without these {data.name} has not both classes: "
            "give patients of different data sets different names."
        )
    return Cohort(data.name, kept, data.modality)


def _train_source(experiment: Experiment, source: Cohort, progress: Progress) -> Start:
    fitted = fit(
        source.lesions,
        source.modality,
        experiment.base,
        experiment.options,
        experiment.work / "source.safetensors",
        lambda what, done: progress(f"{source.name}, {what}", _SOURCE_SHARE * done),
    )
    return Start(fitted.weights, fitted.writer.template.features)


@dataclass(frozen=True)
class _Task:
    """What the models of one size and repeat learn from and are judged on."""

    repeat: int
    labelled: Lesions
    judges: Lesions
    modality: str
    options: TrainingOptions
    """With the seed of the repeat."""


@dataclass(frozen=True)
class _Learner:
    """A model of the comparison."""

    name: str
    scores: Callable[[_Task, Path, Progress], FloatArray]
    """Of the judging lesions, given a file for a checkpoint."""
    origin: Sequence[str] = ()
    """SHA-256 of what it starts from: a classical trial stays valid with another base model or source."""


def _trials(
    experiment: Experiment, divisions: Sequence[Division], start: Start, progress: Progress
) -> list[CurveTrial]:
    base = experiment.base
    learners = [
        _Learner(LORA_ADAPTED, partial(_language_scores, base, start), (base.sha256, start.sha256)),
        _Learner(LORA_FROM_SCRATCH, partial(_language_scores, base, None), (base.sha256,)),
        *(_Learner(name, partial(_classical_scores, name)) for name in BASELINES),
    ]
    plan = [
        (_task(experiment, division, size, repeat), learner)
        for repeat, division in enumerate(divisions)
        for size in sorted(set(experiment.sizes))
        for learner in learners
    ]
    return [
        _kept_or_tried(task, learner, experiment.work, partial(_tell, progress, _words(task, learner), step, len(plan)))
        for step, (task, learner) in enumerate(plan)
    ]


def _task(experiment: Experiment, division: Division, size: int, repeat: int) -> _Task:
    lesions, options = experiment.target.lesions, experiment.options
    return _Task(
        repeat,
        lesions.take(division.labelled[:size]),
        lesions.take(division.judges),
        experiment.target.modality,
        options.model_copy(update={"seed": options.seed + repeat}),
    )


def _words(task: _Task, learner: _Learner) -> str:
    return f"repeat {task.repeat + 1}, {counted(len(task.labelled), 'lesion')}, {learner.name}"


def _tell(progress: Progress, words: str, step: int, steps: int, _epoch: str, done: float) -> None:
    """One line a trial, not one an epoch: there are dozens of either."""
    progress(words, _SOURCE_SHARE + (1 - _SOURCE_SHARE) * (step + done) / steps)


def _kept_or_tried(task: _Task, learner: _Learner, work: Path, progress: Progress) -> CurveTrial:
    """The trial that an earlier run kept under the identity of all it depends on, or a new one, which is kept."""
    content = json.dumps([learner.name, learner.origin, asdict(task)], default=_plain)
    identity = hashlib.sha256(content.encode()).hexdigest()
    path, checkpoint = work / f"trial-{identity}.json", work / f"trial-{identity}.safetensors"
    if path.is_file():
        return _kept(path)
    progress("", 0.0)
    auc = float(area_under_curve(task.judges.labels, learner.scores(task, checkpoint, progress)))
    trial = CurveTrial(model=learner.name, size=len(task.labelled), repeat=task.repeat, auc=auc)
    write_atomically(path, trial.model_dump_json())
    checkpoint.unlink(missing_ok=True)
    return trial


def _kept(path: Path) -> CurveTrial:
    try:
        return CurveTrial.model_validate(read_json(path))
    except ValidationError as error:
        raise RadllmError(f"The trial {path.name} is damaged: delete it to compute it anew.") from error


def _plain(value: NDArray[np.generic] | Record) -> object:
    return value.model_dump() if isinstance(value, Record) else value.tolist()


def _language_scores(
    base: BaseModelFolder, start: Start | None, task: _Task, checkpoint: Path, progress: Progress
) -> FloatArray:
    # So few lesions leave none to keep apart: the number of epochs is fixed, and the same with and without a start.
    epochs = max(task.options.epochs, math.ceil(_FEWEST_STEPS * task.options.batch_size / len(task.labelled)))
    options = task.options.model_copy(update={"epochs": epochs})
    fitted = fit(task.labelled, task.modality, base, options, checkpoint, progress, epochs=epochs, start=start)
    return np.array(fitted.reader(base, options).score(fitted.writer.write(task.judges)))


def _classical_scores(name: str, task: _Task, _checkpoint: Path, _progress: Progress) -> FloatArray:
    """With the features that the model from scratch reads and its usual settings: there is nothing for inner folds."""
    writer = fit_writer(task.labelled, task.modality, task.options)
    with threadpool_limits(1):
        classifier = plain_classifier(name, task.options.seed).fit(writer.design(task.labelled), task.labelled.labels)
        return log_odds(classifier, writer.design(task.judges))
