"""The card of a model that was trained just now: what it learned from, how, and how well it does."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.torch import save

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.files import read_json
from radllm_backend.language.prompt import QUANTILES, TEMPLATE_VERSION
from radllm_backend.language.prompt_writer import PromptWriter
from radllm_backend.learning.calibrating import fit_calibration, youden_threshold
from radllm_backend.learning.learned import Learned
from radllm_backend.learning.methods import METHODS
from radllm_backend.learning.options import DEFAULT_BASE, DEFAULT_METHOD, flags_of, positional
from radllm_backend.learning.performance import OutOfFold, calibration_check, performances, subgroups
from radllm_backend.learning.plan import TrainingPlan
from radllm_backend.learning.provenance import hardware, versions_used
from radllm_backend.learning.scorecard import Scorecard
from radllm_backend.models.bundle import (
    ADAPTER,
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
)
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.conformal import ConformalReference
from radllm_backend.models.heads import head_file, readout_of
from radllm_backend.models.reference import ClassQuantiles, Spread
from radllm_backend.records import Extraction, lesion_hash


def card_of(
    plan: TrainingPlan,
    settings: Settings | None,
    modality: str,
    lesions: Lesions,
    writer: PromptWriter,
    learned: Learned,
    judged: OutOfFold | None,
    depth: int,
) -> tuple[ModelCard, dict[str, bytes]]:
    """The card, and the files that it speaks of.

    Args:
        depth: how many layers the base model has.
    """
    files: dict[str, bytes] = {}
    reference = None
    if learned.head:
        reference, content = head_file(learned.head)
        files[reference.file] = content
    layers = readout_of(learned.head, depth).layers
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
        base=BaseReference(name=plan.base.public_name, sha256=plan.base.sha256),
        layers=layers if layers < depth else None,
        method=METHODS[plan.method].title,
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
    extractions = [row for row in plan.labelled.table.extractions if row]
    hashes = [lesion_hash(row) for row in extractions]
    origin = plan.origin.card if plan.origin else None
    return TrainingSummary(
        description=plan.description,
        command=command_of(plan),
        origin=_origin(plan.origin) if plan.origin else None,
        table_sha256=plan.labelled.table.sha256,
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


def evaluation_of(path: Path) -> EvaluationSummary:
    """Another trial's ``evaluation.json``, summed up; RadllmError where it is none."""
    try:
        scorecard = Scorecard.model_validate(read_json(path))
    except ValidationError as error:
        raise RadllmError(f"{path.name} is no evaluation of this radllm: give the evaluation.json it wrote.") from error
    models = sorted(scorecard.models, key=lambda one: -one.auc.value)
    return EvaluationSummary(
        command=scorecard.command,
        table_sha256=scorecard.table_sha256,
        best_baseline=scorecard.best_baseline,
        depths=scorecard.depths,
        trials=[Trial(model=one.model, auc=one.auc, difference=one.difference) for one in models],
    )


def command_of(plan: TrainingPlan) -> str:
    """The command line that repeats this training, without the user's folders.

    It leaves out what is as usual. That a card's command means the card's options is tested for the shipped models: a
    default that changes has to change there too.
    """
    labelled, origin = plan.labelled, plan.origin
    words = ["adapt", positional(origin.card.name)] if origin else ["train"]
    words += [positional(labelled.table.name), "--target", labelled.target, "--group", labelled.group]
    words += flags_of(plan.options, inherited(origin) if origin else {})
    given = {
        "--method": plan.method if plan.method != DEFAULT_METHOD and not origin else None,
        "--by": plan.by,
        "--settings": Path(plan.settings).name if plan.settings else None,
        "--modality": labelled.given_modality,
        "--base-model": plan.base.public_name if _names_base(plan) else None,
        "--description": plan.description,
    }
    words += [word for flag, value in given.items() if value for word in (flag, value)]
    words += ["--four-bit"] * plan.base.four_bit
    for path in plan.evaluations:
        words += ["--evaluation", f"{path.parent.name}/{path.name}"]
    return shlex.join(["radllm", *words, "-o", plan.output.name])


def _names_base(plan: TrainingPlan) -> bool:
    """Whether the command has to say which base model: where it is not the one that the command would take."""
    usual = {DEFAULT_BASE, plan.origin.card.base.name if plan.origin else DEFAULT_BASE}
    return usual != {plan.base.public_name}


def inherited(bundle: Bundle) -> dict[str, Any]:
    """The training options that a model which continues this one cannot choose (`options.INHERITED`)."""
    adapter = bundle.card.adapter
    shape = {"rank": adapter.rank, "alpha": adapter.alpha} if adapter else {}
    return {"style": bundle.card.style, "layers": bundle.card.layers, **shape}
