"""The model bundle on disk: one folder of JSON, safetensors, CSV and Markdown, every file hashed. Read without torch.

A fused model with trees or support vectors also has a file in the format of skops, which runs no code when it is read.

``model.json`` describes everything and lists the SHA-256 of every other file; its own SHA-256 is the model's identity.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.files import (
    CODE_SUFFIXES,
    PICKLE_SUFFIXES,
    check_safetensors,
    read_json,
    sha256_of,
    whole_folder,
)
from radllm_backend.language.prompt import QUANTILES, TEMPLATE_VERSION, PromptStyle, PromptTemplate
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.conformal import ConformalReference
from radllm_backend.models.heads import HeadReference
from radllm_backend.models.reference import NEIGHBOURS, ClassQuantiles, Spread
from radllm_backend.models.shipped import CARD, SHIPPED, shipped_models
from radllm_backend.records import MODEL_NAME, SHA256, CalibrationBin, Estimate, ModelName, Record

BUNDLE_VERSION: Final = 4
READABLE_VERSIONS = (1, 2, 3, BUNDLE_VERSION)
"""Version 1 was always a LoRA head that reads features, without a conformal reference; version 2 keeps nothing of its
training lesions but quantiles of each feature; up to version 3 every model reads all layers of its base model."""
ADAPTER = "adapter.safetensors"

_SUFFIXES = {".json", ".safetensors", ".skops", ".csv", ".md"}


class BaseReference(Record):
    """The base model that the adapter changes."""

    name: str
    sha256: SHA256


class AdapterReference(Record):
    """Size of the LoRA adapter."""

    rank: int = Field(ge=1, le=1024)
    alpha: int = Field(ge=1)


class FeatureSummary(Record):
    """One feature of the prompt among the training lesions."""

    feature: str
    mean: float
    deviation: float = Field(gt=0)
    quantiles: tuple[float, ...] = Field(min_length=QUANTILES, max_length=QUANTILES)
    by_class: ClassQuantiles | None = None


class DescriptorSummary(Record):
    """One of the radiologist's descriptors among the training lesions."""

    descriptor: str
    counts: dict[str, int]
    """How many lesions have each value; the empty one is not given."""


class Performance(Record):
    """Area under the ROC curve of out-of-fold scores, with its 95% interval."""

    model: str
    auc: float
    auc_interval: tuple[float, float]
    difference: float | None = None
    """AUC minus that of the model in the bundle, on the same lesions; None for that model itself."""
    difference_interval: tuple[float, float] | None = None


class Subgroup(Record):
    """The performance in a part of the training lesions: out-of-fold scores of models that learned from all of them."""

    name: str
    lesions: int
    malignant: int
    performance: list[Performance]


class CalibrationCheck(Record):
    """What calibration does to out-of-fold scores, each lesion judged by a calibration fitted without its patient."""

    ece_before: Estimate
    """Expected calibration error of the scores as they come out of the model."""
    ece_after: Estimate
    brier_before: Estimate
    brier_after: Estimate
    curve: list[CalibrationBin]
    """After calibration."""


class Trial(Record):
    """One model of an evaluation on the same lesions that the training looked at."""

    model: str
    auc: Estimate
    difference: Estimate | None
    """AUC minus the best classical baseline's; None for that baseline."""


class EvaluationSummary(Record):
    """An evaluation (``radllm evaluate``) on the lesions of the training table: what else was tried."""

    command: str
    table_sha256: SHA256
    best_baseline: str
    depths: list[int] = Field([])
    """How many layers of the language model its inner folds chose from; none in earlier versions: it read the last."""
    trials: list[Trial]


class Origin(Record):
    """The model that this one continues."""

    name: str
    sha256: SHA256
    lesions: int
    description: str


class TrainingSummary(Record):
    """What the model was trained on, in numbers; no identifier of a lesion or a patient."""

    description: str
    """One sentence for people: what lesions these are, where they come from, under which licence."""
    command: str
    """What repeats the training."""
    origin: Origin | None = None
    """The model that was adapted; None where training started from the base model."""
    table_sha256: SHA256
    lesions: int
    malignant: int
    patients: int
    fewest_voxels: int | None
    """Size of the smallest training lesion; None where the table does not say."""
    spacing: tuple[float, float] | None = None
    """Smallest and largest in-plane pixel spacing of the training lesions in mm; None where no image has one."""
    lesion_hashes: list[str]
    """Content hash of each training lesion (image and mask), to recognise one that comes back."""
    options: dict[str, Any]
    epochs: int
    versions: dict[str, str]
    hardware: str


