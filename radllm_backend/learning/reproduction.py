"""The experiment of Ra et al. 2025 from the folders of its data sets to its figures, for those who hold the data.

Ra, Kim, Na, Ko and Park, Comput Methods Programs Biomed 265 (2025) 108765: VinDr-Mammo with its published split, then
INbreast after adaptation on half of its patients. Everything that was finished is kept in the output folder: the same
call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from radllm_backend.features.cohort import patients_by_class
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.learning.compared_models import compared_models
from radllm_backend.learning.fit import Start
from radllm_backend.learning.methods import LORA
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from radllm_backend.learning.plan import EvaluationPlan, LabelledTable, Plan
from radllm_backend.learning.provenance import hardware, make_work_folder, versions_used
from radllm_backend.learning.reproduction_data import (
    FOLDERS,
    GROUP,
    INBREAST,
    SPLIT,
    TARGET,
    VINDR,
    MeasuredDataSet,
    PaperDataSet,
    Sources,
    measure_data_sets,
    within,
)
from radllm_backend.learning.scorecard import ModelResult, Outcome, Scorecard
from radllm_backend.learning.study import ComparedModel, Fold, Study, Verdict, evaluate_table
from radllm_backend.records import SHA256, Progress, Record

ADAPTED_FROM_VINDR = f"{LORA}, adapted from {VINDR}"
INBREAST_ALONE = f"{LORA}, {INBREAST} alone"
_MODALITY = "MG"
_READ, _LEARNED = 0.2, 0.9  # of the progress: the images measured, and the first data set learned from


class PaperFigure(Record):
    """What the paper reports of a data set."""

    accuracy: float
    test_lesions: str


PAPER_FIGURES: dict[PaperDataSet, PaperFigure] = {
    VINDR: PaperFigure(accuracy=0.671, test_lesions="235"),
    INBREAST: PaperFigure(accuracy=0.839, test_lesions="about 55"),
}
DIFFERENCES = (
    "The paper's base model is Llama-2-7B; this run's is named below.",
    "VinDr-Mammo has boxes and no outlines: these masks are this software's, and the paper's are not known here.",
    "Images are scaled to 0..1 as they are, without cutting out the breast or merging pixels.",
    "Epochs, batch size, warm-up and the adapter's scale are this software's, and the loss weighs both classes alike.",
    "The baselines' settings, and how many features the selecting ones use, are chosen by inner folds.",
    "Which half of INbreast's patients the model is adapted on was drawn anew.",
)
"""From the paper, as far as they are known here."""


@dataclass(frozen=True, kw_only=True)
class Protocol(Plan):
    """What the experiment is run on, and how; all that is written goes into the folder that keeps what is finished."""

    base: BaseModelFolder
    sources: Sources
    command: str
    """What repeats it, without the user's folders."""
    inner_folds: int = 5


class StageResult(Record):
    """What came of one data set, and what the paper says of it."""

    data_set: PaperDataSet
    paper: PaperFigure
    training_lesions: int
    test_lesions: int
    test_malignant: int
    left_out: int
    """Annotated lesions that could not be used, or that the label rule does not know."""
    dropped: int
    """Lesions without a value of every feature."""
    model: str
    """The model that stands beside the paper's."""
    features: list[str]
    """Those that its prompt names."""
    models: list[ModelResult]

    @property
    def result(self) -> ModelResult:
        """Of the model that stands beside the paper's."""
        return next(one for one in self.models if one.model == self.model)

    @property
    def commonest(self) -> float:
        """The accuracy of calling every test lesion what most of them are."""
        return max(self.test_malignant, self.test_lesions - self.test_malignant) / self.test_lesions


class Reproduction(Record):
    """The content of ``reproduction.json``."""

    schema_version: Literal[1] = 1
    stages: list[StageResult]
    differences: list[str]
    options: TrainingOptions
    base_model: str
    base_sha256: SHA256
    command: str
    hardware: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Stage:
    """One data set's part of the experiment, with all that its evaluation is written from."""

    result: StageResult
    scorecard: Scorecard
    outcomes: list[Outcome]


