"""A lesion that a batch may classify, before anything of it is read but headers; and why another cannot be."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from radllm_backend.records import Record

SegmentationKind = Literal["SEG", "RTSTRUCT", "mask"]
"""A segment of a DICOM segmentation, a region of a structure set, or a mask file beside an image file."""


class Candidate(Record):
    """Which image, and which part of which segmentation. Its words are for people, and never reach a prompt."""

    kind: SegmentationKind
    image: tuple[str, ...]
    """Absolute paths: all files of the image's DICOM series, or the one image file."""
    segmentation: str
    """Absolute path of the SEG, the RTSTRUCT or the mask."""
    number: int | None = None
    """Segment number of a SEG, ROI number of an RTSTRUCT, label of a mask; None where a mask needs none."""
    segment: str = ""
    """Name of the segment or region; of a mask, the name or ID by which the manifest chooses one."""
    series: str
    """Series Instance UID of the image; for other files a hash of their content."""
    source: str
    """SOP Instance UID of the segmentation; for other files a hash of their content."""
    modality: str = ""
    """Of the image, as DICOM has it."""
    series_description: str = ""
    study_description: str = ""
    study_date: str = Field("", pattern=r"^(\d{8})?$")
    """YYYYMMDD."""
    spacing: str = ""
    """Of a manifest's row, as `lesion.parse_spacing` reads it."""

    @property
    def key(self) -> str:
        """What it is recognised by, wherever its files lie: 32 hexadecimal digits."""
        words = [self.kind, self.series, self.source, str(self.number)]
        if self.kind == "mask" and self.segment:
            words.append(self.segment)  # of a mask it may be all that is given; in DICOM the number says which
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


class Refusal(Record):
    """Something in a source that is no candidate, with one sentence that says why and what to do."""

    what: str
    """The series or the file, and the segment, as people know it: descriptions and file names, no patient."""
    reason: str
    modality: str = ""


class Found(Record):
    """All that a source holds: nothing of it is left out without a reason."""

    candidates: list[Candidate]
    refusals: list[Refusal]
    unsegmented: list[Refusal] = Field(default_factory=list)
    """Image series that no segmentation refers to: as a rule most of a database, and so apart from the refusals."""
