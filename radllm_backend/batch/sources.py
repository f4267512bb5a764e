"""All lesions of 3D Slicer's DICOM database, of a folder of DICOM files, or of a CSV manifest; headers only."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path

import pydicom
from pydantic import field_validator
from pydicom.uid import MediaStorageDirectoryStorage

from radllm_backend.batch.candidates import Candidate, Found, Refusal
from radllm_backend.batch.matching import Series, as_day, candidates_among
from radllm_backend.datasets.manifest import FILE_COLUMNS
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_rows
from radllm_backend.files import is_dicom
from radllm_backend.imaging import dicom_files
from radllm_backend.imaging.dicom_segmentations import readable
from radllm_backend.imaging.lesion import parse_spacing
from radllm_backend.records import MODALITIES, Record

DATABASE = "ctkDICOM.sql"
"""The file that 3D Slicer keeps its DICOM database in."""
SCHEMAS = ("0.7.0", "0.8.1")
"""The layouts of it that can be read: of Slicer 5.6, and of 5.8 and later."""
PATIENCE = 10.0
"""Seconds to wait while Slicer writes."""

_QUERY = """
    SELECT Series.SeriesInstanceUID, Series.Modality, Series.SeriesDescription, Studies.StudyDescription,
           Studies.StudyDate, Series.FrameOfReferenceUID, Images.SOPInstanceUID, Images.Filename
    FROM Series
    LEFT JOIN Studies ON Studies.StudyInstanceUID = Series.StudyInstanceUID
    LEFT JOIN Images ON Images.SeriesInstanceUID = Series.SeriesInstanceUID
"""
_Row = tuple[str, str | None, str | None, str | None, str | None, str | None, str | None, str | None]
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "StudyDescription",
    "StudyDate", "FrameOfReferenceUID",
]  # fmt: skip
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


# --- Slicer's database ----------------------------------------------------------------------------------------------


def find_in_database(folder: Path) -> Found:
    """All lesions of 3D Slicer's DICOM database, which may be in use; nothing in it is changed.

    Args:
        folder: the database folder, which holds ``ctkDICOM.sql``.

    Raises:
        RadllmError: there is no database, it has another layout, or it stays locked.
    """
    folder = Path(folder).absolute()
    file = folder / DATABASE
    if not file.is_file():
        raise RadllmError(
            f"{folder.name} holds no {DATABASE}: choose the database folder that 3D Slicer's settings name."
        )
    series: dict[str, Series] = {}
    for uid, modality, description, study, date, space, instance, name in _rows_of(file):
        known = series.setdefault(
            uid,
            Series(uid, modality or "", description or "", study or "", as_day(date), frame_of_reference=space or None),
        )
        if instance:
            known.files[instance] = folder / name if name else None
    return candidates_among(series.values())


def _rows_of(file: Path) -> list[_Row]:
    """Every image with its series and study, or RadllmError."""
    try:
        return _queried_anywhere(file)
    except sqlite3.OperationalError as error:
        advice = (
            "3D Slicer is writing to it: try again later" if _is_locked(error) else "let 3D Slicer open and repair it"
        )
        raise RadllmError(f"{DATABASE} cannot be read ({error}): {advice}.") from error
    except sqlite3.DatabaseError as error:
        raise RadllmError(f"{DATABASE} is damaged ({error}): let 3D Slicer make the database anew.") from error


def _queried_anywhere(file: Path) -> list[_Row]:
    try:
        return _queried(file, "mode=ro")
    except sqlite3.OperationalError as error:
        # A database in WAL mode wants files beside it, which a read-only medium does not take. Where there are none,
        # nobody is writing.
        if _is_locked(error) or file.with_name(f"{DATABASE}-wal").exists():
            raise
        return _queried(file, "mode=ro&immutable=1")


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return "locked" in str(error)


def _queried(file: Path, options: str) -> list[_Row]:
    with closing(sqlite3.connect(f"{file.as_uri()}?{options}", uri=True, timeout=PATIENCE)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'SchemaInfo'").fetchall()
        version = connection.execute("SELECT Version FROM SchemaInfo").fetchone() if tables else None
        layout = version[0] if version else "of another program"
        if layout not in SCHEMAS:
            raise RadllmError(
                f"{DATABASE} has the layout {layout}, not {' or '.join(SCHEMAS)}: "
                "open it with a current 3D Slicer, which brings it up to date."
            )
        rows: list[_Row] = connection.execute(_QUERY).fetchall()
        return rows


# --- a folder of DICOM files ----------------------------------------------------------------------------------------


def find_in_folder(folder: Path) -> Found:
    """All lesions of the DICOM files in a folder and the folders in it; of two files of one instance, the first counts.

    Raises:
        RadllmError: there is no such folder.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise RadllmError(f"There is no folder {folder.name}: check the path.")
    series: dict[str, Series] = {}
    refusals = []
    for file in _files_in(folder):
        try:
            _add_file(series, file)
        except RadllmError as problem:
            refusals.append(Refusal(what=file.name, reason=str(problem)))
    found = candidates_among(series.values())
    return found.model_copy(update={"refusals": [*refusals, *found.refusals]})


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place) / name for name in sorted(names))


