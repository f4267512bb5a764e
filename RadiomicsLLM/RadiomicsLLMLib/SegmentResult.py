"""What came of one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    def toRecord(self) -> dict[str, Any]:
        """As JSON keeps it."""
        content = self.prediction.model_dump(mode="json") if self.prediction else None
        return {
            "segmentId": self.segmentId,
            "segmentName": self.segmentName,
            "problem": self.problem,
            "prediction": content,
        }

    @classmethod
    def fromRecord(cls, record: dict[str, Any]) -> SegmentResult:
        """What `toRecord` gave; ValueError or KeyError where it is something else."""
        from radllm_backend import Prediction

        content = record["prediction"]
        prediction = Prediction.model_validate(content) if content else None
        return cls(record["segmentId"], record["segmentName"], prediction, record["problem"])
