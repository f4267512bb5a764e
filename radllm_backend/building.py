"""From a table of lesions to a model bundle: cross-validate, fit on everything, calibrate, write the card."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file, save

from radllm_backend import processes
from radllm_backend.base_models import BaseModelFolder
from radllm_backend.bundle import (
    ADAPTER,
    QUANTILES,
    AdapterReference,
    BaseReference,
    Bundle,
    DescriptorSummary,
    EvaluationSummary,
    FeatureSummary,
    ModelCard,
    Origin,
    TrainingSummary,
    Trial,
    read_bundle,
    refuse_existing,
    write_bundle,
)
from radllm_backend.calibrating import fit_calibration, youden_threshold
from radllm_backend.calibration import Calibration
from radllm_backend.cautions import lesion_hash
from radllm_backend.cohort import Lesions, split_by_patient
from radllm_backend.conformal import ConformalReference
from radllm_backend.contenders import NAMES, classical, of_method, same_features
from radllm_backend.errors import RadllmError
from radllm_backend.evaluation import Fold, Study, evaluate, hardware, make_work_folder, modality_of, versions_used
from radllm_backend.extraction import Settings, load_settings
from radllm_backend.feature_table import FeatureTable
from radllm_backend.features import Extraction
from radllm_backend.heads import head_file, pooling_of
from radllm_backend.methods import METHODS, Learned
from radllm_backend.model_card import model_readme
from radllm_backend.performance import OutOfFold, calibration_check, performances, subgroups
from radllm_backend.prompt import TEMPLATE_VERSION
from radllm_backend.prompt_writer import PromptWriter
from radllm_backend.safe_files import read_json, sha256_of
from radllm_backend.scorecard import Outcome, Scorecard
from radllm_backend.selection import usable_columns
from radllm_backend.training import Report, Start, TrainingOptions
from radllm_backend.training_reference import NEIGHBOURS, ClassQuantiles, Neighbourhood, Spread

FloatArray = NDArray[np.float64]
DEFAULT_BASE = "smollm2-135m-instruct"
DEFAULT_METHOD = "lora"


@dataclass(frozen=True)
class TrainingPlan:
    """What `train` is asked to do."""

    table: FeatureTable
    table_path: Path
    target: str
    """Column that says benign or malignant."""
    group: str
    """Column that names the patient."""
    base: BaseModelFolder
    options: TrainingOptions
    output: Path
    method: str = DEFAULT_METHOD
    """One of `methods.METHODS`."""
    settings: Settings | None = None
    """How the table was extracted; found out from its provenance where it is not given."""
    modality: str | None = None
    description: str = ""
    by: str | None = None
    """A descriptor: the card also says how well the model does in the lesions of each of its values."""
    evaluations: tuple[Path, ...] = ()
    """``evaluation.json`` of other trials on these lesions, which the card sums up."""
    origin: Bundle | None = None
    """A model to continue; None for a fresh adapter."""


def train(plan: TrainingPlan, report: Report) -> Bundle:
    """Train a model on a table and write its bundle.

    A work folder beside the output keeps finished folds and the state after each epoch: the same call after a crash
    goes on from there. It is removed at the end.

    Raises:
        RadllmError: the output exists, the table is unfit, or too few lesions of a class.
    """
    if processes.is_main():
        refuse_existing(plan.output)  # before the hours rather than after them
    processes.wait()
    _check_method(plan)
    modality = _modality(plan)
    lesions = _lesions(plan)
    settings = _settings(plan) if lesions.features else None
    evaluations = [_summed_up(path) for path in plan.evaluations]
    study = _study(plan, lesions, modality)
    _check_patients(study, plan)
    make_work_folder(study.work)
    share = 1 / (plan.options.folds + 1)
    outcomes = _cross_validate(study, plan, lambda what, done: report(what, done * (1 - share)))
    final = Fold(
        study,
        plan.options.seed,
        plan.options.folds,
        (np.arange(len(lesions)), np.arange(0)),
        # What the folds found is used on all lesions; a single small validation part would be a lottery.
        epochs=usual_epochs(outcomes),
        report=lambda what, done: report(f"final model, {what}", 1 - share + done * share),
    )
    learned = METHODS[plan.method](final)
    judged = OutOfFold.pooled(outcomes, NAMES[plan.method], lesions) if outcomes else None
    card, files = _card(plan, settings, modality, lesions, final.writer, learned, judged)
    files[NEIGHBOURS] = _neighbourhood(final, learned).file()
    card = card.model_copy(update={"evaluations": evaluations})
    processes.wait()  # nobody reads or writes the work folder any more
    if processes.is_main():
        write_bundle(plan.output, card, {**files, "README.md": model_readme(card).encode()})
        shutil.rmtree(study.work, ignore_errors=True)
    processes.wait()
    return read_bundle(plan.output.absolute())  # a bare name would find the shipped model of that name


def continued(name_or_folder: str | Path) -> Bundle:
    """A bundle whose adapter training can go on from.

    Raises:
        RadllmError: no such model, or it has no adapter.
    """
    bundle = read_bundle(name_or_folder)
    if not bundle.card.adapter:
        raise RadllmError(
            f"The model {bundle.card.name} has a frozen language model and no adapter to continue: "
            "train a new model on the table, or adapt one with a LoRA adapter."
        )
    return bundle


def inherited(bundle: Bundle) -> dict[str, Any]:
    """The training options that a model which continues this one cannot choose."""
    adapter = bundle.card.adapter
    shape = {"rank": adapter.rank, "alpha": adapter.alpha} if adapter else {}
    return {"style": bundle.card.style, **shape}


def method_of(bundle: Bundle) -> str:
    """The bundle's method by the name of `methods.METHODS`."""
    return next(name for name, words in NAMES.items() if words == bundle.card.method)


