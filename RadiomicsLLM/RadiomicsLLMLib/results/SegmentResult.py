"""What came of one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radllm_backend import Features, Prediction


@dataclass(frozen=True)
class SegmentResult:
    """A segment with its prediction, or with the reason why there is none."""

    segmentId: str
    segmentName: str
    """The name the user gave it: for people, never read by a model."""
    prediction: Prediction | None = None
    problem: str = ""
    """One sentence; empty where there is a prediction."""
    features: Features | None = None
    """All that was measured; None where nothing was, or an older version of this extension kept none."""

    def toRecord(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "segmentId": self.segmentId,
            "segmentName": self.segmentName,
            "problem": self.problem,
            "prediction": _content(self.prediction),
            "features": _content(self.features),
        }

    @classmethod
    def fromRecord(cls, record: dict[str, Any]) -> SegmentResult:
        """What `toRecord` gave; ValueError or KeyError where it is something else."""
        from radllm_backend import Features, Prediction

        prediction, features = record["prediction"], record.get("features")
        return cls(
            record["segmentId"],
            record["segmentName"],
            Prediction.model_validate(prediction) if prediction else None,
            record["problem"],
            Features.model_validate(features) if features else None,
        )


def _content(record: Features | Prediction | None) -> dict[str, Any] | None:
    return record.model_dump(mode="json") if record else None
