"""From a table of lesions to a model bundle: cross-validate, fit on everything, calibrate, write the card."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from safetensors.torch import save

from radllm_backend import __version__
from radllm_backend.base_models import BaseModelFolder
from radllm_backend.bundle import (
    ADAPTER,
    QUANTILES,
    AdapterReference,
    BaseReference,
    Bundle,
    FeatureSummary,
    ModelCard,
    TrainingSummary,
    refuse_existing,
    write_bundle,
)
from radllm_backend.calibration import Calibration, fit_calibration, youden_threshold
from radllm_backend.cautions import lesion_hash
from radllm_backend.cohort import Lesions
from radllm_backend.errors import RadllmError
from radllm_backend.evaluation import LORA, FoldResult, cross_validate, out_of_fold, performances
from radllm_backend.extraction import Settings, load_settings
from radllm_backend.feature_names import depends_on_spacing, display_name
from radllm_backend.feature_table import FeatureTable
from radllm_backend.prediction import RESEARCH_USE_ONLY
from radllm_backend.prompt import TEMPLATE_VERSION
from radllm_backend.safe_files import sha256_of
from radllm_backend.selection import usable_columns
from radllm_backend.training import FittedModel, Report, TrainingOptions, fit

FloatArray = NDArray[np.float64]
DEFAULT_BASE = "smollm2-135m-instruct"
_VERSIONED = ("torch", "transformers", "peft", "scikit-learn", "numpy")


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
    settings: Settings | None = None
    """How the table was extracted; found out from its provenance where it is not given."""
    modality: str | None = None
    description: str = ""


def train(plan: TrainingPlan, report: Report) -> Bundle:
    """Train a model on a table and write its bundle.

    A work folder beside the output keeps finished folds and the state after each epoch: the same call after a crash
    goes on from there. It is removed at the end.

    Raises:
        RadllmError: the output exists, the table is unfit, or too few lesions of a class.
    """
    refuse_existing(plan.output)  # before the hours rather than after them
    settings, modality = _settings(plan), _modality(plan)
    lesions = _lesions(plan)
    work = plan.output.with_name(plan.output.name + ".training")
    results, share = [], 1 / (plan.options.folds + 1)
    _make_folder(work)
    if plan.options.folds:
        results = cross_validate(
            lesions, modality, plan.base, plan.options, work, lambda what, done: report(what, done * (1 - share))
        )
    fitted = fit(
        lesions,
        modality,
        plan.base,
        plan.options,
        work / "final.safetensors",
        lambda what, done: report(f"final model, {what}", 1 - share + done * share),
        # What the folds found is used on all lesions; a single small validation part would be a lottery.
        epochs=round(float(np.median([result.epochs for result in results]))) if results else None,
    )
    card, out_of_fold_csv = _card(plan, settings, modality, lesions, fitted, results)
    files = {ADAPTER: save(fitted.weights), "README.md": model_readme(card).encode()}
    if out_of_fold_csv:
        files["out_of_fold.csv"] = out_of_fold_csv.encode()
    bundle = write_bundle(plan.output, card, files)
    shutil.rmtree(work, ignore_errors=True)
    return bundle


def model_readme(card: ModelCard) -> str:
    """The model card for people, Markdown."""
    environment = Environment(
        loader=PackageLoader("radllm_backend", "reports"), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    template = environment.get_template("model_card.md.jinja")
    return template.render(card=card, display_name=display_name, notice=RESEARCH_USE_ONLY, own=card.performance[:1])


def _make_folder(work: Path) -> None:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(f"The folder {work} cannot be made ({error.strerror}): choose another output.") from error


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
    found = {row.modality for row in plan.table.extractions if row and row.modality}
    if plan.modality:
        found = {plan.modality}
    elif not found and plan.settings and plan.settings.modality:
        found = {plan.settings.modality}
    if len(found) != 1:
        words = f"mixes {', '.join(sorted(found))}" if found else "does not say the modality of its images"
        raise RadllmError(f"{plan.table.name} {words}: give --modality MG, US, CT or MR.")
    return found.pop()


def _lesions(plan: TrainingPlan) -> Lesions:
    table = plan.table
    labels, groups = table.labels(plan.target), np.array(table.column(plan.group))
    keep = usable_columns(table.values)
    if plan.options.scale_free:
        keep &= np.array([not depends_on_spacing(name) for name in table.features])
    names = tuple(name for name, kept in zip(table.features, keep, strict=True) if kept)
    if len(names) < plan.options.features:
        raise RadllmError(
            f"{table.name} has {len(names)} usable features (a number for every lesion, not all the same) and "
            f"{plan.options.features} are wanted: fill in the table or ask for fewer."
        )
    return Lesions(names, table.values[:, keep], labels, groups)


def _card(
    plan: TrainingPlan,
    settings: Settings,
    modality: str,
    lesions: Lesions,
    fitted: FittedModel,
    results: list[FoldResult],
) -> tuple[ModelCard, str]:
    calibration, threshold, performance, out_of_fold_csv = Calibration(), 0.5, [], ""
    if results:
        logits = out_of_fold(results, LORA, len(lesions))
        calibration = fit_calibration(logits, lesions.labels)
        probabilities = np.array([calibration.probability(logit) for logit in logits])
        threshold = min(max(youden_threshold(probabilities, lesions.labels), 0.01), 0.99)
        performance = performances(results, lesions, plan.options.seed)
        out_of_fold_csv = _out_of_fold_csv(results, lesions, logits, probabilities)
    card = ModelCard(
        name=plan.output.name,
        modality=modality,
        base=BaseReference(name=_base_name(plan.base), sha256=plan.base.sha256),
        adapter=AdapterReference(rank=plan.options.rank, alpha=plan.options.alpha),
        template_version=TEMPLATE_VERSION,
        features=_summaries(fitted, lesions),
        threshold=threshold,
        calibration=calibration,
        settings_name=settings.name,
        settings=settings.to_dict(),
        training=_summary(plan, lesions, fitted),
        performance=performance,
        files={},
    )
    return card, out_of_fold_csv


def _summaries(fitted: FittedModel, lesions: Lesions) -> list[FeatureSummary]:
    quantiles = np.quantile(lesions.columns(fitted.template.features), np.linspace(0, 1, QUANTILES), axis=0)
    return [
        FeatureSummary(feature=name, mean=mean, deviation=deviation, quantiles=tuple(column))
        for name, mean, deviation, column in zip(
            fitted.template.features, fitted.mean.tolist(), fitted.deviation.tolist(), quantiles.T.tolist(), strict=True
        )
    ]


def _summary(plan: TrainingPlan, lesions: Lesions, fitted: FittedModel) -> TrainingSummary:
    extractions = [row for row in plan.table.extractions if row]
    return TrainingSummary(
        description=plan.description,
        command=_command(plan),
        table_sha256=sha256_of(plan.table_path),
        lesions=len(lesions),
        malignant=int(lesions.labels.sum()),
        patients=len(set(lesions.groups)),
        fewest_voxels=min((row.geometry.voxels for row in extractions), default=None),
        lesion_hashes=[lesion_hash(row) for row in extractions],
        options=plan.options.model_dump(),
        epochs=fitted.kept_epoch,
        versions={"radllm_backend": __version__, **{name: metadata.version(name) for name in _VERSIONED}},
        hardware=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )


def _command(plan: TrainingPlan) -> str:
    """The command line that repeats this training, without the user's folders."""
    words = ["radllm", "train", plan.table_path.name, "--target", plan.target, "--group", plan.group]
    defaults = TrainingOptions().model_dump()
    for name, value in plan.options.model_dump().items():
        if value != defaults[name]:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    if plan.settings:
        words += ["--settings", plan.settings.name]
    if plan.modality:
        words += ["--modality", plan.modality]
    if _base_name(plan.base) != DEFAULT_BASE:
        words += ["--base-model", _base_name(plan.base)]
    if plan.description:
        words += ["--description", plan.description]
    return shlex.join([*words, "-o", plan.output.name])


def _base_name(base: BaseModelFolder) -> str:
    """A folder of the user's goes into the card by its last name only."""
    return base.folder.name if base.origin == "folder" else base.name


def _out_of_fold_csv(results: list[FoldResult], lesions: Lesions, logits: FloatArray, probabilities: FloatArray) -> str:
    """Fold, label, log-odds and calibrated probability of each training lesion when it was held out; no identifiers."""
    lines = ["fold,label,logit,probability"]
    for number, result in enumerate(results):
        lines += [f"{number},{lesions.labels[row]},{logits[row]:.6f},{probabilities[row]:.6f}" for row in result.rows]
    return "\n".join(lines) + "\n"
