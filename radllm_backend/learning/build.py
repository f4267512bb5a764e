"""From a table of lesions to a model: cross-validate, fit on everything, and write it with its card."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.features.selection import usable_columns
from radllm_backend.features.table import FeatureTable, modality_of
from radllm_backend.language import distributed
from radllm_backend.learning.card import card_of, evaluation_of, inherited
from radllm_backend.learning.compared_models import classical, of_method, same_features
from radllm_backend.learning.fit import Start
from radllm_backend.learning.methods import METHODS, method_named
from radllm_backend.learning.options import (
    DEFAULT_BASE,
    DEFAULT_METHOD,
    INHERITED,
    CrossValidation,
    TrainingOptions,
    parse_options,
)
from radllm_backend.learning.performance import OutOfFold, check_descriptor
from radllm_backend.learning.plan import LabelledTable, TrainingPlan, find_base
from radllm_backend.learning.provenance import make_work_folder
from radllm_backend.learning.scorecard import Outcome
from radllm_backend.learning.study import Fold, Study, evaluate_models
from radllm_backend.models.bundle import ADAPTER, Bundle, read_bundle, refuse_existing, refuse_name, write_bundle
from radllm_backend.models.heads import readout_of
from radllm_backend.models.model import Model
from radllm_backend.models.readme import model_readme
from radllm_backend.models.reference import NEIGHBOURS, Neighbourhood
from radllm_backend.records import Progress, say_nothing


def train(
    table: str | Path | FeatureTable,
    target: str,
    group: str,
    output: str | Path,
    *,
    method: str = DEFAULT_METHOD,
    base_model: str | Path = DEFAULT_BASE,
    four_bit: bool = False,
    settings: str | Path | None = None,
    modality: str | None = None,
    description: str = "",
    by: str | None = None,
    evaluations: Iterable[str | Path] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Train a model on a table of lesions, cross-validate it with whole patients held out, and write its folder.

    A folder ``OUTPUT.training`` beside the output keeps finished folds and the state after each epoch: the same call
    after a crash goes on from there. It is removed at the end.

    Args:
        table: what ``radllm extract --manifest`` wrote: the file, or the table that `read_table` read from it.
        target: column that says benign or malignant.
        group: column that names the patient.
        output: new folder for the model.
        method: ``lora``, ``fusion``, ... as of ``radllm train --method`` (`methods.METHODS`).
        base_model: a name of the catalogue, the hub name of one that was pulled, or a folder.
        four_bit: hold the base model in 4 bits a weight (a CUDA GPU and bitsandbytes).
        settings: preset or PyRadiomics file that the table was extracted with, where it does not say it.
        modality: MG, US, CT or MR, where the table does not say it.
        description: one sentence for the card: what lesions these are.
        by: a descriptor; the card then also reports the lesions of each of its values.
        evaluations: ``evaluation.json`` of other trials on these lesions, which the card sums up.
        progress: called with what is happening now, and how much is done (0..1).
        options: `TrainingOptions` by name, as of the flags of ``radllm train``: ``features=4, epochs=2``.

    Returns:
        The model, read back from its folder.

    Raises:
        RadllmError: the output exists or has no model's name, the table is unfit, there are too few lesions of a
            class, the base model is not there, or an option is out of range or unknown.
    """
    base = find_base(base_model, four_bit)
    plan = TrainingPlan(
        labelled=LabelledTable.of(table, target, group, modality),
        base=base,
        options=parse_options(TrainingOptions, options),
        output=Path(output),
        method=method,
        settings=settings,
        description=description,
        by=by,
        evaluations=tuple(map(Path, evaluations)),
    )
    return Model(build_bundle(plan, progress or say_nothing), base_model)


