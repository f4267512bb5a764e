"""From a table of lesions to a model bundle: cross-validate, fit on everything, and write it with its card."""

from __future__ import annotations

import shutil

import numpy as np
from safetensors.torch import load_file

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.features.extraction import Settings, load_settings
from radllm_backend.features.selection import usable_columns
from radllm_backend.features.table import modality_of
from radllm_backend.language import distributed
from radllm_backend.learning.card import card_of, evaluation_of
from radllm_backend.learning.compared_models import NAMES, classical, of_method, same_features
from radllm_backend.learning.fit import Start
from radllm_backend.learning.methods import METHODS, Learned
from radllm_backend.learning.performance import OutOfFold
from radllm_backend.learning.plan import TrainingPlan
from radllm_backend.learning.provenance import make_work_folder
from radllm_backend.learning.scorecard import Outcome
from radllm_backend.learning.study import Fold, Study, evaluate_models
from radllm_backend.models.bundle import ADAPTER, Bundle, read_bundle, refuse_existing, write_bundle
from radllm_backend.models.heads import pooling_of
from radllm_backend.models.readme import model_readme
from radllm_backend.models.reference import NEIGHBOURS, Neighbourhood
from radllm_backend.records import Progress


def train(plan: TrainingPlan, progress: Progress) -> Bundle:
    """Train a model on a table and write its bundle.

    A work folder beside the output keeps finished folds and the state after each epoch: the same call after a crash
    goes on from there. It is removed at the end.

    Raises:
        RadllmError: the output exists, the table is unfit, or too few lesions of a class.
    """
    if distributed.is_main():
        refuse_existing(plan.output)  # before the hours rather than after them
    distributed.wait()
    _check_method(plan)
    modality = _modality(plan)
    lesions = _lesions(plan)
    settings = _settings(plan) if lesions.features else None
    evaluations = [evaluation_of(path) for path in plan.evaluations]
    study = _study(plan, lesions, modality)
    _check_patients(study, plan)
    make_work_folder(study.work)
    share = 1 / (plan.options.folds + 1)
    outcomes = _cross_validate(study, plan, lambda what, done: progress(what, done * (1 - share)))
    final = Fold(
        study,
        plan.options.seed,
        plan.options.folds,
        (np.arange(len(lesions)), np.arange(0)),
        # What the folds found is used on all lesions; a single small validation part would be a lottery.
        epochs=usual_epochs(outcomes),
        progress=lambda what, done: progress(f"final model, {what}", 1 - share + done * share),
    )
    learned = METHODS[plan.method](final)
    judged = OutOfFold.pooled(outcomes, NAMES[plan.method], lesions) if outcomes else None
    card, files = card_of(plan, settings, modality, lesions, final.writer, learned, judged)
    files[NEIGHBOURS] = _neighbourhood(final, learned).file()
    card = card.model_copy(update={"evaluations": evaluations})
    distributed.wait()  # nobody reads or writes the work folder any more
    if distributed.is_main():
        write_bundle(plan.output, card, {**files, "README.md": model_readme(card).encode()})
        shutil.rmtree(study.work, ignore_errors=True)
    distributed.wait()
    return read_bundle(plan.output.absolute())  # a bare name would find the shipped model of that name


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


def _cross_validate(study: Study, plan: TrainingPlan, progress: Progress) -> list[Outcome]:
    if not plan.options.folds:
        return []
    baselines = [same_features()]
    if plan.method == "fusion-averaged":
        baselines.append(same_features(averaged=True))
    if study.lesions.features:
        baselines.append(classical("logistic regression (L2)", select=False))
    return evaluate_models(study, [of_method(plan.method), *baselines], progress)


def usual_epochs(outcomes: list[Outcome]) -> int | None:
    epochs = [int(outcome.chosen["epochs"]) for outcome in outcomes if "epochs" in outcome.chosen]
    return round(float(np.median(epochs))) if epochs else None


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


def _neighbourhood(final: Fold, learned: Learned) -> Neighbourhood:
    """Where the model that reads the prompts puts the training lesions."""
    states, _ = final.enhanced(final.options) if learned.adapter else final.frozen(final.options)
    return Neighbourhood.fit(states, final.inside.labels, pooling_of(learned.head))