def _add_file(series: dict[str, Series], file: Path) -> None:
    """Put a DICOM file into its series; any other file is passed over, unless it is called one."""
    with readable(file):
        if not is_dicom(file):
            if file.suffix.lower() in _DICOM_SUFFIXES:
                raise RadllmError(f"{file.name} is damaged, or is no DICOM file: copy or export it again.")
            return
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return  # the table of contents of a CD
        own = _series_of(header)
        instance = str(header.SOPInstanceUID)
    series.setdefault(own.uid, own).files.setdefault(instance, file)


def _series_of(header: pydicom.Dataset) -> Series:
    """The series that a file says it is of, without files yet."""
    return Series(
        uid=str(header.SeriesInstanceUID),
        modality=str(header.get("Modality") or ""),
        description=str(header.get("SeriesDescription") or ""),
        study_description=str(header.get("StudyDescription") or ""),
        study_date=as_day(header.get("StudyDate")),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
    )


# --- a manifest -----------------------------------------------------------------------------------------------------


def find_in_manifest(path: Path) -> Found:
    """All lesions of a CSV manifest as `datasets.manifest` describes it; paths are relative to its folder.

    Raises:
        RadllmError: there is no such file, or it is no table with the columns ``image`` and ``mask``.
    """
    path = Path(path).absolute()
    candidates: dict[str, Candidate] = {}
    refusals = []
    for line, row in enumerate(read_rows(path, FILE_COLUMNS[:2]), start=2):
        try:
            candidate = _of_row(row, path.parent)
            if candidate.key in candidates:
                raise RadllmError("The lesion is in an earlier line already: leave this one out.")
            candidates[candidate.key] = candidate
        except RadllmError as problem:
            refusals.append(Refusal(what=f"Line {line} of {path.name}", reason=str(problem)))
    return Found(candidates=list(candidates.values()), refusals=refusals)


def _of_row(row: dict[str, str], folder: Path) -> Candidate:
    image, mask = folder / row["image"], folder / row["mask"]
    label, modality, spacing = (row.get(name) or "" for name in ("mask_label", "modality", "spacing_mm"))
    if label and not label.isdecimal():
        raise RadllmError(f"mask_label is '{label[:40]}': use the whole number that the lesion has in the mask.")
    if modality and modality not in MODALITIES:
        raise RadllmError(f"No model reads the modality '{modality[:40]}': use one of {', '.join(MODALITIES)}.")
    parse_spacing(spacing or None)
    files, series = _image_of_row(image)
    return Candidate(
        kind="mask",
        image=files,
        segmentation=str(mask),
        number=int(label) if label else None,
        segment=row.get("segment") or "",
        series=series,
        source=_hash(mask),
        modality=modality,
        spacing=spacing,
    )


def _image_of_row(image: Path) -> tuple[tuple[str, ...], str]:
    """The files of an image, and its Series Instance UID or else its hash."""
    with readable(image):
        if not image.is_dir() and not is_dicom(image):
            return (str(image),), _hash(image)
        frames = dicom_files.read_frames(image, None)
        files = tuple(sorted({str(frame.file) for frame in frames}))
        return files, str(frames[0].header.get("SeriesInstanceUID") or _hash(Path(files[0])))


def _hash(file: Path) -> str:
    """Of a file's content."""
    with readable(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- choosing -------------------------------------------------------------------------------------------------------


class Filter(Record):
    """Which lesions are wanted; what is empty does not matter.

    Words are looked for anywhere in a text, whichever their case; with ``*``, ``?`` or ``[...]`` in them they are a
    pattern for the whole text.
    """

    modality: str = ""
    description: str = ""
    """Of the series or the study."""
    first_date: str = ""
    """YYYYMMDD or YYYY-MM-DD, included; a study without a date is left out."""
    last_date: str = ""
    segment: str = ""

    @field_validator("first_date", "last_date")
    @classmethod
    def _day(cls, date: str) -> str:
        if date and not as_day(date):
            raise RadllmError(f"'{date[:40]}' is no date: give it as YYYY-MM-DD.")
        return as_day(date)

    def takes(self, candidate: Candidate) -> bool:
        """Whether a lesion is wanted."""
        described = (candidate.series_description, candidate.study_description)
        return (
            _matches(candidate.modality, self.modality)
            and any(_matches(text, self.description) for text in described)
            and self._takes_date(candidate.study_date)
            and _matches(candidate.segment, self.segment)
        )

    def _takes_date(self, date: str) -> bool:
        if not date:
            return not (self.first_date or self.last_date)
        return (self.first_date or date) <= date <= (self.last_date or date)


def selected(found: Found, wanted: Filter) -> Found:
    """The lesions that a filter takes; refusals stay, unless they are of another modality."""

    def of_modality(refusals: list[Refusal]) -> list[Refusal]:
        return [each for each in refusals if not each.modality or _matches(each.modality, wanted.modality)]

    return Found(
        candidates=[candidate for candidate in found.candidates if wanted.takes(candidate)],
        refusals=of_modality(found.refusals),
        unsegmented=of_modality(found.unsegmented),
    )


def _matches(text: str, wanted: str) -> bool:
    text, wanted = text.casefold(), wanted.casefold()
    return fnmatchcase(text, wanted) if any(sign in wanted for sign in "*?[") else wanted in text
