"""How good models are on lesions they have not seen: cross-validation of many models on the same folds.

A model gets the training lesions of a fold, all it learns comes from them, and it says what it thinks of the held-out
ones. No patient is on both sides. The models themselves are in `compared_models`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from safetensors.torch import save as save_weights

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions, outer_folds, patients_by_class
from radllm_backend.files import read_json, write_atomically
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.language.prompt import Pooling, Readout
from radllm_backend.language.prompt_writer import PromptWriter
from radllm_backend.language.reader import PromptReader, open_reader
from radllm_backend.language.shape import LlamaShape
from radllm_backend.learning.fit import FittedModel, Start, fit, fit_writer
from radllm_backend.learning.fusion import DEPTHS, candidate_readouts
from radllm_backend.learning.options import CrossValidation, Family, TrainingOptions
from radllm_backend.learning.plan import EvaluationPlan, LabelledTable, Plan
from radllm_backend.learning.provenance import hardware, make_work_folder, versions_used
from radllm_backend.learning.scorecard import Outcome, Scorecard, summarise
from radllm_backend.models.heads import HiddenStates
from radllm_backend.records import Progress, say_nothing

_TRAINING, _TEST = {"train", "training"}, {"test"}


@dataclass(frozen=True, kw_only=True)
class Study(Plan):
    """Models judged on lesions, and how these are divided; the `seed` and `folds` of its options are not used here."""

    lesions: Lesions
    modality: str
    division: CrossValidation = field(default_factory=CrossValidation)
    seeds: tuple[int, ...] = (0,)
    """Each divides the lesions anew."""
    split: tuple[IntArray, IntArray] | None = None
    """(training rows, test rows) of a locked split, instead of folds."""
    start: Start | None = None
    """The adapter that every training continues from."""

    def __post_init__(self) -> None:
        """RadllmError where more layers are to be read than there are: before the hours rather than after them."""
        self.depths()

    def depths(self) -> list[int]:
        """How many layers of the language model inner folds choose from; empty where there is none."""
        if not self.base:
            return []
        shape = LlamaShape.of(read_json(self.base.folder / "config.json"), self.base.folder.name)
        return sorted({one.layers for one in candidate_readouts(shape.layers, self.options.layers)})

    def dealt(self, seed: int) -> Lesions:
        """The lesions with the labels that they have with a seed."""
        return self.lesions.shuffled(seed) if self.division.shuffle_labels else self.lesions

    def parts(self, seed: int) -> list[tuple[IntArray, IntArray]]:
        """(training rows, held-out rows) of each outer fold."""
        return [self.split] if self.split else outer_folds(self.dealt(seed), self.division.folds, seed)


@dataclass(frozen=True)
class Verdict:
    """What a model says of the held-out lesions of a fold, with all that it chose on the training lesions."""

    scores: FloatArray
    """Log-odds-like."""
    probabilities: FloatArray
    threshold: float
    selected: Sequence[str] = ()
    chosen: dict[str, float | int | str] = field(default_factory=dict)


class Fold:
    """One outer fold, and what several models share of it, so that it is computed once."""

    def __init__(
        self,
        study: Study,
        seed: int,
        number: int,
        rows: tuple[IntArray, IntArray],
        *,
        epochs: int | None = None,
        progress: Progress = say_nothing,
    ) -> None:
        """
        Args:
            rows: those to learn from, and those to judge.
            epochs: how long an adapter is trained, on all lesions; None for early stopping on a part of them.
        """
        self.study = study
        self.seed = seed
        self.number = number
        self.epochs = epochs
        self.progress = progress
        self.held_out = rows[1]
        lesions = study.dealt(seed)
        self.inside, self.outside = (lesions.take(part) for part in rows)
        self.options = study.options.model_copy(update={"seed": seed})
        self._embeddings: dict[str, dict[Readout, NDArray[np.float32]]] = {}
        self._adapted: dict[str, FittedModel] = {}

    @property
    def base(self) -> BaseModelFolder:
        if self.study.base is None:
            raise RadllmError("This model needs a base model: give --base-model or leave the language models out.")
        return self.study.base

    @cached_property
    def reader(self) -> PromptReader:
        """The base model as it is, nothing trained, and no deeper than it is to be read."""
        return open_reader(self.base, layers=self.options.layers)

    @cached_property
    def writer(self) -> PromptWriter:
        """Selection, scale and template of this fold."""
        return self.write_as(self.options)

    @cached_property
    def inner_folds(self) -> int:
        """As many as the study asks for, or fewer where a class has fewer patients."""
        return max(2, min(self.study.division.inner_folds, *patients_by_class(self.inside)))

    def write_as(self, options: TrainingOptions) -> PromptWriter:
        return fit_writer(self.inside, self.study.modality, options, self.study.start)

    def frozen(self, options: TrainingOptions) -> tuple[HiddenStates, HiddenStates]:
        """Hidden states of the frozen model, of training and held-out lesions, for every readout to choose from."""

        def read(texts: list[str]) -> dict[Readout, NDArray[np.float32]]:
            return self.reader.embed(texts, candidate_readouts(self.reader.depth, options.layers))

        return self._read([options.layers or DEPTHS], self.write_as(options), read)

    def adapted(self, options: TrainingOptions) -> FittedModel:
        """The LoRA model trained on this fold."""
        key = options.model_dump_json()
        if key not in self._adapted:
            name = hashlib.sha256(key.encode()).hexdigest()[:12]
            checkpoint = self.study.work / f"seed{self.seed}-fold{self.number}-{name}.safetensors"
            self._adapted[key] = fit(
                self.inside,
                self.study.modality,
                self.base,
                options,
                checkpoint,
                self.progress,
                self.epochs,
                self.study.start,
            )
        return self._adapted[key]

    def enhanced(self, options: TrainingOptions) -> tuple[HiddenStates, HiddenStates]:
        """Hidden states of the LoRA model, of training and held-out lesions, after all its layers."""
        fitted = self.adapted(options)

        def read(texts: list[str]) -> dict[Readout, NDArray[np.float32]]:
            reader = fitted.reader(self.base, options)
            return reader.embed(texts, [Readout(reader.depth, pooling) for pooling in get_args(Pooling)])

        return self._read([hashlib.sha256(save_weights(fitted.weights)).hexdigest()], fitted.writer, read)

    def _read(
        self,
        by: Sequence[object],
        writer: PromptWriter,
        read: Callable[[list[str]], dict[Readout, NDArray[np.float32]]],
    ) -> tuple[HiddenStates, HiddenStates]:
        """Reading takes minutes on a CPU: the states are kept under a name that says all they depend on."""
        inside, outside = writer.write(self.inside), writer.write(self.outside)
        texts = sorted({*inside, *outside})
        name = hashlib.sha256(json.dumps([self.base.identity, *by, texts]).encode()).hexdigest()
        if name not in self._embeddings:
            self._embeddings[name] = _kept_states(
                self.study.work / f"states-{name[:16]}.safetensors", lambda: read(texts)
            )
        where = {text: index for index, text in enumerate(texts)}
        first, second = (
            {readout: rows[[where[text] for text in part]] for readout, rows in self._embeddings[name].items()}
            for part in (inside, outside)
        )
        return first, second


def _kept_states(
    path: Path, read: Callable[[], dict[Readout, NDArray[np.float32]]]
) -> dict[Readout, NDArray[np.float32]]:
    """Hidden states from a file, or read now and written there; a damaged file is written anew."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        # The library writes memory as it lies.
        tensors = {f"{one.pooling} {one.layers}": np.ascontiguousarray(states) for one, states in read().items()}
        write_atomically(path, save(tensors))
    named = [(name, *name.split()) for name in sorted(tensors)]
    return {Readout(int(layers), cast(Pooling, pooling)): tensors[name] for name, pooling, layers in named}


