"""What is fitted before a language model reads: which features, their scale, and the template that words them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray
from radllm_backend.features.cohort import Lesions
from radllm_backend.features.descriptors import indicator_names, indicators
from radllm_backend.features.selection import select_features, usable_columns
from radllm_backend.language.prompt import QUANTILES, PromptStyle, PromptTemplate


@dataclass(frozen=True)
class PromptWriter:
    """Puts lesions into words as its training lesions were."""

    template: PromptTemplate
    mean: FloatArray
    """Of each feature of the template among the training lesions."""
    deviation: FloatArray

    @classmethod
    def fit(
        cls,
        lesions: Lesions,
        modality: str,
        *,
        count: int | None,
        style: PromptStyle = "numbers",
        keep: Sequence[str] = (),
    ) -> PromptWriter:
        """Select and scale on training lesions.

        Args:
            count: how many features mRMR takes; None for all that vary, in the table's order.
            keep: features that come first whatever mRMR says (a model that is adapted keeps those it knows).

        Raises:
            RadllmError: fewer usable features than asked for, or neither a feature nor a descriptor.
        """
        usable = [name for name, good in zip(lesions.features, usable_columns(lesions.values), strict=True) if good]
        chosen = [name for name in keep if name in usable]
        others = [name for name in usable if name not in chosen]
        if count is None:
            chosen += others
        elif len(chosen) < count and (others or lesions.features):
            columns = lesions.columns(others)
            chosen += select_features(others, columns, lesions.labels, count - len(chosen))
        if not chosen and not lesions.descriptors:
            raise RadllmError("The lesions have neither a usable feature nor a descriptor: fill in the table.")
        columns = lesions.columns(chosen)
        mean, deviation = columns.mean(axis=0), columns.std(axis=0)
        standardised = (columns - mean) / deviation
        quantiles = np.quantile(standardised, np.linspace(0, 1, QUANTILES), axis=0).T if chosen else np.empty((0, 0))
        template = PromptTemplate(
            modality,
            tuple(chosen),
            descriptors=lesions.descriptors,
            style=style,
            quantiles=tuple(map(tuple, quantiles.tolist())) if style == "findings" else (),
        )
        return cls(template, mean, deviation)

    @property
    def columns(self) -> int:
        """How many `design` has."""
        return len(self.template.features) + len(indicator_names(self.template.descriptors))

    def standardise(self, lesions: Lesions) -> FloatArray:
        """(value - training mean) / training deviation, [lesions × features]; a missing value counts as average."""
        return np.nan_to_num((lesions.columns(self.template.features) - self.mean) / self.deviation)

    def design(self, lesions: Lesions) -> FloatArray:
        """What the prompt says as numbers, for a classical model: [lesions × columns].

        The standardised features, then one column a term of each descriptor: 1 where the lesion has it.
        """
        descriptors = self.template.descriptors
        return np.hstack([self.standardise(lesions), indicators(descriptors, lesions.named(descriptors))])

    def write(self, lesions: Lesions) -> list[str]:
        """The prompt of each lesion."""
        categories = lesions.named(self.template.descriptors).tolist()
        return [
            self.template.render(values, named)
            for values, named in zip(self.standardise(lesions).tolist(), categories, strict=True)
        ]

    def write_shuffled(self, lesions: Lesions, seed: int) -> list[str]:
        """The prompt of each lesion with its features in an order of its own."""
        random = np.random.default_rng(seed)
        categories = lesions.named(self.template.descriptors).tolist()
        prompts = []
        for values, named in zip(self.standardise(lesions), categories, strict=True):
            order = random.permutation(len(values))
            prompts.append(self._reordered(order).render(values[order].tolist(), named))
        return prompts

    def _reordered(self, order: NDArray[np.int_]) -> PromptTemplate:
        features, quantiles = self.template.features, self.template.quantiles
        return replace(
            self.template,
            features=tuple(features[index] for index in order),
            quantiles=tuple(quantiles[index] for index in order) if quantiles else (),
        )