class ModelCard(Record):
    """The content of ``model.json``."""

    schema_version: Literal[1, 2, 3, 4] = BUNDLE_VERSION
    name: ModelName
    modality: Literal["MG", "US", "CT", "MR"]
    base: BaseReference
    layers: int | None = Field(None, ge=1, strict=True)
    """How many of the base model's layers are read, from the first on; None for all of them."""
    method: str = Field("LoRA head", max_length=80)
    """What turns prompts into a score, in words."""
    adapter: AdapterReference | None
    """None where the base model is frozen."""
    head: HeadReference | None = None
    """What reads the hidden states, with the features beside them; None for the adapter's own linear head."""
    template_version: int
    style: PromptStyle = "numbers"
    features: list[FeatureSummary]
    """In the order of the prompt."""
    descriptors: list[DescriptorSummary] = Field([])
    """In the order of the prompt, after the features."""
    spread: Spread | None = None
    """Of the features; None for a model without them."""
    threshold: float = Field(gt=0, lt=1)
    """Calibrated probability from which a lesion is called likely malignant."""
    calibration: Calibration
    conformal: ConformalReference | None = None
    """What the uncertain band is made from; None where the model was not cross-validated, or by an older radllm."""
    settings_name: str | None
    """None for a model that reads descriptors only."""
    settings: dict[str, Any] | None
    training: TrainingSummary
    performance: list[Performance]
    """Out-of-fold; the model itself first, then the baselines. Empty where it was not cross-validated."""
    subgroups: list[Subgroup] = Field([])
    calibration_check: CalibrationCheck | None = None
    evaluations: list[EvaluationSummary] = Field([])
    files: dict[str, SHA256]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.adapter is None and self.head is None:
            raise ValueError("neither an adapter nor a head")
        if self.adapter is not None and self.layers is not None:
            raise ValueError("an adapter, which belongs to all layers, and fewer layers")
        if self.schema_version < BUNDLE_VERSION and self.layers is not None:
            raise ValueError("an earlier version, which always reads all layers, and fewer layers")
        if bool(self.features) != (self.settings is not None and self.settings_name is not None):
            raise ValueError("features without their extraction settings, or settings without features")
        return self

    def template(self) -> PromptTemplate:
        """The prompt of this model."""
        return PromptTemplate(
            self.modality,
            tuple(summary.feature for summary in self.features),
            tuple(summary.descriptor for summary in self.descriptors),
            self.style,
            tuple(map(_standardised_quantiles, self.features)) if self.style == "findings" else (),
        )

    def extraction_settings(self) -> Settings | None:
        """The settings its features were extracted with; None where it reads descriptors only."""
        if self.settings is None or self.settings_name is None:
            return None
        return Settings.from_dict(self.settings, self.settings_name)

    @property
    def knows_neighbours(self) -> bool:
        """Whether the bundle says where each training lesion lies."""
        return NEIGHBOURS in self.files

    def parts(self) -> list[str]:
        """The files that hold its numbers."""
        return [*([ADAPTER] if self.adapter else []), *([self.head.file] if self.head else [])]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    card: ModelCard
    sha256: str


def find_bundle(name_or_folder: str | Path) -> Path:
    """The folder of a shipped model or of the user's own; RadllmError where there is none."""
    text = str(name_or_folder)
    if text in shipped_models():
        return SHIPPED / text
    folder = Path(text)
    if not folder.is_dir():
        known = ", ".join(shipped_models()) or "none"
        raise RadllmError(f"There is no model '{text}': give the folder of a trained model or a shipped one ({known}).")
    if not (folder / CARD).is_file():
        raise RadllmError(f"The folder {folder.name} is not a model: it has no {CARD}.")
    return folder