@dataclass(frozen=True)
class ComparedModel:
    """A model of the comparison."""

    name: str
    family: Family
    judge: Callable[[Fold], Verdict]
    trained: bool = False
    """Whether it trains a language model."""
    costly: bool = False
    """Whether it takes far longer than the model it is a variant of."""


def evaluate_models(study: Study, models: Sequence[ComparedModel], progress: Progress) -> list[Outcome]:
    """Train and judge every model on every outer fold; what an earlier run finished is not computed again."""
    plan = [(seed, number, rows) for seed in study.seeds for number, rows in enumerate(study.parts(seed))]
    outcomes: list[Outcome] = []
    for step, (seed, number, rows) in enumerate(plan):
        racing = [one for one in models if not one.trained or seed in study.seeds[: study.division.trained_seeds]]
        fold = Fold(study, seed, number, rows)
        outcomes += _race(fold, racing, partial(_tell, progress, f"seed {seed}, fold {number + 1}", step, len(plan)))
    return outcomes


def _tell(progress: Progress, where: str, step: int, steps: int, what: str, done: float) -> None:
    progress(f"{where}, {what}", (step + done) / steps)


def _race(fold: Fold, racing: Sequence[ComparedModel], progress: Progress) -> list[Outcome]:
    outcomes = []
    for index, model in enumerate(racing):
        progress(model.name, index / len(racing))
        fold.progress = partial(_tell, progress, model.name, index, len(racing))
        outcomes.append(_kept_or_judged(fold, model))
    return outcomes


