"""BI-RADS as a label: which categories count as benign, and which as malignant."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from radllm_backend.datasets.collecting import UnusableLesionError
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import canonical

_BIRADS = re.compile(r"^\s*bi-?rads\b", re.IGNORECASE)


@dataclass(frozen=True)
class LabelRule:
    """Which BI-RADS categories count as benign and which as malignant; lesions of any other are left out.

    '4' stands for 4a, 4b and 4c too, unless the rule names those themselves.
    """

    benign: Collection[str]
    malignant: Collection[str]

    def __post_init__(self) -> None:
        for name in ("benign", "malignant"):
            object.__setattr__(self, name, frozenset(category(text) for text in getattr(self, name)))
        both = sorted(set(self.benign) & set(self.malignant))
        if both or not self.benign or not self.malignant:
            wrong = f"calls BI-RADS {both[0]} benign and malignant" if both else "leaves benign or malignant empty"
            raise RadllmError(f"The label rule {wrong}: give each at least one category of its own.")

    def label(self, birads: str) -> str:
        """``benign`` or ``malignant``.

        Raises:
            UnusableLesionError: the category is empty, or not in the rule.
            RadllmError: it is no BI-RADS category.
        """
        given = category(birads)
        if not given:
            raise UnusableLesionError("it has no BI-RADS category.")
        for known in (given, given[0]):
            if known in self.benign:
                return "benign"
            if known in self.malignant:
                return "malignant"
        raise UnusableLesionError(f"BI-RADS {given} is neither benign nor malignant by the label rule.")


def category(birads: str) -> str:
    """The BI-RADS category alone: '4' of 'BI-RADS 4', '4a' of '4A ', '' where none is given."""
    return canonical("birads_assessment", _BIRADS.sub("", birads))


PAPER_RULE = LabelRule(benign={"3"}, malignant={"4", "5", "6"})
"""The rule of Ra et al., Comput Methods Programs Biomed 265 (2025) 108765: a guess by the reader, not pathology."""