def read_bundle(name_or_folder: str | Path) -> Bundle:
    """Read and verify a bundle: known schema, no file that is not listed, every listed file with its hash.

    Raises:
        RadllmError: the first thing that is wrong. Nothing of a refused bundle is loaded.
    """
    folder = find_bundle(name_or_folder)
    _refuse_strangers(folder)
    content = read_json(folder / CARD)
    if content.get("schema_version") not in READABLE_VERSIONS:
        raise RadllmError(
            f"The model {folder.name} has the schema version {str(content.get('schema_version'))[:20]} and this "
            f"radllm reads {' and '.join(map(str, READABLE_VERSIONS))}: update radllm, or train the model anew."
        )
    if content["schema_version"] == BUNDLE_VERSION and "layers" not in content:  # all of them would be another model
        raise RadllmError(f"The {CARD} of the model {folder.name} is malformed (layers): get the model anew.")
    card = _parse(content, folder)
    _check_files(folder, card)
    if card.template_version != TEMPLATE_VERSION:
        raise RadllmError(
            f"The model {folder.name} reads version {card.template_version} of the prompt and this radllm writes "
            f"version {TEMPLATE_VERSION}: use the radllm it was trained with, or train it anew."
        )
    card.template()
    card.extraction_settings()
    return Bundle(folder, card, sha256_of(folder / CARD))


def write_bundle(folder: Path, card: ModelCard, files: dict[str, bytes]) -> Bundle:
    """Write a bundle, whole or not at all. The card's own `files` are filled in.

    Raises:
        RadllmError: the folder exists already and is not an empty one, cannot be written, or has no model's name.
    """
    refuse_name(folder)
    refuse_existing(folder)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    card = card.model_copy(update={"files": hashes})
    text = json.dumps(card.model_dump(mode="json"), indent=1) + "\n"
    try:
        with whole_folder(folder) as partial:
            for name, content in {**files, CARD: text.encode()}.items():
                (partial / name).write_bytes(content)
    except OSError as error:
        raise RadllmError(
            f"The model cannot be written to {folder} ({error.strerror}): choose another folder."
        ) from error
    return read_bundle(folder.absolute())  # a bare name could be a shipped model's


def refuse_name(folder: Path) -> None:
    """RadllmError where the folder's name, which a model gets, is none that cards, servers and addresses take."""
    if not re.fullmatch(MODEL_NAME, folder.name):
        raise RadllmError(
            f"A model cannot be named '{folder.name}', as its folder would be: name the folder with at most 64 of the "
            "letters A to Z and a to z, digits, dots, hyphens and underscores, a letter or a digit first."
        )


def refuse_existing(folder: Path) -> None:
    """RadllmError where a model would be written over something: only a new or an empty folder will do."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RadllmError(f"{folder} exists already: choose another folder for the model, or remove it first.")


def _refuse_strangers(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLE_SUFFIXES | CODE_SUFFIXES:
            raise RadllmError(
                f"The model {folder.name} holds {path.name}, a kind of file that can run code: do not use this model."
            )
        # No JSON but the card: no configuration of some other library's adapter or model.
        is_stranger = path.suffix not in _SUFFIXES or (path.suffix == ".json" and path.name != CARD)
        if path.is_symlink() or not path.is_file() or is_stranger:
            raise RadllmError(
                f"The model {folder.name} holds {path.name}, which is no part of a model: remove it or do not use it."
            )


def _parse(content: dict[str, Any], folder: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or first["msg"].removeprefix("Value error, ")
        raise RadllmError(
            f"The {CARD} of the model {folder.name} is malformed ({where}): get the model anew."
        ) from error
    except ValueError as error:
        raise RadllmError(f"The {CARD} of the model {folder.name} is malformed: get the model anew.") from error


def _check_files(folder: Path, card: ModelCard) -> None:
    present = {path.name for path in folder.iterdir()} - {CARD}
    for name in sorted(present ^ card.files.keys()):
        problem = "lacks" if name in card.files else "holds the unlisted file"
        raise RadllmError(f"The model {folder.name} {problem} {name[:80]}: get the model anew.")
    for name in card.parts():
        if name not in card.files:
            raise RadllmError(f"The model {folder.name} lists no {name}: get the model anew.")
    for name, expected in card.files.items():
        if sha256_of(folder / name) != expected:
            raise RadllmError(f"The file {name} of the model {folder.name} was changed or damaged: get the model anew.")
    for name in card.files:
        if name.endswith(".safetensors"):
            check_safetensors(folder / name)


def _standardised_quantiles(summary: FeatureSummary) -> tuple[float, ...]:
    return tuple((value - summary.mean) / summary.deviation for value in summary.quantiles)
