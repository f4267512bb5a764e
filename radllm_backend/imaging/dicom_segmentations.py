"""DICOM segmentations (SEG) and structure sets (RTSTRUCT), by their headers: what they mark, and on which image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.dicom_files import Frame

_SEGMENTATION_TAGS = [
    "Modality", "SOPInstanceUID", "FrameOfReferenceUID", "SegmentSequence", "SegmentationType", "PixelPaddingValue",
    "MaximumFractionalValue", "ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated",
]  # fmt: skip
_STRUCTURE_TAGS = ["ReferencedFrameOfReferenceSequence", "StructureSetROISequence", "ROIContourSequence"]
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class MarkedSegment:
    """One segment of a SEG, or one region of an RTSTRUCT, as the file's header describes it."""

    number: int
    """Segment number or ROI number."""
    name: str
    series: dict[str, frozenset[str]]
    """Series Instance UIDs of the images that the file refers to, each with the SOP Instance UIDs that it lists."""
    instances: frozenset[str]
    """SOP Instance UIDs of the images on which its own frames or contours lie, as far as the file says."""
    frame_of_reference: str
    """UID of the space in which it lies; empty where the file has none."""
    empty: bool
    """Whether it has no frame or no closed contour, and so marks nothing."""


@dataclass(frozen=True)
class SegmentFrame:
    """One frame of a SEG."""

    index: int
    """From 0."""
    number: int | None
    """The segment that it shows; None in a label map, whose frames show all."""
    sources: tuple[tuple[str, int | None], ...]
    """SOP Instance UID of each image that it was drawn on, with the frame (from 1) where that is said."""
    place: Frame
    """Where it lies, if ``place.has_geometry``."""


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn whatever pydicom raises about a damaged file into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pydicom's remarks on a header that it can read all the same
            yield
    except RadllmError:
        raise
    except OSError as error:
        reason = error.strerror or "it is cut short"
        raise RadllmError(f"{file.name} cannot be read ({reason}): put the file back or export it again.") from error
    except Exception as error:
        raise RadllmError(f"{file.name} is damaged: export it again.") from error


def segments_of(file: Path) -> list[MarkedSegment]:
    """Every segment of a SEG or region of an RTSTRUCT, in the file's order, from the header alone.

    Raises:
        RadllmError: the file cannot be read, is cut short, or is neither.
    """
    with readable(file):
        header = read_header(file)
        if header.get("Modality") == "RTSTRUCT":
            return _regions(file, header)
        return _segments(header)


def read_header(file: Path) -> Dataset:
    """All of the header of a SEG or RTSTRUCT that matters here.

    Raises:
        RadllmError: the file cannot be read, is cut short, or is neither.
    """
    with readable(file):
        with file.open("rb") as stream:
            header = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=_SEGMENTATION_TAGS + _STRUCTURE_TAGS
            )
            left = file.stat().st_size - stream.tell()
        if header.get("Modality") not in ("SEG", "RTSTRUCT"):
            raise RadllmError(f"{file.name} is neither a DICOM segmentation nor a structure set: give one of these.")
        if header.Modality == "SEG" and "Rows" not in header:
            raise RadllmError(f"{file.name} holds surfaces rather than pixels: export the segments as a labelmap.")
        if left < _least_pixel_bytes(header):
            raise RadllmError(f"{file.name} is cut short: copy or export it again.")
        return header


