"""Writes, for the tests, images with SEG and RTSTRUCT drawn on them, and Slicer's DICOM database over them."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from Testing.support.dicom_writing import write_dicom

SOP_CLASSES: dict[str, UID] = {
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": CTImageStorage,  # good enough for a header
}
ORIENTATION = np.array([[1, 0, 0], [0, 0.8, 0.6]])
SPACING, STEP = (0.5, 0.25), 2.5
PATIENT = {"PatientName": "Müller^Łucja", "PatientID": "P-4711", "PatientBirthDate": "", "PatientSex": "F"}
Masks = Mapping[str, NDArray[Any]]
"""By the segment's name: (slices, rows, columns), or (rows, columns) of a picture."""


def study_of(description: str = "Brust beidseits", date: str = "20240229") -> dict[str, Any]:
    """The elements that all files of a study share."""
    words = {"StudyDescription": description, "StudyDate": date, "StudyTime": "", "StudyID": "1", "AccessionNumber": ""}
    return {"SpecificCharacterSet": "ISO_IR 192", "StudyInstanceUID": generate_uid(), **PATIENT, **words}


# --- images ---------------------------------------------------------------------------------------------------------


def write_picture(
    path: Path, modality: str, shape: tuple[int, ...], study: dict[str, Any], **elements: Any
) -> list[Path]:
    """An image without a place in space: (rows, columns), or (frames, rows, columns) for a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(1).integers(0, 250, shape).astype(np.uint8)
    about = {
        "Modality": modality,
        "SeriesInstanceUID": generate_uid(),
        "SeriesDescription": f"{modality} links",
        **study,
    }
    if len(shape) == 3:
        about["NumberOfFrames"] = shape[0]
    return [write_dicom(path, values, sop_class=SOP_CLASSES[modality], **about, **elements)]


def write_volume(
    folder: Path, modality: str, shape: tuple[int, ...], study: dict[str, Any], **elements: Any
) -> list[Path]:
    """A series of oblique slices, (slices, rows, columns), first slice first."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(2).integers(0, 2000, shape).astype(np.uint16)
    about = {"Modality": modality, "SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid(), **study}
    about |= {
        "SeriesDescription": f"{modality} axial é",
        "PixelSpacing": list(SPACING),
        "SliceThickness": STEP,
        **elements,
    }
    about["ImageOrientationPatient"] = ORIENTATION.ravel().tolist()
    paths = []
    for number, plane in enumerate(values):
        position = (np.array([-7.0, 3.0, 11.0]) + number * STEP * np.cross(*ORIENTATION)).round(6).tolist()
        path = folder / f"slice {(70 * number) % 101}.dcm"  # names in another order than places
        paths.append(write_dicom(path, plane, sop_class=SOP_CLASSES[modality], ImagePositionPatient=position, **about))
    return paths


def headers_of(images: Sequence[Path]) -> list[Dataset]:
    return [pydicom.dcmread(image) for image in images]


# --- what is drawn on them ------------------------------------------------------------------------------------------


def write_seg(path: Path, images: Sequence[Path], masks: Masks, kind: str = "BINARY", **elements: Any) -> Path:
    """A SEG of one segment a mask, by highdicom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stacked = np.stack([np.atleast_3d(mask.T).T for mask in masks.values()], axis=-1)
    segmentation = hd.seg.Segmentation(
        source_images=headers_of(images),
        pixel_array=stacked.astype(float if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=[_described(number, name) for number, name in enumerate(masks, start=1)],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
        series_description="Segmentierung",
    )
    for keyword, value in {"SpecificCharacterSet": "ISO_IR 192", **elements}.items():
        setattr(segmentation, keyword, value)
    segmentation.save_as(path)
    return path


def write_clip_seg(path: Path, clip: Path, masks: Mapping[int, NDArray[Any]]) -> Path:
    """A SEG of one segment, drawn on these frames (from 1) of a clip, of which highdicom 0.27 itself makes none."""
    header = pydicom.dcmread(clip)
    write_seg(path, [clip.with_name("one.dcm")], {"a": next(iter(masks.values()))})
    dataset = pydicom.dcmread(path)
    frames = []
    for number in masks:
        frame = copy.deepcopy(dataset.PerFrameFunctionalGroupsSequence[0])
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber = header.SOPInstanceUID, number
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = frames, len(frames)
    listed = dataset.ReferencedSeriesSequence[0]
    listed.SeriesInstanceUID = header.SeriesInstanceUID
    listed.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = header.SOPInstanceUID
    bits = np.packbits(np.stack(list(masks.values())), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset.save_as(path)
    return path


def _described(number: int, name: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="MANUAL",
    )


def write_rtstruct(path: Path, images: Sequence[Path], masks: Masks, frame_of_reference: str | None = None) -> Path:
    """A structure set whose contours run along the edges of the pixels, one region a mask, by pydicom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    headers = headers_of(images)
    space = frame_of_reference or headers[0].FrameOfReferenceUID
    referenced = [
        item(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in headers
    ]
    series = item(SeriesInstanceUID=headers[0].SeriesInstanceUID, ContourImageSequence=referenced)
    study = item(ReferencedSOPInstanceUID=headers[0].StudyInstanceUID, RTReferencedSeriesSequence=[series])
    dataset = Dataset()
    dataset.update({element.tag: element for element in headers[0] if element.keyword in study_of()})
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesDescription = generate_uid(), "RTSTRUCT", "Konturen"
    dataset.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=space, RTReferencedStudySequence=[study])]
    dataset.StructureSetROISequence = [
        item(ROINumber=number, ReferencedFrameOfReferenceUID=space, ROIName=name)
        for number, name in enumerate(masks, 1)
    ]
    dataset.ROIContourSequence = [
        item(ReferencedROINumber=number, ContourSequence=_contours(mask, headers))
        for number, mask in enumerate(masks.values(), 1)
    ]
    dataset.save_as(path, enforce_file_format=True)
    return path


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _contours(mask: NDArray[Any], headers: Sequence[Dataset]) -> list[Dataset]:
    return [contour(header, loop) for header, plane in zip(headers, mask, strict=True) for loop in edge_loops(plane)]


