"""Where things stand in the drawings of a report, in whatever units the page or the PDF draws in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from radllm_backend.models.bundle import FeatureSummary
from radllm_backend.models.prediction import DescriptorShare, FeatureShare, Prediction

_MARGIN = 0.15
"""Of a strip, kept free on either side for values beyond the middle 90% of both classes."""
_WHISKERS, _BOX = (1, -2), (5, -6)
"""Places of the 5th and 95th, and of the 25th and 75th, percentile among the quantiles of a class."""


@dataclass(frozen=True)
class ProbabilityBar:
    """Where things stand on the probability bar."""

    start: float
    width: float
    fill: float
    """Length up to the probability."""
    threshold: float
    zone: tuple[float, float] | None
    """Both edges of the uncertain band."""
    reach: tuple[float, float] | None
    """Lowest and highest probability when the outline moves."""

    @property
    def middle(self) -> float:
        """Of the uncertain band; of the bar where there is none."""
        return sum(self.zone) / 2 if self.zone else self.start + self.width / 2

    def anchor(self, place: float) -> str:
        """How a text at a place is to be aligned, so that it stays in the drawing."""
        share = (place - self.start) / self.width
        return "start" if share < 0.2 else "end" if share > 0.8 else "middle"


def probability_bar(prediction: Prediction, start: float, width: float) -> ProbabilityBar:
    """A bar from 0% at `start` to 100%, `width` further on."""

    def place(probability: float) -> float:
        return start + width * probability

    band, stability = prediction.band, prediction.stability
    return ProbabilityBar(
        start,
        width,
        width * prediction.probability,
        place(prediction.threshold),
        (place(band.low), place(band.high)) if band else None,
        (place(stability.low), place(stability.high)) if stability else None,
    )


@dataclass(frozen=True)
class Lane:
    """One class in a strip: the middle 90% of its values, the middle half and the median, in percent of the width."""

    label: str
    whiskers: tuple[float, float]
    box: tuple[float, float]
    median: float


@dataclass(frozen=True)
class Strip:
    """Where a value lies among the benign and among the malignant training lesions, in percent of the width."""

    lanes: tuple[Lane, Lane]
    mark: float
    beyond: int
    """-1 or 1 where the value lies beyond the left or right end of the drawing, else 0."""
    words: str

    @property
    def arrow(self) -> float:
        """Where the base of an arrowhead lies whose tip is the mark of a value beyond the drawing."""
        return self.mark - 5 * self.beyond


def strip(summary: FeatureSummary, value: float) -> Strip | None:
    """A drawing of one feature; None where the model keeps no values by class."""
    if summary.by_class is None:
        return None
    classes = {"benign": summary.by_class.benign, "malignant": summary.by_class.malignant}
    first, last = _WHISKERS
    low, high = min(values[first] for values in classes.values()), max(values[last] for values in classes.values())
    span = (high - low) or abs(high) or 1.0
    start, width = low - _MARGIN * span, (1 + 2 * _MARGIN) * span

    def place(number: float) -> float:
        return 100 * min(max((number - start) / width, 0.0), 1.0)

    def lane(label: str, values: Sequence[float]) -> Lane:
        whiskers, box = ((place(values[first]), place(values[last])) for first, last in (_WHISKERS, _BOX))
        return Lane(label, whiskers, box, place(values[len(values) // 2]))

    beyond = -1 if value < start else 1 if value > start + width else 0
    benign, malignant = (lane(label, values) for label, values in classes.items())
    middles = ", ".join(f"half of the {label} {values[5]:.4g} to {values[-6]:.4g}" for label, values in classes.items())
    return Strip((benign, malignant), place(value), beyond, f"{value:.4g}; {middles}")


@dataclass(frozen=True)
class FeatureRow:
    """A feature and its bar: where it starts and how long it is, in percent of half the width; 0 is the middle."""

    share: FeatureShare | DescriptorShare
    start: float
    length: float
    strip: Strip | None

    @property
    def is_number(self) -> bool:
        """Whether it is a measured feature, not one of the radiologist's descriptors."""
        return isinstance(self.share, FeatureShare)

    @property
    def side(self) -> str:
        """The class that it speaks for."""
        return "malignant" if self.start == 0 else "benign"


def rows(shares: Sequence[FeatureShare | DescriptorShare], summaries: Sequence[FeatureSummary]) -> list[FeatureRow]:
    """Features and descriptors as they are given, the longest bar as long as half the width.

    Args:
        summaries: what the model keeps of its features; empty where it is not at hand.
    """
    known = {summary.feature: summary for summary in summaries}
    effects = [share.effect or 0.0 for share in shares]
    longest = max(map(abs, effects), default=0.0) or 1.0
    found = []
    for share, effect in zip(shares, effects, strict=True):
        length = 100 * (effect / longest)
        summary = known.get(share.feature) if isinstance(share, FeatureShare) else None
        drawing = strip(summary, share.value) if isinstance(share, FeatureShare) and summary else None
        found.append(FeatureRow(share, min(length, 0.0), abs(length), drawing))
    return found
