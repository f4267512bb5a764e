"""Which probabilities are uncertain: class-conditional conformal prediction from out-of-fold probabilities."""

from __future__ import annotations

import math
from itertools import pairwise, takewhile
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray
from radllm_backend.models.prediction import Band
from radllm_backend.records import Record

DEFAULT_CONFIDENCE = 0.8
"""Lesions are hard: at 0.9 a model with an AUC of 0.6 calls four lesions in five uncertain, and one with 0.8 two in
five; at 0.8 they are one in two and one in seven. Below it, more than a fifth of a class may be called the other."""
LOWEST_CONFIDENCE, HIGHEST_CONFIDENCE = 0.5, 0.99
MOST_SCORES = 1001
"""Probabilities kept of a class; of more, so many quantiles."""

_Probability = Annotated[float, Field(ge=0, le=1)]


class ConformalReference(Record):
    """Calibrated out-of-fold probabilities of the lesions of each class, in ascending order."""

    benign: list[_Probability] = Field(min_length=1, max_length=MOST_SCORES)
    malignant: list[_Probability] = Field(min_length=1, max_length=MOST_SCORES)

    @field_validator("benign", "malignant")
    @classmethod
    def _ascend(cls, probabilities: list[float]) -> list[float]:
        if any(first > second for first, second in pairwise(probabilities)):
            raise ValueError("the probabilities are not in ascending order")
        return probabilities

    @classmethod
    def from_scores(cls, probabilities: FloatArray, labels: NDArray[np.int_]) -> ConformalReference:
        """Of the lesions of a cross-validation.

        Args:
            probabilities: out-of-fold, one a lesion, on the scale of the probabilities that the band is for: through
                the model's own calibration, also where that was fitted on these scores. A calibration keeps their
                order, and nothing but the order matters to the band's promise.
            labels: 0 benign, 1 malignant.

        Raises:
            RadllmError: no lesion of a class.
        """
        benign, malignant = (np.sort(probabilities[labels == label]) for label in (0, 1))
        if not benign.size or not malignant.size:
            raise RadllmError("An uncertain band needs benign and malignant lesions: add lesions of the other class.")
        # To the cautious side: with fewer quantiles each class is in the set wherever it is with all its lesions.
        return cls(benign=_thinned(benign, "higher"), malignant=_thinned(malignant, "lower"))


def band(reference: ConformalReference, confidence: float) -> Band:
    """The probabilities at which a lesion can be told from neither class.

    Conformal prediction, separately for each class (label-conditional or Mondrian): V. Vovk, *Conditional validity of
    inductive conformal predictors*, Machine Learning 92 (2013) 349; A. N. Angelopoulos and S. Bates, *Conformal
    prediction: a gentle introduction*, Foundations and Trends in Machine Learning 16 (2023) 494. With alpha = 1 -
    confidence and n lesions of a class, the set holds 'malignant' from the floor((n + 1) alpha)-th smallest malignant
    probability on, and 'benign' up to the ceil((n + 1) confidence)-th smallest benign one; where there is no such
    lesion, always. The set of a new lesion that is exchangeable with the reference's holds its true class with a
    probability of at least the confidence, whichever class that is.

    Between the two edges the set holds both classes. Where the model separates the classes better than the confidence
    asks for, the edges have changed places, and between them the set is empty. A higher confidence keeps the promise of
    a lower one, and brings the edges nearer to each other as long as they are crossed: so the band is then that of the
    highest confidence at which they still are. Otherwise a model would call the more lesions uncertain the better it
    is, and the less confidence is asked of it.

    The reference comes from the models of a cross-validation, the prediction from a model of all lesions: cross-
    conformal prediction (V. Vovk, Annals of Mathematics and Artificial Intelligence 74 (2015) 9), which keeps this
    promise in practice, and not by proof.

    Raises:
        RadllmError: a confidence that is not in 0.5..0.99.
    """
    check_confidence(confidence)
    asked = [_edges(reference, share) for share in (confidence, *_higher(reference, confidence))]
    crossed = list(takewhile(lambda edges: edges[0] > edges[1], asked))
    low, high = sorted(crossed[-1] if crossed else asked[0])
    return Band(low=low, high=high, confidence=confidence)


def check_confidence(confidence: float) -> None:
    """RadllmError unless a band can be had at this confidence."""
    if not LOWEST_CONFIDENCE <= confidence <= HIGHEST_CONFIDENCE:
        raise RadllmError(
            f"The confidence {confidence:g} is not between {LOWEST_CONFIDENCE} and {HIGHEST_CONFIDENCE}: "
            f"give a share such as {DEFAULT_CONFIDENCE}."
        )


def _edges(reference: ConformalReference, confidence: float) -> tuple[float, float]:
    """The probability from which on the set holds 'malignant', and that up to which it holds 'benign'."""
    return (
        _smallest(reference.malignant, _floor((len(reference.malignant) + 1) * (1 - confidence))),
        _smallest(reference.benign, -_floor(-(len(reference.benign) + 1) * confidence)),
    )


def _higher(reference: ConformalReference, confidence: float) -> list[float]:
    """The higher confidences up to 1 at which an edge is about to move, in ascending order."""
    steps = {1 - rank / (len(reference.malignant) + 1) for rank in range(len(reference.malignant) + 1)}
    steps |= {rank / (len(reference.benign) + 1) for rank in range(len(reference.benign) + 1)}
    return sorted(step for step in steps if step > confidence)


def _smallest(ascending: list[float], rank: int) -> float:
    """The rank-th smallest probability; 0 before the first and 1 behind the last."""
    if rank < 1:
        return 0.0
    return ascending[rank - 1] if rank <= len(ascending) else 1.0


def _floor(number: float) -> int:
    """Where 10 · 0.2 comes out a rounding error below 2, it is 2."""
    return math.floor(number + 1e-9)


def _thinned(ascending: FloatArray, side: Literal["lower", "higher"]) -> list[float]:
    if ascending.size <= MOST_SCORES:
        return [float(value) for value in ascending]
    shares = np.linspace(0, 1, MOST_SCORES)
    return [float(value) for value in np.quantile(ascending, shares, method=side)]
