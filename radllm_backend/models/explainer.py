"""The reasons of a prediction: the share of each feature, what would change the call, and the nearest training lesions.

The mathematics of the shares is in `explanation`; here it meets a model's card and its language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from radllm_backend.features.descriptors import canonical
from radllm_backend.models.bundle import ModelCard
from radllm_backend.models.explanation import Effort, Score, Shares, Variants, alternatives, shapley_shares
from radllm_backend.models.heads import HiddenStates
from radllm_backend.models.prediction import (
    Additive,
    Counterfactual,
    DescriptorShare,
    FeatureShare,
    Neighbour,
    Prediction,
    call_word,
)
from radllm_backend.models.reference import Neighbourhood

Share = TypeVar("Share", FeatureShare, DescriptorShare)
EXPLAINED = 2
"""Features and descriptors for which it is said what they would have to be for another call."""
OTHER_ENDS = (10, 90)
"""Percentiles of the training lesions: the one farther from the lesion is tried for that."""


@dataclass(frozen=True)
class LesionReading:
    """What a model reads of a lesion."""

    standardised: list[float]
    """In the order of the prompt, 0 at the training mean."""
    descriptors: list[str]
    """In the order of the prompt; empty where not given."""
    prompt: str


@dataclass(frozen=True)
class Explainer:
    """Finds the reasons of one model's predictions. These five fields are all that it knows of the model."""

    card: ModelCard
    neighbourhood: Neighbourhood | None
    """The training lesions as the model reads them; None where it keeps none."""
    score: Score
    """Log-odds of variants of a lesion, before calibration."""
    effort: Effort
    """What scoring variants together costs, in any one unit."""
    hidden_of: Callable[[str], HiddenStates]
    """The hidden states of a prompt, [1 × hidden size]."""

    def explain(self, prediction: Prediction, reading: LesionReading, hidden: HiddenStates | None = None) -> Prediction:
        """The prediction with its reasons; all else in it stays as it is.

        Args:
            reading: what the model read of the prediction's lesion.
            hidden: the lesion's hidden states, [1 × hidden size], where they are known already.
        """
        calibration, shares = self.card.calibration, self._shares(reading, prediction.logit)
        effects = [calibration.slope * effect for effect in shares.effects]
        count = len(prediction.features)
        return prediction.model_copy(
            update={
                "features": _moved(prediction.features, effects[:count]),
                "descriptors": _moved(prediction.descriptors, effects[count:]),
                "additive": Additive(
                    baseline=calibration.slope * self.baseline + calibration.intercept,
                    baseline_probability=calibration.probability(self.baseline),
                    error=abs(calibration.slope) * shares.error,
                ),
                "counterfactuals": self._counterfactuals(prediction, reading, effects),
                "neighbours": self._neighbours(reading.prompt, hidden),
            }
        )

    @cached_property
    def baseline(self) -> float:
        """Log-odds with every feature at the training mean and no descriptor given: the same for every lesion."""
        return self.score(([[0.0] * len(self.card.features)], [[""] * len(self.card.descriptors)]))[0]

    def _shares(self, reading: LesionReading, logit: float) -> Shares:
        alone = self.effort(([reading.standardised], [reading.descriptors]))

        def effort(variants: Variants) -> float:
            return self.effort(variants) / alone

        return shapley_shares(reading.standardised, reading.descriptors, logit, self.baseline, self.score, effort)

    def _counterfactuals(
        self, prediction: Prediction, reading: LesionReading, effects: Sequence[float]
    ) -> list[Counterfactual]:
        """Of the two features or descriptors that moved the prediction most."""
        strongest = sorted(range(len(effects)), key=lambda position: -abs(effects[position]))[:EXPLAINED]
        others = [(position, self._other_value(position, reading)) for position in strongest if effects[position]]
        tried = [(position, value) for position, value in others if value is not None]
        logits = self.score(alternatives(reading.standardised, reading.descriptors, tried))
        return [
            self._counterfactual(prediction, position, value, self.card.calibration.probability(logit))
            for (position, value), logit in zip(tried, logits, strict=True)
        ]

    def _other_value(self, position: int, reading: LesionReading) -> float | str | None:
        """A standardised value at the other end of the training lesions, or their commonest other term."""
        count = len(self.card.features)
        if position < count:
            summary, own = self.card.features[position], reading.standardised[position]
            ends = [(summary.quantiles[share] - summary.mean) / summary.deviation for share in OTHER_ENDS]
            return max(ends, key=lambda value: abs(value - own))
        counts = self.card.descriptors[position - count].counts
        terms = [term for term in counts if term and term != reading.descriptors[position - count]]
        return max(terms, key=lambda term: counts[term], default=None)

    def _counterfactual(
        self, prediction: Prediction, position: int, value: float | str, probability: float
    ) -> Counterfactual:
        count = len(self.card.features)
        share: FeatureShare | DescriptorShare
        share = prediction.features[position] if position < count else prediction.descriptors[position - count]
        name = share.feature if isinstance(share, FeatureShare) else share.descriptor
        call = call_word(probability, self.card.threshold, prediction.band)
        if call == prediction.call:
            return Counterfactual(feature=name, name=share.name)
        return Counterfactual(
            feature=name,
            name=share.name,
            value=self._in_words(position, value),
            probability=probability,
            call=call,
        )

    def _in_words(self, position: int, value: float | str) -> float | str:
        """A value on the feature's own scale, or a descriptor's canonical terms."""
        count = len(self.card.features)
        if isinstance(value, str):
            return canonical(self.card.descriptors[position - count].descriptor, value)
        summary = self.card.features[position]
        return summary.mean + value * summary.deviation

    def _neighbours(self, prompt: str, hidden: HiddenStates | None) -> list[Neighbour]:
        if self.neighbourhood is None:
            return []
        return self.neighbourhood.nearest(hidden if hidden is not None else self.hidden_of(prompt))


def _moved(shares: Sequence[Share], effects: Sequence[float]) -> list[Share]:
    return [share.model_copy(update={"effect": effect}) for share, effect in zip(shares, effects, strict=True)]