def _check_method(plan: TrainingPlan) -> None:
    if plan.method not in METHODS:
        raise RadllmError(f"There is no method '{plan.method[:40]}': use one of {', '.join(METHODS)}.")


def _check_patients(study: Study, plan: TrainingPlan) -> None:
    """Whether every part that an adapter learns from can keep patients apart: known now, not after the first fold."""
    if not of_method(plan.method).trained:
        return
    everybody = np.arange(len(study.lesions))
    parts = [rows for rows, _ in study.parts(plan.options.seed)] if plan.options.folds else [everybody]
    for rows in parts:
        split_by_patient(study.lesions.take(rows), plan.options.validation, plan.options.seed)


def _study(plan: TrainingPlan, lesions: Lesions, modality: str) -> Study:
    return Study(
        lesions=lesions,
        modality=modality,
        base=plan.base,
        options=plan.options,
        work=plan.output.with_name(plan.output.name + ".training"),
        folds=plan.options.folds,
        seeds=(plan.options.seed,),
        start=_start(plan.origin) if plan.origin else None,
    )


def _start(bundle: Bundle) -> Start:
    return Start(load_file(bundle.folder / ADAPTER), tuple(row.feature for row in bundle.card.features))


def _cross_validate(study: Study, plan: TrainingPlan, report: Report) -> list[Outcome]:
    if not plan.options.folds:
        return []
    baselines = [same_features()]
    if study.lesions.features:
        baselines.append(classical("logistic regression (L2)", select=False))
    return evaluate(study, [of_method(plan.method), *baselines], report)


def usual_epochs(outcomes: list[Outcome]) -> int | None:
    epochs = [int(outcome.chosen["epochs"]) for outcome in outcomes if "epochs" in outcome.chosen]
    return round(float(np.median(epochs))) if epochs else None


def _summed_up(path: Path) -> EvaluationSummary:
    try:
        scorecard = Scorecard.model_validate(read_json(path))
    except ValidationError as error:
        raise RadllmError(f"{path.name} is no evaluation of this radllm: give the evaluation.json it wrote.") from error
    models = sorted(scorecard.models, key=lambda one: -one.auc.value)
    return EvaluationSummary(
        command=scorecard.command,
        table_sha256=scorecard.table_sha256,
        best_baseline=scorecard.best_baseline,
        trials=[Trial(model=one.model, auc=one.auc, difference=one.difference) for one in models],
    )


