"""Series and segmentations of a few bytes, for the tests of which image a segmentation belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage, generate_uid

from radllm_backend.batch.matching import Series


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset, sop_class: str) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(path, enforce_file_format=True)
    return path


def listing(series: Mapping[str, Sequence[str]], instances: str) -> list[Dataset]:
    return [
        item(SeriesInstanceUID=uid, **{instances: [item(ReferencedSOPInstanceUID=one) for one in listed]})
        for uid, listed in series.items()
    ]


def seg(
    path: Path,
    segments: Sequence[tuple[int, str, Sequence[str] | None]],
    lists: Mapping[str, Sequence[str]] | None = None,
    space: str = "",
) -> Path:
    """A SEG of these segments, each a number, a name and the images of its frames: no images, a frame that names
    none; None, no frame. It lists these images by their series."""
    frames = [
        item(
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
            DerivationImageSequence=[item(SourceImageSequence=[item(ReferencedSOPInstanceUID=one) for one in images])],
        )
        for number, _, images in segments
        if images is not None
    ]
    about = {"FrameOfReferenceUID": space} if space else {}
    dataset = item(
        Modality="SEG",
        SegmentationType="BINARY",
        SegmentSequence=[item(SegmentNumber=number, SegmentLabel=name) for number, name, _ in segments],
        PerFrameFunctionalGroupsSequence=frames,
        ReferencedSeriesSequence=listing(lists or {}, "ReferencedInstanceSequence"),
        Rows=8,
        Columns=8,
        BitsAllocated=1,
        NumberOfFrames=max(1, len(frames)),
        PixelData=b"\1\0" * 4 * max(1, len(frames)),
        **about,
    )
    return write(path, dataset, SegmentationStorage)


def structures(path: Path, name: str, images: Sequence[str], lists: Mapping[str, Sequence[str]]) -> Path:
    """An RTSTRUCT of one region, number 7, with a contour on each of these images."""
    contours = [
        item(
            ContourGeometricType="CLOSED_PLANAR",
            ContourData=["0"] * 9,
            ContourImageSequence=[item(ReferencedSOPInstanceUID=one)],
        )
        for one in images
    ]
    study = item(RTReferencedSeriesSequence=listing(lists, "ContourImageSequence"))
    dataset = item(
        Modality="RTSTRUCT",
        ReferencedFrameOfReferenceSequence=[item(RTReferencedStudySequence=[study])],
        StructureSetROISequence=[item(ROINumber=7, ROIName=name)],
        ROIContourSequence=[item(ReferencedROINumber=7, ContourSequence=contours)],
    )
    return write(path, dataset, RTStructureSetStorage)


def series(uid: str, modality: str, files: Mapping[str, Path | None], **words: Any) -> Series:
    given = {"description": "left", "study_description": "", "study_date": "20240229", "frame_of_reference": ""}
    return Series(uid=uid, modality=modality, files=dict(files), **{**given, **words})


def image(folder: Path, uid: str, modality: str, *instances: str, **words: Any) -> Series:
    """A series of image files, of which only their being there matters."""
    files = {instance: folder / f"{uid} {instance}.dcm" for instance in instances}
    for file in files.values():
        file.touch()
    return series(uid, modality, files, **words)


def drawn(*files: Path, uid: str = "seg", **words: Any) -> Series:
    return series(uid, "SEG", {f"{file.stem}.0": file for file in files}, **words)
