"""Masks on an image's grid: from the frames of a DICOM segmentation, and from the contours of a structure set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.dicom_files import Frame
from radllm_backend.imaging.dicom_segmentations import (
    SegmentFrame,
    closed_contours,
    frames_of,
    is_label_map,
    read_header,
    readable,
)

# How far a frame or contour may lie from the image's grid, in voxels: as far as a slice may that makes up a volume.
_OFF_GRID = 0.1
# Contours are drawn on a grid this much finer, of which the middle of each pixel counts.
_FINER = 8


def draw_segment(file: Path, number: int, image: sitk.Image, planes: Sequence[Frame]) -> sitk.Image:
    """One segment of a SEG as a mask.

    Frames lie where they say, or else on the image that they refer to. Of a fractional segmentation the lesion is
    what belongs to it by half at least.

    Args:
        file: the SEG.
        number: the segment's.
        image: 3D in space; or 2D without a place, on whose own frames the segment then lies.
        planes: the frames that the image was read from.

    Returns:
        1 in the segment, 0 elsewhere (uint8), on the image's grid.

    Raises:
        RadllmError: the SEG cannot be read, lies on another grid, or does not say where it lies.
    """
    header = read_header(file)
    with readable(file):
        frames = [frame for frame in frames_of(header) if frame.number in (number, None)]
        mask = np.zeros(image.GetSize()[::-1], np.uint8)
        if mask.ndim == 2:
            frames = [frame for frame in frames if _lies_on(frame, planes)]
            for shown in _shown(file, header, frames, number):
                if shown.shape != mask.shape:
                    raise _other_grid(file)
                mask |= shown
        else:
            for frame, shown in zip(frames, _shown(file, header, frames, number), strict=True):
                _lay(mask, shown, _place(file, frame, planes), image, file)
        return _on_grid_of(image, mask)


def _shown(file: Path, header: Dataset, frames: Sequence[SegmentFrame], number: int) -> list[NDArray[np.bool_]]:
    """What each frame shows of a segment, (rows, columns)."""
    stored = pydicom.dcmread(file)
    values = [_stored_frame(stored, frame.index) for frame in frames]  # a whole-body SEG has thousands of others
    if is_label_map(header):
        return [pixels == number for pixels in values]
    least = header.MaximumFractionalValue / 2 if header.get("SegmentationType") == "FRACTIONAL" else 1
    return [pixels >= least for pixels in values]


def _stored_frame(stored: Dataset, index: int) -> NDArray[Any]:
    """The values of one frame, (rows, columns)."""
    shape = (stored.Rows, stored.Columns)
    if stored.BitsAllocated == 1 and not stored.file_meta.TransferSyntaxUID.is_encapsulated:
        # Neither pydicom 3.0 nor highdicom 0.27 gets at a single frame that does not begin with a byte.
        first, count = index * shape[0] * shape[1], shape[0] * shape[1]
        packed = np.frombuffer(stored.PixelData[first // 8 : -(-(first + count) // 8)], np.uint8)
        return np.unpackbits(packed, bitorder="little")[first % 8 :][:count].reshape(shape)
    try:
        from pydicom.pixels import pixel_array
    except ImportError as error:  # pydicom 2
        raise RadllmError("Reading this segmentation needs pydicom 3: pip install 'radllm-backend[dicom]'.") from error
    return pixel_array(stored, index=index)


def _lies_on(frame: SegmentFrame, planes: Sequence[Frame]) -> bool:
    """Whether a frame was drawn on the only plane; one that does not say so is taken to be."""
    own = {
        (str(plane.header.get("SOPInstanceUID", "")), number) for plane in planes for number in (None, plane.index + 1)
    }
    return not frame.sources or any(source in own for source in frame.sources)


def _place(file: Path, frame: SegmentFrame, planes: Sequence[Frame]) -> Frame:
    """The frame itself where it has a place, or else the plane of the image that it was drawn on."""
    if frame.place.has_geometry:
        return frame.place
    for plane in planes:
        own = (str(plane.header.get("SOPInstanceUID", "")), plane.index + 1)
        if any(uid == own[0] and number in (None, own[1]) for uid, number in frame.sources) and plane.has_geometry:
            return plane
    raise RadllmError(f"{file.name} does not say where its frames lie in the image: export it again.")


def _lay(mask: NDArray[np.uint8], shown: NDArray[np.bool_], place: Frame, image: sitk.Image, file: Path) -> None:
    """Mark the voxels that a frame shows, whichever way its rows and columns run through the volume."""
    rows, columns = np.nonzero(shown)
    if not rows.size:
        return
    corner, along_row, along_column = _indices(
        place.position + np.array([np.zeros(3), place.axes[0] * place.spacing[0], place.axes[1] * place.spacing[1]]),
        image,
    )
    along_row, along_column = along_row - corner, along_column - corner
    exact = corner + np.outer(columns, along_row) + np.outer(rows, along_column)
    x, y, z = voxels = np.rint(exact).astype(int).T
    one_step = all(np.abs(np.rint(step)).sum() == 1 for step in (along_row, along_column))
    if not one_step or np.abs(exact.T - voxels).max() > _OFF_GRID or not _same_depth(place, image):
        raise _other_grid(file)
    if voxels.min() < 0 or (voxels.max(axis=1) >= np.array(image.GetSize())).any():
        raise RadllmError(f"{file.name} marks voxels outside the image: segment this image.")
    mask[z, y, x] = 1


def _same_depth(place: Frame, image: sitk.Image) -> bool:
    """Whether the frames follow each other as the image's slices do, if they say so."""
    depth = float(place.header.get("SpacingBetweenSlices") or 0)
    step = np.abs(np.diff(_indices(np.array([np.zeros(3), depth * place.axes[2]]), image), axis=0)).max()
    along = int(np.abs(np.reshape(image.GetDirection(), (3, 3)).T @ place.axes[2]).argmax())
    return depth == 0 or image.GetSize()[along] == 1 or abs(step - 1) <= _OFF_GRID


