"""A lesion of a batch, as its list or its results know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _


@dataclass(frozen=True)
class BatchLesion:
    """Which segment of which series, and what became of it."""

    lesion: str
    """What people know it by."""
    modality: str = ""
    seriesDescription: str = ""
    segment: str = ""
    number: int | None = None
    kind: str = ""
    """SEG or RTSTRUCT."""
    series: str = ""
    """Series Instance UID of the image; empty for what was left out."""
    source: str = ""
    """SOP Instance UID of the segmentation."""
    probability: float | None = None
    call: str = ""
    cautions: str = ""
    """Their codes."""
    reason: str = ""
    """Why there is no result, or will be none."""

    @classmethod
    def fromRecord(cls, record: Mapping[str, Any]) -> BatchLesion:
        """Of an event of ``radllm batch --list``, or of a row of its results."""
        return cls(
            lesion=record.get("lesion") or record.get("what") or "",
            seriesDescription=record.get("series_description") or "",
            number=record.get("number"),
            probability=record.get("probability"),
            **{
                name: record.get(name) or ""
                for name in ("modality", "segment", "kind", "series", "source", "call", "cautions", "reason")
            },
        )

    def listed(self) -> tuple[str, str, str]:
        """Its row in the list of what would run."""
        return self.lesion, self.modality, _("no: {reason}").format(reason=self.reason) if self.reason else _("yes")

    def result(self) -> tuple[str, str, str]:
        """Its row among the results; a sign says that there are cautions."""
        if self.probability is None:
            return self.lesion, "", self.reason
        from radllm_backend.models.prediction import percent

        return self.lesion, percent(self.probability), f"{self.call} ⚠" if self.cautions else self.call

    def about(self) -> str:
        """All that a row has no room for."""
        cautions = _("cautions: {codes}").format(codes=self.cautions) if self.cautions else ""
        return "\n".join(filter(None, (self.lesion, self.call, cautions, self.reason)))
