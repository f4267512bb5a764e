"""What a bundle keeps of its training lesions, to say how a new one lies among them: numbers, and no identifier."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray
from radllm_backend.language.prompt import Readout
from radllm_backend.models.heads import HiddenStates
from radllm_backend.models.prediction import Neighbour, Typicality
from radllm_backend.records import Record

NEIGHBOURS = "neighbours.safetensors"
"""Enhanced features of the training lesions, reduced to principal components, with their labels."""
SHOWN = 5
"""Nearest training lesions of a prediction."""
CLASS_QUANTILES = 21
"""Kept of a feature in either class: the 0th, 5th ... 100th percentile."""
DISTANCES = 101
_COMPONENTS = 16
_LABELS = ("benign", "malignant")
_TENSORS = ("mean", "components", "places", "labels")


class ClassQuantiles(Record):
    """A feature's values among the training lesions of either class, from the smallest to the largest."""

    benign: tuple[float, ...] = Field(min_length=CLASS_QUANTILES, max_length=CLASS_QUANTILES)
    malignant: tuple[float, ...] = Field(min_length=CLASS_QUANTILES, max_length=CLASS_QUANTILES)

    @classmethod
    def fit(cls, values: FloatArray, labels: NDArray[np.int_]) -> ClassQuantiles:
        """Of one feature's values [lesions]."""
        shares = np.linspace(0, 1, CLASS_QUANTILES)
        benign, malignant = (tuple(np.quantile(values[labels == label], shares).tolist()) for label in (0, 1))
        return cls(benign=benign, malignant=malignant)


class Spread(Record):
    """How the training lesions scatter around their middle, all features together."""

    precision: list[list[float]]
    """Inverse covariance of the standardised features, [features × features], shrunk so that it can be inverted."""
    distances: tuple[float, ...] = Field(min_length=DISTANCES, max_length=DISTANCES)
    """Quantiles of the training lesions' own distances."""

    @classmethod
    def fit(cls, standardised: FloatArray) -> Spread:
        """Mahalanobis distances (Proc. Natl. Inst. Sci. India 2 (1936) 49) under the covariance of Ledoit and Wolf
        (J. Multivariate Anal. 88 (2004) 365).

        Args:
            standardised: [lesions × features], with a mean of 0.
        """
        from sklearn.covariance import LedoitWolf

        precision = LedoitWolf(assume_centered=True).fit(standardised).precision_
        distances = _mahalanobis(standardised, precision)
        quantiles = np.quantile(distances, np.linspace(0, 1, DISTANCES)).tolist()
        return cls(precision=precision.tolist(), distances=tuple(quantiles))

    def typicality(self, standardised: list[float]) -> Typicality:
        """Of one lesion."""
        distance = float(_mahalanobis(np.array([standardised]), np.array(self.precision))[0])
        nearer = bisect_left(self.distances, distance)
        return Typicality(distance=distance, percentile=min(100.0, 100 * nearer / (DISTANCES - 1)))


def _mahalanobis(standardised: FloatArray, precision: FloatArray) -> FloatArray:
    squared: FloatArray = np.einsum("nf,fg,ng->n", standardised, precision, standardised)
    return np.sqrt(squared)


@dataclass(frozen=True)
class Neighbourhood:
    """The training lesions as the language model reads them."""

    readout: Readout
    mean: NDArray[np.float32]
    """Of the hidden states, [hidden size]."""
    components: NDArray[np.float32]
    """[components × hidden size]"""
    places: NDArray[np.float32]
    """[lesions × components]"""
    labels: NDArray[np.uint8]
    """[lesions]; 0 benign, 1 malignant."""
    unit: float
    """Median distance of a training lesion from its nearest neighbour."""

    @classmethod
    def fit(cls, states: HiddenStates, labels: NDArray[np.int_], readout: Readout) -> Neighbourhood:
        """
        Args:
            states: hidden states of the training lesions.
            readout: which of them.
        """
        from sklearn.decomposition import PCA

        hidden = np.asarray(states[readout], dtype=np.float64)
        reduction = PCA(min(_COMPONENTS, *hidden.shape), svd_solver="full").fit(hidden)
        mean, components = reduction.mean_.astype(np.float32), reduction.components_.astype(np.float32)
        places = (hidden.astype(np.float32) - mean) @ components.T
        between = np.sqrt(((places[:, np.newaxis] - places) ** 2).sum(axis=2))
        np.fill_diagonal(between, np.inf)
        apart = between.min(axis=1)
        # Lesions in the same words lie at the same place.
        unit = float(np.median(apart[apart > 1e-6])) if (apart > 1e-6).any() else 1.0
        return cls(readout, mean, components, places, labels.astype(np.uint8), unit)

    def nearest(self, states: HiddenStates, count: int = SHOWN) -> list[Neighbour]:
        """The training lesions nearest to one lesion.

        Args:
            states: its hidden states, [1 × hidden size].
        """
        place = (np.asarray(states[self.readout], dtype=np.float32) - self.mean) @ self.components.T
        distances = np.sqrt(((self.places - place) ** 2).sum(axis=1)) / self.unit
        return [
            Neighbour(lesion=row + 1, label=_LABELS[int(self.labels[row])], distance=round(float(distances[row]), 4))
            for row in np.argsort(distances, kind="stable")[:count].tolist()
        ]

    def file(self) -> bytes:
        """The content of the file `NEIGHBOURS`."""
        from safetensors.numpy import save

        tensors = {name: getattr(self, name) for name in _TENSORS} | {"unit": np.array([self.unit])}
        # The library writes memory as it lies.
        return save({name: np.ascontiguousarray(part) for name, part in tensors.items()})

    @classmethod
    def read(cls, folder: Path, readout: Readout) -> Neighbourhood:
        """From the folder of a bundle.

        Args:
            readout: which hidden state the model reads.

        Raises:
            RadllmError: the file is malformed.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / NEIGHBOURS
        try:
            with safe_open(path, framework="numpy") as file:
                parts = {name: file.get_tensor(name) for name in (*_TENSORS, "unit")}
            unit = float(parts.pop("unit")[0])
            found = cls(readout, **parts, unit=unit)
            fits = found.places.shape == (len(found.labels), len(found.components)) and unit > 0
            fits = fits and found.components.shape[1:] == found.mean.shape
        except (SafetensorError, OSError, IndexError) as error:
            raise RadllmError(f"The file {NEIGHBOURS} does not fit its model card: get the model anew.") from error
        if not fits:
            raise RadllmError(f"The file {NEIGHBOURS} does not fit its model card: get the model anew.")
        return found
