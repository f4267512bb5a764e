"""From hidden states and features to one log-odds: the fused models that a bundle can hold, as data without code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray
from radllm_backend.language.prompt import Pooling, Readout
from radllm_backend.models.calibration import Calibration
from radllm_backend.records import Record

HiddenStates = Mapping[Readout, NDArray[Any]]
"""By where they are read: [lesions × hidden size]."""

NUMBERS = "fusion.safetensors"
"""Coefficients of a linear head or of a weighted mean."""
ESTIMATOR = "fusion.skops"
"""A fitted scikit-learn pipeline in the format of skops, which rebuilds objects of known types and runs nothing."""
TRUSTED_TYPES = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "sklearn.tree._tree.Tree",
)
"""Besides scikit-learn's own, numpy's and plain containers: skops refuses a file that holds anything else."""
_SURE = 1e-3  # a vote of all trees or neighbours is not certainty


@dataclass(frozen=True)
class LinearHead:
    """Log-odds as a weighted sum of the standardised features, the indicators of descriptors and the hidden states."""

    readout: Readout
    features: FloatArray
    """Log-odds per unit of each column of the design."""
    embedding: FloatArray
    """Log-odds per unit of each hidden state, [hidden size]."""
    intercept: float

    def logits(self, design: FloatArray, embeddings: HiddenStates) -> FloatArray:
        """Log-odds [lesions] from the design [lesions × columns] and the hidden states."""
        hidden = np.asarray(embeddings[self.readout], dtype=np.float64)
        return design @ self.features + hidden @ self.embedding + self.intercept


@dataclass(frozen=True)
class WeightedMean:
    """The mean of two calibrated probabilities, that of the language model and that of the classical model."""

    weight: float
    """Share of the language model, 0..1."""
    language: LinearHead
    classical: LinearHead
    calibrations: tuple[Calibration, Calibration]
    """Of the language model and of the classical one."""

    def logits(self, design: FloatArray, embeddings: HiddenStates) -> FloatArray:
        """Log-odds [lesions] of the weighted mean."""
        first, second = (
            calibration.probabilities(part.logits(design, embeddings))
            for calibration, part in zip(self.calibrations, (self.language, self.classical), strict=True)
        )
        return weighted_mean(self.weight, first, second)


@dataclass(frozen=True)
class EstimatorHead:
    """A fitted scikit-learn classifier on the features beside the hidden states."""

    kind: str
    """Name of the classifier (`classical.FUSIBLE`)."""
    readout: Readout
    estimator: Any

    def logits(self, design: FloatArray, embeddings: HiddenStates) -> FloatArray:
        """Log-odds-like score [lesions] from the design [lesions × columns] and the hidden states."""
        return log_odds(self.estimator, side_by_side(design, embeddings[self.readout]))


Head = LinearHead | WeightedMean | EstimatorHead


def readout_of(head: Head | None, depth: int) -> Readout:
    """Which hidden state a head reads; the adapter's own linear head reads the last token's of all layers.

    Args:
        depth: how many layers the base model has.
    """
    if head is None:
        return Readout(depth, "last")
    return head.language.readout if isinstance(head, WeightedMean) else head.readout


class HeadReference(Record):
    """The part of a head that stands in the model card; its numbers lie in a file beside it.

    How many layers are read stands in the card itself.
    """

    kind: str = Field(pattern=r"^[A-Za-z ]{1,40}$")
    """``linear``, ``weighted mean``, or the name of a classifier."""
    pooling: Pooling
    weight: float | None = Field(None, ge=0, le=1)
    calibrations: tuple[Calibration, Calibration] | None = None

    @property
    def file(self) -> str:
        """The file that holds its numbers."""
        return NUMBERS if self.kind in (_LINEAR, _WEIGHTED) else ESTIMATOR


_LINEAR, _WEIGHTED = "linear", "weighted mean"


def weighted_mean(weight: float, first: FloatArray, second: FloatArray) -> FloatArray:
    """Log-odds of the weighted mean of two probabilities, which are kept a little away from 0 and 1."""
    mixed = np.clip(weight * first + (1 - weight) * second, 1e-6, 1 - 1e-6)
    return np.log(mixed / (1 - mixed))


def side_by_side(design: FloatArray, hidden: NDArray[Any]) -> FloatArray:
    """Features and hidden states side by side, [lesions × (columns + hidden size)]."""
    return np.hstack([design, np.asarray(hidden, dtype=np.float64)])


def log_odds(estimator: Any, design: FloatArray) -> FloatArray:
    """Score of each lesion: the decision function, or the log-odds of the probability where there is none."""
    if not len(design):
        return np.empty(0)
    if hasattr(estimator, "decision_function"):
        scores: FloatArray = estimator.decision_function(design)
        return scores
    probabilities: FloatArray = np.clip(estimator.predict_proba(design)[:, 1], _SURE, 1 - _SURE)
    return np.log(probabilities / (1 - probabilities))


def head_file(head: Head) -> tuple[HeadReference, bytes]:
    """What a bundle keeps of a head: its part of the card, and the content of the file `HeadReference.file`."""
    if isinstance(head, EstimatorHead):
        import skops.io

        return HeadReference(kind=head.kind, pooling=head.readout.pooling), skops.io.dumps(head.estimator)
    from safetensors.numpy import save

    if isinstance(head, LinearHead):
        return HeadReference(kind=_LINEAR, pooling=head.readout.pooling), save(_tensors(head, ""))
    reference = HeadReference(
        kind=_WEIGHTED, pooling=head.language.readout.pooling, weight=head.weight, calibrations=head.calibrations
    )
    return reference, save({**_tensors(head.language, "language."), **_tensors(head.classical, "classical.")})


def read_head(reference: HeadReference, folder: Path, layers: int, columns: int) -> Head:
    """The head whose file lies in the folder of a bundle.

    Args:
        layers: how many of the base model's layers its hidden states are read from.
        columns: how many the design has.

    Raises:
        RadllmError: the file does not fit the card, or holds anything but numbers and the classifiers it may hold.
    """
    path, readout = folder / reference.file, Readout(layers, reference.pooling)
    try:
        if reference.file == ESTIMATOR:
            return EstimatorHead(reference.kind, readout, _read_estimator(path))
        return _read_numbers(reference, path, readout, columns)
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise RadllmError(f"The file {path.name} does not fit its model card: get the model anew.") from error


def _tensors(head: LinearHead, prefix: str) -> dict[str, NDArray[np.float64]]:
    return {
        f"{prefix}features": np.ascontiguousarray(head.features, dtype=np.float64),
        f"{prefix}embedding": np.ascontiguousarray(head.embedding, dtype=np.float64),
        f"{prefix}intercept": np.array([head.intercept], dtype=np.float64),
    }


def _read_numbers(reference: HeadReference, path: Path, readout: Readout, columns: int) -> LinearHead | WeightedMean:
    from safetensors.numpy import load_file

    tensors = load_file(path)

    def linear(prefix: str) -> LinearHead:
        features, embedding, intercept = (tensors[prefix + name] for name in ("features", "embedding", "intercept"))
        if features.shape != (columns,):
            raise ValueError("other features and descriptors than the card's")
        return LinearHead(readout, features, embedding, float(intercept[0]))

    if reference.kind == _LINEAR:
        return linear("")
    if reference.weight is None or reference.calibrations is None:
        raise ValueError("a weighted mean without its weight")
    return WeightedMean(reference.weight, linear("language."), linear("classical."), reference.calibrations)


def _read_estimator(path: Path) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(path, trusted=list(TRUSTED_TYPES))
    except UntrustedTypesFoundException as error:
        raise RadllmError(f"The file {path.name} holds objects that no model needs: do not use this model.") from error
