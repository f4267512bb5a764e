"""Which image each DICOM segmentation belongs to, among all series of a database or a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from radllm_backend.batch.candidates import Candidate, Found, Refusal, SegmentationKind
from radllm_backend.errors import RadllmError, counted
from radllm_backend.imaging.dicom_segmentations import MarkedSegment, readable, segments_of
from radllm_backend.records import MODALITIES

SEGMENTATION_KINDS: dict[str, SegmentationKind] = {"SEG": "SEG", "RTSTRUCT": "RTSTRUCT"}
"""The modalities of series that mark lesions, and what each is called in a candidate."""
_SINGLE_PICTURES = ("MG", "US")
"""A series of these is as a rule several pictures, each an image of its own; of the others, the slices of one image."""

_ON_SERVER = "It is on a server only: retrieve it in 3D Slicer."
_UNSEGMENTED = "It has no segmentation: segment it in Slicer, or leave it."
_IMAGE_ON_SERVER = "Its image, or a part of it, is on a server only: retrieve the series in 3D Slicer."


@dataclass(eq=False)
class Series:
    """A DICOM series, as far as finding lesions needs it. Its words are for people."""

    uid: str
    modality: str
    description: str
    study_description: str
    study_date: str
    """YYYYMMDD, or empty."""
    files: dict[str, Path | None] = field(default_factory=dict)
    """By SOP Instance UID; None where a file is on a server only."""
    frame_of_reference: str | None = None
    """UID of the space it lies in, empty where it has none; None until somebody looked."""

    @property
    def title(self) -> str:
        """What people know it by, without the patient."""
        words = [self.modality or "series", f"'{self.description}'" if self.description else "without description"]
        if self.study_description:
            words.append(f"of '{self.study_description}'")
        return " ".join([*words, self.study_date]).strip()


def candidates_among(series: Iterable[Series]) -> Found:
    """Every segment and region of the segmentations among the series: a candidate, or a refusal that says why not."""
    matching = _Matching({each.uid: each for each in series})
    for each in matching.in_order():
        if each.modality in SEGMENTATION_KINDS:
            matching.add(each)
    return Found(
        candidates=list(matching.candidates.values()),
        refusals=matching.refusals,
        unsegmented=matching.unsegmented(),
    )


def as_day(date: object) -> str:
    """A date as YYYYMMDD, also where the database has dashes in it; empty for anything else."""
    digits = str(date or "").replace("-", "").replace(".", "").strip()
    return digits if len(digits) == 8 and digits.isascii() and digits.isdecimal() else ""


class _Matching:
    """All series, and what came of the segmentations among them so far."""

    def __init__(self, series: dict[str, Series]) -> None:
        self.series = series
        self.candidates: dict[str, Candidate] = {}
        self.refusals: list[Refusal] = []
        self._homes: dict[str, list[Series]] = {}
        """By SOP Instance UID: several where a copy of an image was put into a series of its own."""
        for each in series.values():
            for instance in each.files:
                self._homes.setdefault(instance, []).append(each)
        self._gone: dict[str, frozenset[str]] = {}
        self._segmented: set[str] = set()
        """UIDs of the series that a segment refers to, also one that cannot be used."""

    def in_order(self) -> list[Series]:
        """All series by the date of their study."""
        return sorted(self.series.values(), key=lambda each: (each.study_date, each.uid))

    def unsegmented(self) -> list[Refusal]:
        """The image series that a model might read, but for a segmentation; asked for when all segments are added."""
        return [
            Refusal(what=each.title, reason=_UNSEGMENTED, modality=each.modality)
            for each in self.in_order()
            if each.modality in MODALITIES and each.uid not in self._segmented
        ]

    def add(self, segmentations: Series) -> None:
        """Take in every file of a series of segmentations."""
        if not segmentations.files:
            self._refuse(segmentations.title, _ON_SERVER)
        for instance, file in sorted(segmentations.files.items()):
            if file is None:
                self._refuse(segmentations.title, _ON_SERVER)
                continue
            what = f"{segmentations.title} ({file.name})"
            try:
                segments = segments_of(file)
            except RadllmError as problem:
                self._refuse(what, str(problem))
                continue
            if not segments:
                self._refuse(what, "It has no segments: mark the lesion in it, or leave it out.")
            for segment in segments:
                title = f"'{segment.name}' (number {segment.number}) in {what}"
                self._add_segment(title, segmentations, instance, segment)

    def _add_segment(self, what: str, segmentations: Series, instance: str, segment: MarkedSegment) -> None:
        image: Series | None = None
        meant = self._meant_by(segment)
        self._segmented |= meant
        try:
            if segment.empty:
                raise RadllmError("It marks nothing (no frame or closed contour is its own): mark the lesion.")
            image = self._image_among(meant)
            files = self._files_of(image, segment)
            self._check_space(image, files, segment)
        except RadllmError as problem:
            self._refuse(what, str(problem), image.modality if image else "")
            return
        candidate = Candidate(
            kind=SEGMENTATION_KINDS[segmentations.modality],
            image=tuple(sorted(map(str, files))),
            segmentation=str(segmentations.files[instance]),
            number=segment.number,
            segment=segment.name,
            series=image.uid,
            source=instance,
            modality=image.modality,
            series_description=image.description,
            study_description=image.study_description,
            study_date=image.study_date,
        )
        first = self.candidates.setdefault(candidate.key, candidate)
        if first is not candidate and first.segmentation == candidate.segmentation:  # else a copy of the same file
            self._refuse(what, "Another segment of its file has its number: export it again.", image.modality)

    def _refuse(self, what: str, reason: str, modality: str = "") -> None:
        self.refusals.append(Refusal(what=what, reason=reason, modality=modality))

    def _meant_by(self, segment: MarkedSegment) -> set[str]:
        """The series that a segment was drawn on: by its own images, else its file's series, else its space."""
        if not (segment.instances or segment.series) and segment.frame_of_reference:
            return {uid for uid, each in self.series.items() if each.frame_of_reference == segment.frame_of_reference}
        drawn_on = {home.uid for instance in segment.instances for home in self._homes.get(instance, ())}
        by_name = segment.series.keys() & self.series.keys()
        return drawn_on & by_name or drawn_on or by_name

    def _image_among(self, meant: set[str]) -> Series:
        """The one of these series that a model can read."""
        images = [self.series[uid] for uid in sorted(meant) if self.series[uid].modality not in SEGMENTATION_KINDS]
        read = [image for image in images if image.modality in MODALITIES]
        if len(read) == 1:
            return read[0]
        if not images:
            raise RadllmError("Its image is not here: add the series that it was drawn on.")
        if not read:
            raise RadllmError(
                f"Its image is {images[0].modality or 'of no modality'}, which no model reads: they read "
                f"{', '.join(MODALITIES)}."
            )
        raise RadllmError(f"It refers to {len(read)} image series, so that it is open which is meant: keep it to one.")

    def _files_of(self, image: Series, segment: MarkedSegment) -> list[Path]:
        """The image's files, if all are here: those that the segmentation lists and those that the source knows."""
        instances = set(segment.instances & image.files.keys())
        if image.modality not in _SINGLE_PICTURES or len(instances) != 1:
            own = {instance for instance in segment.instances if image in self._homes.get(instance, [image])}
            instances = {*image.files, *own, *segment.series.get(image.uid, ())}
        if not instances or any(instance in image.files and image.files[instance] is None for instance in instances):
            raise RadllmError(_IMAGE_ON_SERVER)
        missing = len(instances - (image.files.keys() - self._gone_from(image)))
        if missing:
            raise RadllmError(
                f"Its image lacks {missing} of {counted(len(instances), 'file')}: import the series again."
            )
        return [file for instance in instances if (file := image.files.get(instance))]

    def _gone_from(self, image: Series) -> frozenset[str]:
        """What the source lists but the disk no longer has; looked up once a series."""
        if image.uid not in self._gone:
            files = image.files.items()
            self._gone[image.uid] = frozenset(instance for instance, file in files if file and not file.is_file())
        return self._gone[image.uid]

    @staticmethod
    def _check_space(image: Series, files: list[Path], segment: MarkedSegment) -> None:
        if image.frame_of_reference is None:
            image.frame_of_reference = _frame_of_reference(files[0])
        if segment.frame_of_reference and image.frame_of_reference not in ("", segment.frame_of_reference):
            raise RadllmError("It lies in another frame of reference than its image: draw it on this image.")


def _frame_of_reference(file: Path) -> str:
    with readable(file):
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
        return str(header.get("FrameOfReferenceUID") or "")
