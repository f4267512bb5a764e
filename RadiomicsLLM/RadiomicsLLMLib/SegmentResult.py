"""What came of one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radllm_backend import Prediction


@dataclass(frozen=True)
class SegmentResult:
    """A segment with its prediction, or with the reason why there is none."""

    segmentId: str
    segmentName: str
    """The name the user gave it: for people, never read by a model."""
    prediction: Prediction | None = None
    problem: str = ""
    """One sentence; empty where there is a prediction."""
