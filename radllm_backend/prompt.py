"""From standardised feature values to the text that the model reads (the template of Ra et al. 2025).

Only canonical feature names, finite numbers and the words below can reach the text: there is no way in for the name of
a file, a segment or a patient. The order of the features is the model's, stored in its bundle: a model that reads them
in another order calls many lesions differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from radllm_backend.errors import RadllmError
from radllm_backend.feature_names import display_name

TEMPLATE_VERSION = 1
"""Raised with every change of the words: a model only reads the template it was trained on."""

_MODALITY_WORDS = {"MG": "mammography", "US": "breast ultrasound", "CT": "CT", "MR": "MRI"}
_INSTRUCTION = "Classify benign or malignant of this {modality} based on given standardized radiomic features."
_SENTENCE = " The '{name}' feature is measured at {value}."


@dataclass(frozen=True)
class PromptTemplate:
    """The words around the numbers: one modality, one order of features."""

    modality: str
    features: tuple[str, ...]
    """PyRadiomics names, in the order of the prompt."""

    def __post_init__(self) -> None:
        if self.modality not in _MODALITY_WORDS:
            raise RadllmError(f"There is no prompt for the modality '{self.modality}': use MG, US, CT or MR.")
        if not self.features:
            raise RadllmError("A prompt needs at least one feature.")
        if len(set(self.features)) != len(self.features):
            raise RadllmError("A prompt names each feature once, and this order names one twice.")
        for feature in self.features:
            display_name(feature)

    def render(self, standardised: Sequence[float]) -> str:
        """The prompt of one lesion.

        Args:
            standardised: one value a feature, in the template's order: (value - training mean) / training deviation.

        Raises:
            RadllmError: a value is missing or not finite.
        """
        if len(standardised) != len(self.features):
            raise RadllmError(f"The prompt needs {len(self.features)} values and got {len(standardised)}.")
        sentences = [
            _SENTENCE.format(name=display_name(feature), value=format_value(value, feature))
            for feature, value in zip(self.features, standardised, strict=True)
        ]
        return _INSTRUCTION.format(modality=_MODALITY_WORDS[self.modality]) + "".join(sentences)


def format_value(value: float, feature: str) -> str:
    """A standardised value as the prompt writes it: three decimals, a point, never ``-0.000``."""
    number = float(value)
    if not math.isfinite(number):
        raise RadllmError(
            f"The feature '{display_name(feature)}' has no finite value for this lesion: check its mask and image."
        )
    text = f"{number:.3f}"
    return "0.000" if text == "-0.000" else text
