"""The model bundle on disk: one folder of JSON, safetensors, CSV and Markdown, every file hashed. Read without torch.

``model.json`` describes everything and lists the SHA-256 of every other file; its own SHA-256 is the model's identity.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from radllm_backend.calibration import Calibration
from radllm_backend.errors import RadllmError
from radllm_backend.extraction import Settings
from radllm_backend.features import SHA256, Record
from radllm_backend.prompt import TEMPLATE_VERSION, PromptTemplate
from radllm_backend.safe_files import CODE_SUFFIXES, PICKLE_SUFFIXES, check_safetensors, read_json, sha256_of

SCHEMA_VERSION = 1
CARD = "model.json"
ADAPTER = "adapter.safetensors"
QUANTILES = 101
"""Training quantiles kept of each feature: the 0th to the 100th percentile."""

_SHIPPED = Path(__file__).parent / "classifiers"
_SUFFIXES = {".json", ".safetensors", ".csv", ".md"}


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


class Performance(Record):
    """Area under the ROC curve of out-of-fold scores, with its 95% interval."""

    model: str
    auc: float
    auc_interval: tuple[float, float]
    difference: float | None = None
    """AUC minus the LoRA head's, on the same lesions; None for the LoRA head itself."""
    difference_interval: tuple[float, float] | None = None


class TrainingSummary(Record):
    """What the model was trained on, in numbers; no identifier of a lesion or a patient."""

    description: str
    """One sentence for people: what lesions these are, where they come from, under which licence."""
    command: str
    """What repeats the training."""
    table_sha256: SHA256
    lesions: int
    malignant: int
    patients: int
    fewest_voxels: int | None
    """Size of the smallest training lesion; None where the table does not say."""
    lesion_hashes: list[str]
    """Content hash of each training lesion (image and mask), to recognise one that comes back."""
    options: dict[str, Any]
    epochs: int
    versions: dict[str, str]
    hardware: str


class ModelCard(Record):
    """The content of ``model.json``."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    modality: Literal["MG", "US", "CT", "MR"]
    base: BaseReference
    adapter: AdapterReference
    template_version: int
    features: list[FeatureSummary] = Field(min_length=1)
    """In the order of the prompt."""
    threshold: float = Field(gt=0, lt=1)
    """Calibrated probability from which a lesion is called likely malignant."""
    calibration: Calibration
    settings_name: str
    settings: dict[str, Any]
    training: TrainingSummary
    performance: list[Performance]
    """Out-of-fold; the LoRA head first, then the baselines. Empty where the model was not cross-validated."""
    files: dict[str, SHA256]

    def template(self) -> PromptTemplate:
        """The prompt of this model."""
        return PromptTemplate(self.modality, tuple(summary.feature for summary in self.features))

    def extraction_settings(self) -> Settings:
        """The settings its features were extracted with."""
        return Settings.from_dict(self.settings, self.settings_name)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    card: ModelCard
    sha256: str


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def find_bundle(name_or_folder: str | Path) -> Path:
    """The folder of a shipped model or of the user's own; RadllmError where there is none."""
    text = str(name_or_folder)
    if text in shipped_models():
        return _SHIPPED / text
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
    if content.get("schema_version") != SCHEMA_VERSION:
        raise RadllmError(
            f"The model {folder.name} has the schema version {str(content.get('schema_version'))[:20]} and this "
            f"radllm reads {SCHEMA_VERSION}: update radllm, or train the model anew."
        )
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
        RadllmError: the folder exists already and is not an empty one, or cannot be written.
    """
    refuse_existing(folder)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    card = card.model_copy(update={"files": hashes})
    text = json.dumps(card.model_dump(mode="json"), indent=1) + "\n"
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        for name, content in {**files, CARD: text.encode()}.items():
            (partial / name).write_bytes(content)
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    except OSError as error:
        raise RadllmError(
            f"The model cannot be written to {folder} ({error.strerror}): choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(folder)


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
        if path.is_symlink() or not path.is_file() or path.suffix not in _SUFFIXES:
            raise RadllmError(
                f"The model {folder.name} holds {path.name}, which is no part of a model: remove it or do not use it."
            )


def _parse(content: dict[str, Any], folder: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json(json.dumps(content))
    except (ValidationError, ValueError) as error:
        where = ""
        if isinstance(error, ValidationError):
            where = " (" + ".".join(str(part) for part in error.errors()[0]["loc"]) + ")"
        raise RadllmError(f"The {CARD} of the model {folder.name} is malformed{where}: get the model anew.") from error


def _check_files(folder: Path, card: ModelCard) -> None:
    present = {path.name for path in folder.iterdir()} - {CARD}
    for name in sorted(present ^ card.files.keys()):
        problem = "lacks" if name in card.files else "holds the unlisted file"
        raise RadllmError(f"The model {folder.name} {problem} {name[:80]}: get the model anew.")
    if ADAPTER not in card.files:
        raise RadllmError(f"The model {folder.name} lists no {ADAPTER}: get the model anew.")
    for name, expected in card.files.items():
        if sha256_of(folder / name) != expected:
            raise RadllmError(f"The file {name} of the model {folder.name} was changed or damaged: get the model anew.")
    check_safetensors(folder / ADAPTER)