def _indices(points: NDArray[np.float64], image: sitk.Image) -> NDArray[np.float64]:
    """Voxel indices, x first and with a fraction, of points in mm, (points, 3)."""
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return np.linalg.solve(axes, (points - image.GetOrigin()).T).T


def _other_grid(file: Path) -> RadllmError:
    return RadllmError(
        f"{file.name} lies on another grid than the image: segment this image, or resample the mask to it."
    )


def _on_grid_of(image: sitk.Image, mask: NDArray[np.uint8]) -> sitk.Image:
    marked = sitk.GetImageFromArray(mask)
    marked.CopyInformation(image)
    return marked


def draw_region(file: Path, number: int, image: sitk.Image) -> sitk.Image:
    """One region of an RTSTRUCT as a mask: the voxels whose centre lies inside its contours or on them.

    Where contours of a slice lie inside each other, every second one is the edge of a hole (even-odd rule). Nothing
    is put between contours that leave out slices.

    Args:
        file: the RTSTRUCT.
        number: the region's.
        image: 3D in space.

    Returns:
        1 in the region, 0 elsewhere (uint8), on the image's grid.

    Raises:
        RadllmError: the RTSTRUCT cannot be read, the image has no place in space, or its slices are not those of the
            contours.
    """
    header = read_header(file)
    if image.GetDimension() != 3:
        raise RadllmError(f"{file.name} lies in space, but its image does not say where it lies: segment the image.")
    mask = np.zeros(image.GetSize()[::-1], np.uint8)
    with readable(file):
        for contour in closed_contours(header, number):
            outline = _indices(np.reshape(np.array(contour.ContourData, float), (-1, 3)), image)
            level = round(outline[:, 2].mean())
            if np.abs(outline[:, 2] - level).max() > _OFF_GRID:
                raise RadllmError(f"{file.name} has contours beside the image's slices: draw them on this image.")
            if not 0 <= level < len(mask):
                raise RadllmError(f"{file.name} has contours outside the image: draw them on this image.")
            _fill(mask[level], outline[:, :2])
    return _on_grid_of(image, mask)


def _fill(plane: NDArray[np.uint8], outline: NDArray[np.float64]) -> None:
    """Turn over, in a slice, the pixels inside an outline in x and y or on it."""
    lowest = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
    highest = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, plane.shape[::-1])
    if (highest <= lowest).any():
        return  # beside the image
    drawn = Image.new("L", tuple((highest - lowest) * _FINER))
    finer = np.rint((outline - lowest) * _FINER + _FINER // 2)
    ImageDraw.Draw(drawn).polygon([(x, y) for x, y in finer.tolist()], fill=1)
    middles = np.asarray(drawn)[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER]
    plane[lowest[1] : highest[1], lowest[0] : highest[0]] ^= middles
