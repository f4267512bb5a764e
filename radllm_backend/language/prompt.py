"""From standardised feature values to the text that the model reads (the template of Ra et al. 2025).

Only canonical names, finite numbers, the terms of fixed vocabularies and the words below can reach the text: there is
no way in for the name of a file, a segment or a patient. The order of the features is the model's, stored in its
bundle: a model that reads them in another order calls many lesions differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features import descriptors as vocabularies
from radllm_backend.features.names import display_name
from radllm_backend.features.wording import finding, percentile

TEMPLATE_VERSION = 1
"""Raised with every change of the words: a model only reads the template it was trained on."""

Pooling = Literal["last", "mean"]
"""Of which token's hidden state: the last one's, or the mean of all tokens'."""


class Readout(NamedTuple):
    """Which hidden state stands for a prompt."""

    layers: int
    """How many of the base model's layers are read. The model's last normalisation follows, wherever it is cut off."""
    pooling: Pooling


PromptStyle = Literal["numbers", "findings", "generic"]
"""How a prompt words a feature: its value, where it lies among the training lesions, or its value without its name."""

_MODALITY_WORDS = {"MG": "mammography", "US": "breast ultrasound", "CT": "CT", "MR": "MRI"}
_INSTRUCTION = "Classify benign or malignant of this {modality} based on given {what}."
_FEATURES, _DESCRIPTORS = "standardized radiomic features", "radiological findings"
_MEASURED = " The '{name}' feature is measured at {value}."
_GIVEN = " The '{name}' is {value}."
QUANTILES = 101


@dataclass(frozen=True)
class PromptTemplate:
    """The words around the numbers: one modality, one order of features and descriptors."""

    modality: str
    features: tuple[str, ...]
    """PyRadiomics names, in the order of the prompt."""
    descriptors: tuple[str, ...] = ()
    """Names of categorical findings (`descriptors.VOCABULARIES`), in their order after the features."""
    style: PromptStyle = "numbers"
    quantiles: tuple[tuple[float, ...], ...] = ()
    """For the style 'findings': the 0th to the 100th percentile of each feature's standardised training values."""

    def __post_init__(self) -> None:
        if self.modality not in _MODALITY_WORDS:
            raise RadllmError(f"There is no prompt for the modality '{self.modality}': use MG, US, CT or MR.")
        if not self.features and not self.descriptors:
            raise RadllmError("A prompt needs at least one feature or descriptor.")
        if any(len(set(names)) != len(names) for names in (self.features, self.descriptors)):
            raise RadllmError("A prompt names each feature and descriptor once, and this order names one twice.")
        for feature in self.features:
            display_name(feature)
        for descriptor in self.descriptors:
            vocabularies.descriptor_name(descriptor)
        if self.style not in get_args(PromptStyle):
            raise RadllmError(
                f"There is no prompt style '{str(self.style)[:40]}': use {', '.join(get_args(PromptStyle))}."
            )
        if self.style == "findings":
            self._check_quantiles()

    def render(self, standardised: Sequence[float], categories: Sequence[str] = ()) -> str:
        """The prompt of one lesion.

        Args:
            standardised: one value a feature, in the template's order: (value - training mean) / training deviation.
            categories: one value a descriptor, in the template's order. One that was not given (empty) is left out.

        Raises:
            RadllmError: a value is missing or not finite, or a descriptor's is not in its vocabulary.
        """
        self._check_counts(len(standardised), len(categories))
        sentences = [self._measured(position, value) for position, value in enumerate(standardised)]
        sentences += [self._given(position, text) for position, text in enumerate(categories)]
        return self._instruction() + "".join(sentences)

    def _instruction(self) -> str:
        what = [words for words, names in ((_FEATURES, self.features), (_DESCRIPTORS, self.descriptors)) if names]
        return _INSTRUCTION.format(modality=_MODALITY_WORDS[self.modality], what=" and ".join(what))

    def _measured(self, position: int, value: float) -> str:
        feature = self.features[position]
        number = format_value(value, feature)
        if self.style == "findings":
            clause = finding(feature, percentile(self.quantiles[position], value))
            return f" {clause[0].upper()}{clause[1:]}."
        name = _numbered(position) if self.style == "generic" else display_name(feature)
        return _MEASURED.format(name=name, value=number)

    def _given(self, position: int, text: str) -> str:
        descriptor = self.descriptors[position]
        value = vocabularies.canonical(descriptor, text)
        if not value:
            return ""
        generic = self.style == "generic"
        name = _numbered(len(self.features) + position) if generic else vocabularies.descriptor_name(descriptor)
        return _GIVEN.format(name=name, value=value)

    def _check_counts(self, values: int, categories: int) -> None:
        if values != len(self.features):
            raise RadllmError(f"The prompt needs {counted(len(self.features), 'value')} and got {values}.")
        if categories != len(self.descriptors):
            raise RadllmError(f"The prompt needs {len(self.descriptors)} descriptors and got {categories}.")

    def _check_quantiles(self) -> None:
        if len(self.quantiles) != len(self.features) or not all(map(_are_quantiles, self.quantiles)):
            raise RadllmError(
                f"A prompt of findings needs {QUANTILES} rising training quantiles a feature: train the model anew."
            )


def format_value(value: float, feature: str) -> str:
    """A standardised value as the prompt writes it: three decimals, a point, never ``-0.000``."""
    number = float(value)
    if not math.isfinite(number):
        raise RadllmError(
            f"The feature '{display_name(feature)}' has no finite value for this lesion: check its mask and image."
        )
    text = f"{number:.3f}"
    return "0.000" if text == "-0.000" else text


def _numbered(position: int) -> str:
    """The name of a feature or descriptor in a prompt without names."""
    return f"Feature {position + 1}"


def _are_quantiles(row: Sequence[float]) -> bool:
    return len(row) == QUANTILES and all(map(math.isfinite, row)) and all(one <= next_ for one, next_ in pairwise(row))