def contour(header: Dataset, outline: NDArray[Any], geometry: str = "CLOSED_PLANAR") -> Dataset:
    """A contour through points given as column and row of a slice."""
    axes = np.reshape(header.ImageOrientationPatient, (2, 3)) * np.array(header.PixelSpacing)[::-1, np.newaxis]
    points = np.array(header.ImagePositionPatient) + outline @ axes
    image = item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    data = [f"{number:.6f}" for number in points.ravel()]
    about = {"ContourGeometricType": geometry, "NumberOfContourPoints": len(points), "ContourData": data}
    return item(ContourImageSequence=[image], **about)


def edge_loops(plane: NDArray[Any]) -> list[NDArray[Any]]:
    """The edges between marked and other pixels, chained into closed loops of column and row."""
    onwards: dict[tuple[int, int], list[tuple[int, int]]] = {}
    padded = np.pad(plane.astype(bool), 1)
    for row, column in np.argwhere(padded):
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        beside = [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]
        for number, other in enumerate(beside):
            if not padded[other]:
                onwards.setdefault(corners[number], []).append(corners[(number + 1) % 4])
    loops = []
    while onwards:
        start = here = next(iter(onwards))
        loop = []
        while not loop or here != start:
            loop.append(here)
            after = onwards[here].pop()
            if not onwards[here]:
                del onwards[here]
            here = after
        loops.append(np.array(loop) - 1.5)  # of the padding, and from a pixel's corner to its middle
    return loops


# --- Slicer's database ----------------------------------------------------------------------------------------------