def _kept_or_judged(fold: Fold, model: ComparedModel) -> Outcome:
    """The outcome of an earlier run of the same study, or a new one, which is kept."""
    slug = hashlib.sha256(model.name.encode()).hexdigest()[:12]
    path = fold.study.work / f"outcome-{fold.seed}-{fold.number}-{slug}.json"
    identity = _identity(fold, model)
    if path.is_file():
        kept = read_json(path)
        if kept.get("identity") == identity:
            return Outcome.model_validate(kept["outcome"])
    begun = time.perf_counter()
    verdict = model.judge(fold)
    outcome = Outcome(
        model=model.name,
        family=model.family,
        seed=fold.seed,
        fold=fold.number,
        rows=fold.held_out.tolist(),
        labels=fold.outside.labels.tolist(),
        scores=verdict.scores.tolist(),
        probabilities=verdict.probabilities.tolist(),
        threshold=verdict.threshold,
        selected=list(verdict.selected),
        chosen=verdict.chosen,
        seconds=time.perf_counter() - begun,
    )
    write_atomically(path, json.dumps({"identity": identity, "outcome": outcome.model_dump()}))
    return outcome


def _identity(fold: Fold, model: ComparedModel) -> str:
    """Of everything that an outcome depends on."""
    study, lesions = fold.study, fold.study.dealt(fold.seed)
    content = [
        sorted(Outcome.model_fields),
        model.name,
        study.modality,
        study.division.inner_folds,
        fold.options.model_dump() if model.family != "classical" else fold.seed,
        study.base.identity if study.base and model.family != "classical" else "",
        lesions.features,
        lesions.labels.tolist(),
        lesions.groups.tolist(),
        lesions.descriptors,
        lesions.categories.tolist(),
    ]
    if study.start:
        content.append(study.start.sha256)
    digest = hashlib.sha256(json.dumps(content).encode())
    digest.update(np.ascontiguousarray(lesions.values, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(fold.held_out, dtype="<i8").tobytes())
    return digest.hexdigest()


def evaluate_table(
    plan: EvaluationPlan, models: Sequence[ComparedModel], progress: Progress
) -> tuple[Scorecard, list[Outcome]]:
    """Evaluate models on a table of lesions.

    Returns:
        The scorecard, and the outcomes it sums up.

    Raises:
        RadllmError: the table is unfit, or too few lesions of a class.
    """
    labelled, division = plan.labelled, plan.division
    study = Study(
        lesions=labelled.lesions(scale_free=plan.options.scale_free),
        modality=labelled.modality,
        base=plan.base,
        options=plan.options,
        work=plan.work,
        division=division,
        seeds=tuple(range(plan.options.seed, plan.options.seed + division.seeds)),
        split=_locked_split(labelled, plan.split) if plan.split else None,
    )
    started = datetime.now(UTC).date().isoformat()
    make_work_folder(plan.work)
    outcomes = evaluate_models(study, models, progress)
    scorecard = summarise(
        outcomes,
        study.lesions,
        table=labelled.table.name,
        table_sha256=labelled.table.sha256,
        target=labelled.target,
        group=labelled.group,
        modality=study.modality,
        folds=division.folds,
        inner_folds=division.inner_folds,
        seeds=list(study.seeds),
        split=plan.split,
        shuffled_labels=division.shuffle_labels,
        base_model=plan.base.public_name if plan.base else None,
        base_sha256=plan.base.sha256 if plan.base else None,
        depths=study.depths(),
        versions=versions_used(),
        hardware=hardware(),
        command=plan.command,
        started=started,
    )
    return scorecard, outcomes


def _locked_split(labelled: LabelledTable, split: str) -> tuple[IntArray, IntArray]:
    table = labelled.table
    words = [cell.lower() for cell in table.column(split)]
    for row, word in enumerate(words, start=2):
        if word not in _TRAINING | _TEST:
            raise RadllmError(f"{table.name} has '{word[:40]}' as '{split}' in line {row}: use train and test.")
    training = np.array([word in _TRAINING for word in words])
    groups = np.array(table.column(labelled.group))
    both = set(groups[training]) & set(groups[~training])
    if both:
        raise RadllmError(
            f"Both parts of '{split}' in {table.name} hold {counted(len(both), 'patient')}: keep each patient "
            "in one part."
        )
    labels = table.labels(labelled.target)
    for name, part in (("training", training), ("test", ~training)):
        if len(set(labels[part].tolist())) < 2:
            raise RadllmError(
                f"The {name} part of '{split}' in {table.name} does not hold both classes: "
                "put benign and malignant lesions in each."
            )
    return np.flatnonzero(training), np.flatnonzero(~training)