def _least_pixel_bytes(header: Dataset) -> int:
    """How many bytes of pixels, with their tag and length, a whole file has at least."""
    if header.Modality != "SEG":
        return 0
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_deflated:
        return 0  # pydicom has unpacked it as a whole
    if syntax.is_encapsulated:
        return 1
    bits: int = header.Rows * header.Columns * int(header.get("NumberOfFrames") or 1) * header.BitsAllocated
    return (8 if syntax.is_implicit_VR else 12) - (-bits // 8)


# --- SEG ------------------------------------------------------------------------------------------------------------


def _segments(header: Dataset) -> list[MarkedSegment]:
    listed = _listed(header.get("ReferencedSeriesSequence"))
    for study in header.get("StudiesContainingOtherReferencedInstancesSequence") or []:
        listed |= _listed(study.get("ReferencedSeriesSequence"))
    frames = frames_of(header)
    segments = []
    for item in header.get("SegmentSequence") or []:
        number = int(item.SegmentNumber)
        if is_label_map(header) and number == header.get("PixelPaddingValue"):
            continue  # the background
        own = [frame for frame in frames if frame.number in (number, None)]
        instances = frozenset(instance for frame in own for instance, _ in frame.sources)
        space = str(header.get("FrameOfReferenceUID") or "")
        name = str(item.get("SegmentLabel") or "")
        segments.append(MarkedSegment(number, name, listed, instances, space, empty=not own))
    return segments


def is_label_map(header: Dataset) -> bool:
    """Whether each pixel of the SEG holds the number of its segment."""
    return bool(header.get("SegmentationType") == "LABELMAP")


def frames_of(header: Dataset) -> list[SegmentFrame]:
    """Every frame of a SEG, from what `read_header` gave."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    return [_frame(header, index, own, shared) for index, own in enumerate(per_frame)]


def _frame(header: Dataset, index: int, own: Dataset, shared: Dataset) -> SegmentFrame:
    number = None
    if not is_label_map(header):
        number = int(_first(own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    sources = [
        (str(image.ReferencedSOPInstanceUID), _frame_number(image))
        for derivation in _groups(own, shared, "DerivationImageSequence")
        for image in derivation.get("SourceImageSequence") or []
    ]
    place = Dataset()
    for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        place.update(_first(own, shared, keyword))
    return SegmentFrame(index, number, tuple(sources), Frame(Path(), index, place))


def _groups(own: Dataset, shared: Dataset, keyword: str) -> list[Dataset]:
    return own.get(keyword) or shared.get(keyword) or []


def _first(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    return (_groups(own, shared, keyword) or [Dataset()])[0]


def _frame_number(image: Dataset) -> int | None:
    numbers = np.atleast_1d(image.get("ReferencedFrameNumber") or [])
    return int(numbers[0]) if numbers.size else None


def _listed(series: Sequence[Dataset] | None) -> dict[str, frozenset[str]]:
    return {str(item.SeriesInstanceUID): _instances(item.get("ReferencedInstanceSequence")) for item in series or []}


def _instances(items: Sequence[Dataset] | None) -> frozenset[str]:
    return frozenset(str(item.ReferencedSOPInstanceUID) for item in items or [])


# --- RTSTRUCT -------------------------------------------------------------------------------------------------------


def _regions(file: Path, header: Dataset) -> list[MarkedSegment]:
    rois = header.get("StructureSetROISequence") or []
    if rois and "ROIContourSequence" not in header:
        raise RadllmError(f"{file.name} is cut short before its contours: copy or export it again.")
    listed = {
        str(series.SeriesInstanceUID): _instances(series.get("ContourImageSequence"))
        for space in header.get("ReferencedFrameOfReferenceSequence") or []
        for study in space.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    }
    return [_region(header, roi, listed) for roi in rois]


def _region(header: Dataset, roi: Dataset, listed: dict[str, frozenset[str]]) -> MarkedSegment:
    number = int(roi.ROINumber)
    contours = closed_contours(header, number)
    instances = frozenset(uid for contour in contours for uid in _instances(contour.get("ContourImageSequence")))
    space = str(roi.get("ReferencedFrameOfReferenceUID") or "")
    return MarkedSegment(number, str(roi.get("ROIName") or ""), listed, instances, space, empty=not contours)


def closed_contours(header: Dataset, number: int) -> list[Dataset]:
    """The contours of a region that enclose something: points and open lines do not."""
    return [
        contour
        for region in header.get("ROIContourSequence") or []
        if int(region.ReferencedROINumber) == number
        for contour in region.get("ContourSequence") or []
        if contour.get("ContourGeometricType") in _CLOSED and contour.get("ContourData")
    ]