def reproduce(protocol: Protocol, progress: Progress, finished: Callable[[Stage], None]) -> Reproduction:
    """Measure, learn, adapt and judge.

    Args:
        finished: called with each data set's part as soon as it is there.

    Raises:
        RadllmError: a folder is not the data set's, a part lacks lesions of a class, or something cannot be written.
    """
    seed = protocol.options.seed
    vindr, inbreast = measure_data_sets(protocol.sources, protocol.work, seed, within(progress, 0.0, _READ))
    learned, start = _learn(protocol, vindr, within(progress, _READ, _LEARNED))
    finished(learned)
    adapted = _adapt(protocol, inbreast, start, within(progress, _LEARNED, 1.0))
    finished(adapted)
    return Reproduction(
        stages=[learned.result, adapted.result],
        differences=list(DIFFERENCES),
        options=protocol.options,
        base_model=protocol.base.public_name,
        base_sha256=protocol.base.sha256,
        command=protocol.command,
        hardware=hardware(),
        versions=versions_used(),
    )


def _learn(protocol: Protocol, data: MeasuredDataSet, progress: Progress) -> tuple[Stage, Start]:
    """VinDr-Mammo: baselines and the paper's model on the published parts, and that model as a start for another."""
    work = _work(protocol, data)
    stage = _stage(protocol, data, _racing(), LORA, work, within(progress, 0.0, 0.95))
    rows = (data.training, data.test)
    seed = protocol.options.seed
    study = Study(
        lesions=data.lesions,
        modality=_MODALITY,
        base=protocol.base,
        options=_options(protocol, data),
        work=work,
        seeds=(seed,),
        split=rows,
    )
    fold = Fold(study, seed, 0, rows, progress=within(progress, 0.95, 1.0))
    fitted = fold.adapted(fold.options)  # trained for the stage: it comes from its checkpoint
    return stage, Start(fitted.weights, fitted.writer.template.features)


def _adapt(protocol: Protocol, data: MeasuredDataSet, start: Start, progress: Progress) -> Stage:
    """INbreast: the model continued on one half, judged on the other beside all that learn from that half alone."""
    work = _work(protocol, data) / start.sha256[:12]  # another start is another study
    make_work_folder(work / "adapted")
    adapted = ComparedModel(ADAPTED_FROM_VINDR, "lora", partial(_judge_continued, start), trained=True)
    racing = [replace(one, name=INBREAST_ALONE) if one.name == LORA else one for one in _racing()]
    return _stage(protocol, data, [*racing, adapted], ADAPTED_FROM_VINDR, work, progress)


def _racing() -> list[ComparedModel]:
    """The baselines, and the paper's model last."""
    return [one for one in compared_models() if one.family in ("classical", "lora")]


def _judge_continued(start: Start, fold: Fold) -> Verdict:
    """The paper's model, its adapter continued from another data set's."""
    study = replace(fold.study, start=start, work=fold.study.work / "adapted")
    rows = study.parts(fold.seed)[fold.number]
    return _racing()[-1].judge(Fold(study, fold.seed, fold.number, rows, progress=fold.progress))


def _stage(
    protocol: Protocol,
    data: MeasuredDataSet,
    racing: Sequence[ComparedModel],
    model: str,
    work: Path,
    progress: Progress,
) -> Stage:
    plan = EvaluationPlan(
        labelled=LabelledTable(data.table, TARGET, GROUP, _MODALITY),
        base=protocol.base,
        options=_options(protocol, data),
        work=work,
        command=protocol.command,
        division=CrossValidation(inner_folds=protocol.inner_folds, seeds=1),
        split=SPLIT,
    )
    scorecard, outcomes = evaluate_table(plan, racing, partial(_tell, progress, data.name))
    result = StageResult(
        data_set=data.name,
        paper=PAPER_FIGURES[data.name],
        training_lesions=len(data.training),
        test_lesions=scorecard.lesions,
        test_malignant=scorecard.malignant,
        left_out=data.left_out,
        dropped=data.dropped,
        model=model,
        features=next(one.selected for one in outcomes if one.model == model),
        models=scorecard.models,
    )
    return Stage(result, scorecard, outcomes)


def _options(protocol: Protocol, data: MeasuredDataSet) -> TrainingOptions:
    """A larger share is kept apart where a class has too few patients to learn from for the usual one."""
    patients = min(patients_by_class(data.lesions.take(data.training)))
    parts = min(round(1 / protocol.options.validation), patients)
    return protocol.options.model_copy(update={"validation": 1 / parts})


def _work(protocol: Protocol, data: MeasuredDataSet) -> Path:
    return protocol.work / FOLDERS[data.name] / "work"


def _tell(progress: Progress, name: PaperDataSet, what: str, done: float) -> None:
    """Without 'seed 0, fold 1', of which there is only one."""
    progress(f"{name}, {what.split(', ', 2)[-1]}", done)
