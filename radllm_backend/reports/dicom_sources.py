"""The DICOM files of a lesion's image: which of their frames became which of its slices, and proof that they did."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from radllm_backend.errors import RadllmError
from radllm_backend.files import is_dicom
from radllm_backend.imaging import dicom_files
from radllm_backend.imaging.dicom_files import Frame
from radllm_backend.imaging.image_files import ImageFile, read_image
from radllm_backend.imaging.lesion import Lesion

_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
"""May be empty, but highdicom stumbles where an anonymiser removed one."""
_PATIENT_GROUP = 0x0010
_ORDER_GROUPS = (0x0032, 0x0038, 0x0040)
"""Requests, visits and specimens: nothing of theirs is needed."""
_STUDY = (
    "ReferringPhysicianName", "StudyDescription", "ConsultingPhysicianName", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription", "IssuerOfAccessionNumberSequence",
)  # fmt: skip
# How far a slice may lie from its place on the image's grid, in voxels: as far as one may that makes up a volume.
_OFF_GRID = 0.1
_OFF_AXIS = 1e-3
# How far the same pixel may differ between two decoders of a lossy JPEG, as a share of the grey values' range.
_SAME_PIXELS = 0.02


@dataclass(frozen=True)
class _Plane:
    """One frame of the files and the slice of the lesion's image that it became."""

    frame: Frame
    slice: int