def adapt(
    model: str | Path,
    table: str | Path | FeatureTable,
    target: str,
    group: str,
    output: str | Path,
    *,
    base_model: str | Path | None = None,
    four_bit: bool = False,
    settings: str | Path | None = None,
    modality: str | None = None,
    description: str = "",
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Continue a model on lesions with another set of features: names that it knows stay first, new ones join them.

    Args:
        model: a shipped model's name or a folder; it has an adapter.
        base_model: where the base model is, if not under the name in the model's card.
        options: all but `INHERITED`, which are the model's.

    All else, and what is returned and raised, is as in `train`.
    """
    origin = _continued(model)
    for name in set(options) & set(INHERITED):
        raise RadllmError(f"The option '{name}' is that of the model that is continued: leave it out.")
    named = base_model or origin.card.base.name
    base = find_base(named, four_bit)
    plan = TrainingPlan(
        labelled=LabelledTable.of(table, target, group, modality),
        base=base,
        options=parse_options(TrainingOptions, {**options, **inherited(origin)}),
        output=Path(output),
        method=_method_of(origin),
        settings=settings,
        description=description,
        origin=origin,
    )
    return Model(build_bundle(plan, progress or say_nothing), named)


def build_bundle(plan: TrainingPlan, progress: Progress) -> Bundle:
    """Train a model on a table and write its bundle.

    A work folder beside the output keeps finished folds and the state after each epoch: the same call after a crash
    goes on from there. It is removed at the end.

    Raises:
        RadllmError: the output exists, the table is unfit, or too few lesions of a class.
    """
    if distributed.is_main():
        refuse_name(plan.output)
        refuse_existing(plan.output)  # before the hours rather than after them
    distributed.wait()
    method = method_named(plan.method)
    if method.adapter and plan.options.layers:
        raise RadllmError(f"The method {plan.method} trains an adapter of all layers: leave --layers out.")
    given = load_settings(plan.settings) if plan.settings else None
    modality = _modality(plan.labelled, given)
    lesions = _lesions(plan)
    settings = _settings(plan.labelled.table, given) if lesions.features else None
    if plan.by:
        check_descriptor(lesions, plan.by)
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
    learned = method.learn(final)
    judged = OutOfFold.pooled(outcomes, method.title, lesions) if outcomes else None
    states, _ = final.enhanced(final.options) if learned.adapter else final.frozen(final.options)
    depth = max(one.layers for one in states) if learned.adapter else final.reader.depth
    card, files = card_of(plan, settings, modality, lesions, final.writer, learned, judged, depth)
    # Where the model that reads the prompts puts the training lesions.
    files[NEIGHBOURS] = Neighbourhood.fit(states, lesions.labels, readout_of(learned.head, depth)).file()
    card = card.model_copy(update={"evaluations": evaluations})
    distributed.wait()  # nobody reads or writes the work folder any more
    if distributed.is_main():
        write_bundle(plan.output, card, {**files, "README.md": model_readme(card).encode()})
        shutil.rmtree(study.work, ignore_errors=True)
    distributed.wait()
    return read_bundle(plan.output.absolute())  # a bare name would find the shipped model of that name


def _continued(name_or_folder: str | Path) -> Bundle:
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


def _method_of(bundle: Bundle) -> str:
    """The bundle's method by its name on the command line."""
    return next(name for name, method in METHODS.items() if method.title == bundle.card.method)


def _check_patients(study: Study, plan: TrainingPlan) -> None:
    """Whether every part that an adapter learns from can keep patients apart: known now, not after the first fold."""
    if not method_named(plan.method).adapter:
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
        work=plan.work,
        division=CrossValidation(folds=plan.options.folds or 1),  # none: they are not asked for
        seeds=(plan.options.seed,),
        start=_start(plan.origin) if plan.origin else None,
    )


def _start(bundle: Bundle) -> Start:
    return Start(load_file(bundle.folder / ADAPTER), tuple(row.feature for row in bundle.card.features))


def _cross_validate(study: Study, plan: TrainingPlan, progress: Progress) -> list[Outcome]:
    if not plan.options.folds:
        return []
    baselines = [same_features()]
    if method_named(plan.method).averaged:
        baselines.append(same_features(averaged=True))
    if study.lesions.features:
        baselines.append(classical("logistic regression (L2)", select=False))
    return evaluate_models(study, [of_method(plan.method), *baselines], progress)


def usual_epochs(outcomes: list[Outcome]) -> int | None:
    epochs = [int(outcome.chosen["epochs"]) for outcome in outcomes if "epochs" in outcome.chosen]
    return round(float(np.median(epochs))) if epochs else None


def _settings(table: FeatureTable, settings: Settings | None) -> Settings:
    """The settings that the table was extracted with, checked against its provenance."""
    hashes = {row.settings_sha256 for row in table.extractions if row}
    presets = {row.preset for row in table.extractions if row}
    if len(hashes) > 1:
        raise RadllmError(f"{table.name} mixes features of different extraction settings: extract all rows alike.")
    if settings is None:
        if len(presets) != 1 or presets == {"custom"}:
            raise RadllmError(
                f"{table.name} does not say which preset its features come from: give --settings with the file "
                "or preset they were extracted with."
            )
        settings = load_settings(presets.pop())
    if hashes and settings.sha256 not in hashes:
        raise RadllmError(
            f"The features of {table.name} were not extracted with the settings '{settings.name}' of today: "
            "extract them anew or give the settings they were extracted with."
        )
    return settings


def _modality(labelled: LabelledTable, settings: Settings | None) -> str:
    """As given, as the table's provenance says, or as the given settings say, in this order."""
    known = labelled.given_modality or any(row and row.modality for row in labelled.table.extractions)
    return labelled.modality if known or not settings else modality_of(labelled.table, settings.modality)


def _lesions(plan: TrainingPlan) -> Lesions:
    """Features that a lesion lacks, or that do not vary, cannot be written into every prompt and are left out."""
    table = plan.labelled.table
    lesions = plan.labelled.lesions(scale_free=plan.options.scale_free)
    usable = usable_columns(lesions.values)
    names = [name for name, good in zip(lesions.features, usable, strict=True) if good]
    if len(names) < plan.options.features and (table.features or not lesions.descriptors):
        raise RadllmError(
            f"{table.name} has {len(names)} usable features (a number for every lesion, not all the same) and "
            f"{plan.options.features} are wanted: fill in the table or ask for fewer."
        )
    return lesions.with_features(names)