def _settings(plan: TrainingPlan) -> Settings:
    """The settings that the table was extracted with, checked against its provenance."""
    hashes = {row.settings_sha256 for row in plan.table.extractions if row}
    presets = {row.preset for row in plan.table.extractions if row}
    if len(hashes) > 1:
        raise RadllmError(f"{plan.table.name} mixes features of different extraction settings: extract all rows alike.")
    settings = plan.settings
    if settings is None:
        if len(presets) != 1 or presets == {"custom"}:
            raise RadllmError(
                f"{plan.table.name} does not say which preset its features come from: give --settings with the file "
                "or preset they were extracted with."
            )
        settings = load_settings(presets.pop())
    if hashes and settings.sha256 not in hashes:
        raise RadllmError(
            f"The features of {plan.table.name} were not extracted with the settings '{settings.name}' of today: "
            "extract them anew or give the settings they were extracted with."
        )
    return settings


def _modality(plan: TrainingPlan) -> str:
    given = plan.modality or (plan.settings.modality if plan.settings else None)
    known = any(row and row.modality for row in plan.table.extractions)
    return modality_of(plan.table, plan.modality if plan.modality or known else given)


def _lesions(plan: TrainingPlan) -> Lesions:
    """Features that a lesion lacks, or that do not vary, cannot be written into every prompt and are left out."""
    lesions = Lesions.from_table(plan.table, plan.target, plan.group, scale_free=plan.options.scale_free)
    usable = usable_columns(lesions.values)
    names = [name for name, good in zip(lesions.features, usable, strict=True) if good]
    if len(names) < plan.options.features and (plan.table.features or not lesions.descriptors):
        raise RadllmError(
            f"{plan.table.name} has {len(names)} usable features (a number for every lesion, not all the same) and "
            f"{plan.options.features} are wanted: fill in the table or ask for fewer."
        )
    return lesions.with_features(names)


def _card(
    plan: TrainingPlan,
    settings: Settings | None,
    modality: str,
    lesions: Lesions,
    writer: PromptWriter,
    learned: Learned,
    judged: OutOfFold | None,
) -> tuple[ModelCard, dict[str, bytes]]:
    """The card, and the files that it speaks of."""
    files: dict[str, bytes] = {}
    reference = None
    if learned.head:
        reference, content = head_file(learned.head)
        files[reference.file] = content
    if learned.adapter:
        files[ADAPTER] = save(learned.adapter.weights)
    calibration, threshold = Calibration(), 0.5
    if judged:
        calibration = fit_calibration(judged.logits, lesions.labels, lesions.groups)
        probabilities = calibration.probabilities(judged.logits)
        threshold = min(max(youden_threshold(probabilities, lesions.labels), 0.01), 0.99)
        files["out_of_fold.csv"] = judged.csv(lesions, probabilities).encode()
    card = ModelCard(
        name=plan.output.name,
        modality=modality,
        base=BaseReference(name=_base_name(plan.base), sha256=plan.base.sha256),
        method=NAMES[plan.method],
        adapter=AdapterReference(rank=plan.options.rank, alpha=plan.options.alpha) if learned.adapter else None,
        head=reference,
        template_version=TEMPLATE_VERSION,
        style=plan.options.style,
        features=_summaries(writer, lesions),
        descriptors=_descriptor_summaries(lesions),
        spread=Spread.fit(writer.standardise(lesions)) if writer.template.features else None,
        threshold=threshold,
        calibration=calibration,
        conformal=ConformalReference.from_scores(probabilities, lesions.labels) if judged else None,
        settings_name=settings.name if settings else None,
        settings=settings.to_dict() if settings else None,
        training=_summary(plan, lesions, learned),
        performance=performances(judged, lesions) if judged else [],
        subgroups=subgroups(judged, lesions, plan.by) if judged and plan.by else [],
        calibration_check=calibration_check(judged, lesions) if judged else None,
        files={},
    )
    return card, files