_COLUMNS = {
    "SchemaInfo": "'Version' VARCHAR(1024) NOT NULL",
    "Images": "'SOPInstanceUID' VARCHAR(64) NOT NULL, 'Filename' VARCHAR(1024) {filename}, "
    "'SeriesInstanceUID' VARCHAR(64) NOT NULL, 'InsertTimestamp' VARCHAR(20) NOT NULL, "
    "'DisplayedFieldsUpdatedTimestamp' DATETIME NULL, PRIMARY KEY ('SOPInstanceUID')",
    "Patients": "'UID' INTEGER PRIMARY KEY AUTOINCREMENT, 'PatientsName' VARCHAR(255) NULL, "
    "'PatientID' VARCHAR(255) NULL, 'PatientsBirthDate' DATE NULL, 'PatientsBirthTime' TIME NULL, "
    "'PatientsSex' VARCHAR(1) NULL, 'PatientsAge' VARCHAR(10) NULL, 'PatientsComments' VARCHAR(255) NULL, "
    "'InsertTimestamp' VARCHAR(20) NOT NULL, 'DisplayedPatientsName' VARCHAR(255) NULL, "
    "'DisplayedNumberOfStudies' INT NULL, 'DisplayedLastStudyDate' DATE NULL, "
    "'DisplayedFieldsUpdatedTimestamp' DATETIME NULL{connections}",
    "Studies": "'StudyInstanceUID' VARCHAR(64) NOT NULL, 'PatientsUID' INT NOT NULL, 'StudyID' VARCHAR(255) NULL, "
    "'StudyDate' DATE NULL, 'StudyTime' VARCHAR(20) NULL, 'StudyDescription' VARCHAR(255) NULL, "
    "'AccessionNumber' VARCHAR(255) NULL, 'ModalitiesInStudy' VARCHAR(255) NULL, 'InstitutionName' VARCHAR(255) NULL, "
    "'ReferringPhysician' VARCHAR(255) NULL, 'PerformingPhysiciansName' VARCHAR(255) NULL, "
    "'InsertTimestamp' VARCHAR(20) NOT NULL, 'DisplayedNumberOfSeries' INT NULL, "
    "'DisplayedFieldsUpdatedTimestamp' DATETIME NULL, PRIMARY KEY ('StudyInstanceUID')",
    "Series": "'SeriesInstanceUID' VARCHAR(64) NOT NULL, 'StudyInstanceUID' VARCHAR(64) NOT NULL, "
    "'SeriesNumber' INT NULL, 'SeriesDate' DATE NULL, 'SeriesTime' VARCHAR(20) NULL, "
    "'SeriesDescription' VARCHAR(255) NULL, 'Modality' VARCHAR(20) NULL, 'BodyPartExamined' VARCHAR(255) NULL, "
    "'FrameOfReferenceUID' VARCHAR(64) NULL, 'AcquisitionNumber' INT NULL, 'ContrastAgent' VARCHAR(255) NULL, "
    "'ScanningSequence' VARCHAR(45) NULL, 'EchoNumber' INT NULL, 'TemporalPosition' INT NULL, "
    "'InsertTimestamp' VARCHAR(20) NOT NULL, 'DisplayedCount' INT NULL, 'DisplayedSize' VARCHAR(20) NULL, "
    "'DisplayedNumberOfFrames' INT NULL, 'DisplayedFieldsUpdatedTimestamp' DATETIME NULL, "
    "PRIMARY KEY ('SeriesInstanceUID')",
    "Directories": "'Dirname' VARCHAR(1024), PRIMARY KEY ('Dirname')",
}
"""The tables and columns of CTK's dicom-schema.sql that have to do with files (the others say how lists look)."""


def write_database(folder: Path, files: Iterable[Path], version: str = "0.8.1", remote: Iterable[Path] = ()) -> Path:
    """Slicer's database over DICOM files: those in the folder by relative names, others by absolute ones.

    Args:
        folder: where ``ctkDICOM.sql`` is put.
        files: any DICOM files.
        version: of the layout.
        remote: those of the files that the database shall know from a server only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = version.startswith("0.8")
    parts = {"filename": "NULL, 'URL' VARCHAR(2048) NULL" if new else "NOT NULL"}
    parts["connections"] = ", 'Connections' VARCHAR(2048) NULL" if new else ""
    elsewhere = set(remote)
    with closing(sqlite3.connect(folder / "ctkDICOM.sql")) as database:
        for table, columns in _COLUMNS.items():
            database.execute(f"CREATE TABLE '{table}' ({columns.format(**parts)})")
        database.execute("CREATE UNIQUE INDEX 'ImagesFilenameIndex' ON 'Images' ('Filename')")
        database.execute("CREATE INDEX 'ImagesSeriesIndex' ON 'Images' ('SeriesInstanceUID')")
        database.execute("INSERT INTO SchemaInfo VALUES (?)", [version])
        database.execute(
            "INSERT INTO Patients (UID, PatientsName, InsertTimestamp) VALUES (1, ?, '')", ["Müller^Łucja"]
        )
        for file in files:
            _insert(database, folder, file, file in elsewhere)
        database.commit()
    return folder


def _insert(database: sqlite3.Connection, folder: Path, file: Path, remote: bool) -> None:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    date = header.get("StudyDate", "")
    study = (header.StudyInstanceUID, f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else None, header.StudyDescription)
    words = (header.get("SeriesDescription"), header.Modality, header.get("FrameOfReferenceUID"))
    name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
    image = {"SOPInstanceUID": header.SOPInstanceUID, "SeriesInstanceUID": header.SeriesInstanceUID}
    image |= {"URL": "https://server/dicom-web"} if remote else {"Filename": name}
    database.execute(
        "INSERT OR IGNORE INTO Studies (StudyInstanceUID, PatientsUID, StudyDate, StudyDescription, InsertTimestamp) "
        "VALUES (?, 1, ?, ?, '')",
        study,
    )
    database.execute(
        "INSERT OR IGNORE INTO Series (SeriesInstanceUID, StudyInstanceUID, SeriesDescription, Modality, "
        "FrameOfReferenceUID, InsertTimestamp) VALUES (?, ?, ?, ?, ?, '')",
        (header.SeriesInstanceUID, study[0], *words),
    )
    places = ", ".join("?" * len(image))
    database.execute(
        f"INSERT OR IGNORE INTO Images ({', '.join(image)}, InsertTimestamp) VALUES ({places}, '')",
        list(image.values()),
    )
