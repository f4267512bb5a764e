"""DICOM files and folders: pixel values as the standard means them, on the grid that the header gives.

The rules are the same whichever decoder is installed:

- Values are stored value x Rescale Slope + Rescale Intercept, applied once, frame by frame; a Modality LUT is not.
- MONOCHROME1 (low is white) is turned into MONOCHROME2, so that dense tissue is bright: before rescaling, a stored
  value v becomes 2^BitsStored - 1 - v, or -1 - v where it is signed. It does not depend on the picture's content.
- The pixel size is Pixel Spacing, else Imager Pixel Spacing (the detector's, not corrected for magnification), else
  Nominal Scanned Pixel Spacing (a digitised film's), else the only one that the ultrasound regions give in cm.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from radllm_backend.errors import RadllmError
from radllm_backend.files import is_dicom
from radllm_backend.imaging.dicom_decoding import stored_values
from radllm_backend.records import MODALITIES

_FRAME_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_CENTIMETRES = 3
# The largest distance of a slice from its place on an even grid, in slices. Scanners that write positions to 0.1 mm
# stay below it; a missing slice moves at least one of its neighbours by half a slice.
_UNEVENNESS = 0.1


class DicomImage(NamedTuple):
    """What a DICOM file or series holds; ``pixels`` has three components where it is in colour."""

    pixels: sitk.Image
    has_geometry: bool
    spacing_known: bool
    modality: str | None


@dataclass(frozen=True)
class Frame:
    """One picture of a file, with a header of its own (an enhanced file's functional groups are laid into it)."""

    file: Path
    index: int
    header: Dataset

    @property
    def spacing(self) -> np.ndarray:
        """Pixel size in mm, x before y; empty where the header has none."""
        for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
            row_and_column = _numbers(self.header, keyword)
            if row_and_column.size and (row_and_column > 0).all():
                return row_and_column[::-1]
        return _ultrasound_spacing(self.header)

    @property
    def position(self) -> np.ndarray:
        """Centre of the first pixel, in mm; empty where the header has none."""
        return _numbers(self.header, "ImagePositionPatient")

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors of x, y and the slice normal, as rows of a 3 x 3 array."""
        x, y = _numbers(self.header, "ImageOrientationPatient").reshape(2, 3)
        return np.array([x, y, np.cross(x, y)])

    @property
    def has_geometry(self) -> bool:
        orientation = _numbers(self.header, "ImageOrientationPatient")
        return min(self.position.size, orientation.size, self.spacing.size) > 0


def _numbers(header: Dataset, keyword: str) -> np.ndarray:
    return np.array(header.get(keyword) or (), dtype=float)


def _ultrasound_spacing(header: Dataset) -> np.ndarray:
    """The pixel size that all regions measured in cm agree on."""
    regions: list[Dataset] = header.get("SequenceOfUltrasoundRegions") or []
    in_cm = [r for r in regions if r.get("PhysicalUnitsXDirection") == r.get("PhysicalUnitsYDirection") == _CENTIMETRES]
    sizes = {(10 * abs(float(r.PhysicalDeltaX)), 10 * abs(float(r.PhysicalDeltaY))) for r in in_cm}
    size = np.array(sizes.pop() if len(sizes) == 1 else ())
    return size if size.all() else np.array(())


def read_dicom(path: Path, series: str | None = None, *, invert_monochrome1: bool = True) -> DicomImage:
    """Read a file, or the folder of one series (``series``: its Series Instance UID), as a 2D or 3D image.

    Slices and frames with a position become a volume; one of them alone keeps its place in space as a one-slice
    volume; a picture without a position is a 2D image.

    Raises:
        RadllmError: the file is damaged or holds no image; the folder holds no or several series; the slices do not
            make an even volume.
    """
    with _damaged(path.name):
        frames = read_frames(path, series)
        if len(frames) > 1:
            frames = _sorted_slices(path.name, frames)
        values = _pixels(frames, invert_monochrome1)
        first = frames[0]
        pixels = _located(values, frames) if first.has_geometry else _unlocated(values, first)
    modality = first.header.get("Modality")
    known_modality = modality if modality in MODALITIES else None
    return DicomImage(pixels, first.has_geometry, first.spacing.size > 0, known_modality)


@contextmanager
def _damaged(name: str) -> Iterator[None]:
    """Turn whatever the parsers and decoders raise about a damaged file into the one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pydicom's remarks on a header that it can read all the same
            yield
    except (RadllmError, OSError):
        raise
    except Exception as error:
        raise RadllmError(f"{name} is damaged, or is no DICOM image: export it again.") from error


def read_frames(path: Path, series: str | None) -> list[Frame]:
    """The frames of a file, or of the one wanted series of a folder."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    headers = {file: _header(file) for file in files if is_dicom(file)}
    images = {file: header for file, header in headers.items() if "Rows" in header}
    if not images:
        raise RadllmError(f"{path.name} holds no DICOM image: give an image, or the folder of one series.")
    found = sorted({str(header.get("SeriesInstanceUID", "")) for header in images.values()})
    if series is None and len(found) > 1:
        raise RadllmError(f"{path.name} holds {len(found)} series: pass series=UID, one of {', '.join(found)}.")
    if series is not None and series not in found:
        raise RadllmError(f"{path.name} does not hold the series {series}, but {', '.join(found)}.")
    wanted = found[0] if series is None else series
    return [
        frame
        for file, header in images.items()
        if header.get("SeriesInstanceUID", "") == wanted
        for frame in _frames_of(file, header)
    ]


def _header(file: Path) -> Dataset:
    with _damaged(file.name):
        return pydicom.dcmread(file, stop_before_pixels=True)


def _frames_of(file: Path, header: Dataset) -> list[Frame]:
    if header.get("Modality") == "SEG":
        raise RadllmError(f"{file.name} is a DICOM segmentation: load it in 3D Slicer and export it as .seg.nrrd.")
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [Frame(file, index, header) for index in range(count)]
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return [Frame(file, index, _with_groups(header, shared[0], per_frame[index])) for index in range(count)]


def _with_groups(header: Dataset, *groups: Dataset) -> Dataset:
    """The header of one frame of an enhanced file, flat like that of a classic file."""
    frame_header = Dataset()
    frame_header.update(header)
    for group in groups:
        for keyword in _FRAME_GROUPS:
            for item in group.get(keyword) or []:
                frame_header.update(item)
    return frame_header


def _sorted_slices(name: str, frames: list[Frame]) -> list[Frame]:
    """The frames in order along their normal, if together they fill an even grid."""
    files = {frame.file for frame in frames}
    if not all(frame.has_geometry for frame in frames):
        if len(files) == 1:
            raise RadllmError(f"{name} holds {len(frames)} frames without a position: give one frame as its own file.")
        raise RadllmError(f"{name} holds {len(frames)} separate 2D images: give one of its files.")
    first = frames[0]
    if any((frame.header.Rows, frame.header.Columns) != (first.header.Rows, first.header.Columns) for frame in frames):
        raise RadllmError(f"{name} holds slices of different sizes: give a folder with the slices of one volume.")
    grids = [np.concatenate([frame.axes.ravel(), frame.spacing]) for frame in frames]
    if not np.allclose(grids, grids[0], rtol=0, atol=1e-4):
        raise RadllmError(f"{name} holds slices of different direction or pixel size: give the slices of one volume.")
    heights = np.array([frame.position @ first.axes[2] for frame in frames])
    order = np.argsort(heights, kind="stable")
    _check_even(name, heights[order])
    _check_upright(name, [frames[index] for index in order])
    return [frames[index] for index in order]


def _check_even(name: str, heights: np.ndarray) -> None:
    step = (heights[-1] - heights[0]) / (len(heights) - 1)
    if (np.diff(heights) < _UNEVENNESS * step).any() or step == 0:
        raise RadllmError(f"{name} holds several slices at one position: give the slices of one phase or echo.")
    even = heights[0] + step * np.arange(len(heights))
    if (np.abs(heights - even) > _UNEVENNESS * step).any():
        gap = np.diff(heights).max()
        raise RadllmError(f"{name} lacks slices or has uneven ones (gaps up to {gap:g} mm): give the complete series.")


def _check_upright(name: str, slices: list[Frame]) -> None:
    """Refuse a volume whose slices are shifted against each other: no image grid can hold it."""
    shifts = np.array([frame.position - slices[0].position for frame in slices]) @ slices[0].axes[:2].T
    if (np.abs(shifts) > _UNEVENNESS * slices[0].spacing).any():
        raise RadllmError(f"{name} was taken with a tilted gantry: resample it to an upright volume first.")


def _pixels(frames: list[Frame], invert_monochrome1: bool) -> np.ndarray:
    """Pixel values, (slices, rows, columns) or (slices, rows, columns, 3)."""
    stored = {file: _stored_values(file) for file in {frame.file for frame in frames}}
    values = [_values(stored[frame.file][frame.index], frame, invert_monochrome1) for frame in frames]
    return np.stack(values) if len(values) > 1 else values[0][np.newaxis]  # a mammogram is not copied


def _stored_values(file: Path) -> np.ndarray:
    """The file's values as `dicom_decoding.stored_values` gives them."""
    with _damaged(file.name):
        return stored_values(pydicom.dcmread(file))


def _values(stored: np.ndarray, frame: Frame, invert_monochrome1: bool) -> np.ndarray:
    header = frame.header
    if stored.ndim == 3:
        return stored
    if header.PhotometricInterpretation == "MONOCHROME1" and invert_monochrome1:
        stored = -1 - stored if header.PixelRepresentation else (2**header.BitsStored - 1) - stored
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    if (slope, intercept) == (1, 0):
        return stored
    values = stored * slope + intercept
    whole = slope.is_integer() and intercept.is_integer() and np.abs(values).max() < 2**31
    return values.astype(np.int32) if whole else values


def _located(pixels: np.ndarray, slices: list[Frame]) -> sitk.Image:
    image = sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 4)
    first = slices[0]
    height = (slices[-1].position - first.position) @ first.axes[2]
    image.SetSpacing((*first.spacing.tolist(), float(height) / (len(slices) - 1) if len(slices) > 1 else 1.0))
    image.SetOrigin(first.position.tolist())
    image.SetDirection(first.axes.T.ravel().tolist())
    return image


def _unlocated(pixels: np.ndarray, frame: Frame) -> sitk.Image:
    image = sitk.GetImageFromArray(pixels[0], isVector=pixels.ndim == 4)
    if frame.spacing.size:
        image.SetSpacing(frame.spacing.tolist())
    return image