def _neighbourhood(final: Fold, learned: Learned) -> Neighbourhood:
    """Where the model that reads the prompts puts the training lesions."""
    states, _ = final.enhanced(final.options) if learned.adapter else final.frozen(final.options)
    return Neighbourhood.fit(states, final.inside.labels, pooling_of(learned.head))


def _summaries(writer: PromptWriter, lesions: Lesions) -> list[FeatureSummary]:
    names = writer.template.features
    columns = lesions.columns(names)
    quantiles = np.quantile(columns, np.linspace(0, 1, QUANTILES), axis=0)
    return [
        FeatureSummary(
            feature=name,
            mean=mean,
            deviation=deviation,
            quantiles=tuple(own),
            by_class=ClassQuantiles.fit(values, lesions.labels),
        )
        for name, mean, deviation, own, values in zip(
            names, writer.mean.tolist(), writer.deviation.tolist(), quantiles.T.tolist(), columns.T, strict=True
        )
    ]


def _descriptor_summaries(lesions: Lesions) -> list[DescriptorSummary]:
    return [
        DescriptorSummary(descriptor=name, counts=dict(sorted(Counter(column.tolist()).items())))
        for name, column in zip(lesions.descriptors, lesions.categories.T, strict=True)
    ]


def _summary(plan: TrainingPlan, lesions: Lesions, learned: Learned) -> TrainingSummary:
    extractions = [row for row in plan.table.extractions if row]
    hashes = [lesion_hash(row) for row in extractions]
    origin = plan.origin.card if plan.origin else None
    return TrainingSummary(
        description=plan.description,
        command=_command(plan),
        origin=_origin(plan.origin) if plan.origin else None,
        table_sha256=sha256_of(plan.table_path),
        lesions=len(lesions),
        malignant=int(lesions.labels.sum()),
        patients=len(set(lesions.groups)),
        fewest_voxels=min((row.geometry.voxels for row in extractions), default=None),
        spacing=_spacing(extractions),
        # What an adapted model learned from before is no new lesion to it.
        lesion_hashes=list(dict.fromkeys([*hashes, *(origin.training.lesion_hashes if origin else [])])),
        options=plan.options.model_dump(),
        epochs=learned.adapter.kept_epoch if learned.adapter else 0,
        versions=versions_used(),
        hardware=hardware(),
    )


def _spacing(extractions: Sequence[Extraction]) -> tuple[float, float] | None:
    known = [size for row in extractions if row.geometry.spacing_known for size in row.geometry.spacing[:2]]
    return (min(known), max(known)) if known else None


def _origin(bundle: Bundle) -> Origin:
    training = bundle.card.training
    return Origin(
        name=bundle.card.name, sha256=bundle.sha256, lesions=training.lesions, description=training.description
    )


def _command(plan: TrainingPlan) -> str:
    """The command line that repeats this training, without the user's folders."""
    start = ["adapt", plan.origin.card.name] if plan.origin else ["train"]
    words = ["radllm", *start, plan.table_path.name, "--target", plan.target, "--group", plan.group]
    words += _changed_options(plan)
    base = _base_name(plan.base)
    given = {
        "--method": plan.method if plan.method != DEFAULT_METHOD and not plan.origin else None,
        "--by": plan.by,
        "--settings": plan.settings.name if plan.settings else None,
        "--modality": plan.modality,
        "--base-model": base if base != DEFAULT_BASE else None,
        "--description": plan.description,
    }
    words += [word for flag, value in given.items() if value for word in (flag, value)]
    words += ["--four-bit"] * plan.base.four_bit
    for path in plan.evaluations:
        words += ["--evaluation", f"{path.parent.name}/{path.name}"]
    return shlex.join([*words, "-o", plan.output.name])


def _changed_options(plan: TrainingPlan) -> list[str]:
    """The training options that are neither as usual nor those of the model that is continued."""
    usual = {**TrainingOptions().model_dump(), **(inherited(plan.origin) if plan.origin else {})}
    words = []
    for name, value in plan.options.model_dump().items():
        if value != usual[name]:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return words


def _base_name(base: BaseModelFolder) -> str:
    """A folder of the user's goes into the card by its last name only."""
    return base.folder.name if base.origin == "folder" else base.name