@dataclass(frozen=True, eq=False)
class LesionFrames:
    """The frames of a lesion's image, and the lesion's mask in the order of their frames."""

    headers: list[Dataset]
    """One a file (not its pixels): all slices of a series, or one file; mended where highdicom would stumble."""
    mask: NDArray[np.uint8]
    """1 in the lesion, (frames, rows, columns): ``mask[i]`` belongs to ``headers[i]``, or to frame i of the only file.
    """
    has_place: bool
    """Whether the frames have a place in space; a radiograph has none."""

    def forget_patient(self) -> None:
        """Empty everything in the headers that says who the patient is, who sent them, why, and when the study was."""
        for header in self.headers:
            for element in list(header):
                if element.tag.group in _ORDER_GROUPS:
                    del header[element.tag]
                elif element.tag.group == _PATIENT_GROUP or element.keyword in (*_TYPE_2, *_STUDY):
                    header[element.tag].value = None

    def marked(self) -> list[tuple[Dataset, list[int] | None]]:
        """The header of every file on which the lesion lies, with the frames (from 1) where it can have several."""
        frames = np.flatnonzero(self.mask.any(axis=(1, 2)))
        if len(self.headers) > 1:
            return [(self.headers[frame], None) for frame in frames]
        header = self.headers[0]
        return [(header, (frames + 1).tolist() if "NumberOfFrames" in header else None)]


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """The DICOM files of an image, read and decoded once for all lesions on it; `of_files` and `of_image` make one."""

    frames: list[Frame]
    path: Path | None = None
    """The file, or the folder of the series, of which `read_image` makes the image; None of files from here and there.
    """
    series: str | None = None
    _decoded: dict[Path, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of_files(cls, files: Sequence[str | Path]) -> SourceFiles:
        """Files of an image that somebody else has read, in any order.

        Raises:
            RadllmError: there are none, or they are gone, damaged or no DICOM images.
        """
        return cls(_frames(files))

    @classmethod
    def of_image(cls, path: Path, series: str | None = None) -> SourceFiles:
        """What ``read_image(path, series)`` reads: the file itself, or a folder's series.

        Raises:
            RadllmError: it is no DICOM file, or the folder holds no or several series.
        """
        if not path.is_dir():
            return cls(_frames([path]), path)
        return cls(dicom_files.read_frames(path, series), path, series)

    @cached_property
    def image(self) -> ImageFile:
        """The image, for lesions to be made on; of what `of_image` made."""
        assert self.path is not None
        return read_image(self.path, self.series)

    def shown(self, plane: _Plane) -> NDArray[Any]:
        """The grey values of a frame, [rows, columns]."""
        if self.path:
            return _slice(_stack(self.image.pixels), plane.slice)
        file = plane.frame.file
        if file not in self._decoded:
            self._decoded[file] = _stack(read_image(file).pixels)
        stack = self._decoded[file]
        # A file of several frames is read as a volume, in the order of its slices.
        return _slice(stack, plane.slice if len(stack) > 1 else 0)


def read_source(files: SourceFiles, lesion: Lesion) -> LesionFrames:
    """Find out how the frames of a lesion's DICOM files and the slices of its image belong together.

    Args:
        lesion: on the grid that the files give, as ``read_image`` reads them.

    Raises:
        RadllmError: the files are gone or damaged, or the lesion's image is another one: in size, place, direction or,
            where the mask lies, in its pixels.
    """
    planes = _planes(files.frames, lesion)
    _check_pixels(files, planes, lesion)
    one_file = len({plane.frame.file for plane in planes}) == 1
    in_order = sorted(planes, key=lambda plane: plane.frame.index if one_file else plane.slice)
    # Copies: they are mended and may forget the patient for this lesion alone.
    headers = copy.deepcopy(list({plane.frame.file: plane.frame.header for plane in in_order}.values()))
    has_place = planes[0].frame.has_geometry
    for header in headers:
        _mend(header, headers[0], lesion.image if has_place else None)
    mask = (_stack(lesion.mask) > 0).astype(np.uint8)
    return LesionFrames(headers, mask[[plane.slice for plane in in_order]], has_place)


def _frames(files: Sequence[str | Path]) -> list[Frame]:
    """The frames of all files, each with its header."""
    frames = []
    for file in map(Path, files):
        _check_dicom(file)
        frames += dicom_files.read_frames(file, None)
    if not frames:
        raise RadllmError("The image did not come from DICOM files: only a lesion on a DICOM image becomes DICOM.")
    return frames


def _check_dicom(file: Path) -> None:
    try:
        if not is_dicom(file):
            raise RadllmError(f"{file.name} is no DICOM file: only a lesion on a DICOM image becomes DICOM.")
    except OSError as error:
        reason = error.strerror or error
        raise RadllmError(f"{file.name} cannot be opened ({reason}): put the image's files back.") from error


def _planes(frames: list[Frame], lesion: Lesion) -> list[_Plane]:
    """Which frame became which slice, the first slice first."""
    size = lesion.image.GetSize()
    name = frames[0].file.name
    if any((frame.header.Columns, frame.header.Rows) != size[:2] for frame in frames):
        raise _other_image(name, "another number of rows or columns")
    slices = size[2] if len(size) == 3 else 1
    if len(frames) != slices:
        raise _other_image(name, f"{len(frames)} slices, not {slices}")
    if slices == 1:
        return [_Plane(frames[0], 0)]
    if not all(frame.has_geometry for frame in frames):
        raise _other_image(name, "slices without a position")
    planes = sorted((_Plane(frame, _slice_of(frame, lesion.image)) for frame in frames), key=lambda plane: plane.slice)
    if [plane.slice for plane in planes] != list(range(slices)):
        raise _other_image(name, "slices at other positions")
    return planes


def _slice_of(frame: Frame, image: sitk.Image) -> int:
    """The slice of a volume on which a frame lies, by their places in space."""
    axes = np.reshape(image.GetDirection(), (3, 3)).T
    if np.abs(frame.axes[:2] - axes[:2]).max() > _OFF_AXIS:
        raise _other_image(frame.file.name, "slices in another direction")
    place: NDArray[np.float64] = axes @ (frame.position - image.GetOrigin()) / image.GetSpacing()
    if np.abs(place - [0, 0, round(place[2])]).max() > _OFF_GRID:
        raise _other_image(frame.file.name, "slices at other positions")
    index: int = round(place[2])
    return index


def _other_image(name: str, found: str) -> RadllmError:
    return RadllmError(f"{name} is not this lesion's image (it has {found}): give the files that the image came from.")


def _check_pixels(files: SourceFiles, planes: list[_Plane], lesion: Lesion) -> None:
    """Compare what the frames under the mask show with the lesion's image: the other breast has the same size.

    A constant may lie between them and the sign may be the other, since programs differ in what they make of
    MONOCHROME1.
    """
    values, mask = _stack(lesion.image), _stack(lesion.mask)
    for plane in planes:
        if mask[plane.slice].any() and not _same_pixels(files.shown(plane), values[plane.slice]):
            raise _other_image(plane.frame.file.name, "other pixels")


def _same_pixels(shown: NDArray[Any], own: NDArray[Any]) -> bool:
    if np.array_equal(shown, own):  # the usual case, and much faster
        return True
    shown, own = shown.astype(float), own.astype(float)
    return bool(min(np.ptp(shown - own), np.ptp(shown + own)) <= _SAME_PIXELS * np.ptp(own))


def _slice(stack: NDArray[Any], number: int) -> NDArray[Any]:
    """One frame, [rows, columns], of what `_stack` gave."""
    frame: NDArray[Any] = stack[number]
    return frame


def _stack(image: sitk.Image) -> NDArray[Any]:
    """The values as (slices, rows, columns)."""
    array = sitk.GetArrayFromImage(image)
    return array[np.newaxis] if array.ndim == 2 else array


def _mend(header: Dataset, first: Dataset, image: sitk.Image | None) -> None:
    """Fill what highdicom asks for; ``image`` is that of a lesion whose files have a place in space."""
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, None)
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if image is None:
        # The segmentation leaves the pixel size to its source: highdicom reads none without a slice thickness.
        header.pop("PixelSpacing", None)
        shared.PixelMeasuresSequence = [Dataset()]
        header.SharedFunctionalGroupsSequence = [shared]
        return
    depth = image.GetSpacing()[2] if image.GetDimension() == 3 else 1.0  # of one slice alone nobody knows
    for measured in (header, *(shared.get("PixelMeasuresSequence") or [])):
        measured.SliceThickness = measured.get("SliceThickness") or depth
    header.ImageOrientationPatient = first.ImageOrientationPatient  # scanners round it now and then
