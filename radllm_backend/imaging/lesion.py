"""One lesion: an image and the mask that marks the lesion on it, checked and on one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.content_hash import content_sha256
from radllm_backend.imaging.image_files import ImageFile, Segment, grey, read_image, read_mask
from radllm_backend.records import MODALITIES, Geometry

Spacing = float | Sequence[float]
"""Voxel size in mm: x, y (, z), or one number for all."""

_SPACING_CONTRADICTION = 0.01
_GRID_TOLERANCE = 1e-3  # of a voxel
_DIRECTION_TOLERANCE = 1e-4
_LABELS_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion ready for feature extraction; build one with ``from_files``, ``all_from_files`` or ``from_images``.

    Image and mask are both 2D or both 3D; an image of one slice becomes 2D (origin zero, axes x and y), whichever of
    its axes the slice is. Voxel sizes are kept to single precision, which every file format holds, so that a lesion's
    values do not depend on the format.
    """

    image: sitk.Image
    """Grey values, one a voxel, all finite."""
    mask: sitk.Image
    """1 in the lesion, 0 elsewhere (uint8), on the image's grid."""
    modality: str | None
    """MG, US, CT or MR; None where nobody said."""
    spacing_known: bool
    """False where the voxel size is not known; it is then 1."""
    segment: str = ""
    """The segment's name for people: free text, not to be read by a model."""

    @classmethod
    def from_files(
        cls,
        image: str | Path | ImageFile,
        mask: str | Path | ImageFile,
        *,
        label: int | None = None,
        segment: str | None = None,
        spacing: Spacing | None = None,
        modality: str | None = None,
        resample: bool = False,
        series: str | None = None,
    ) -> Lesion:
        """Read one lesion from an image and a mask (files, or what ``read_image`` and ``read_mask`` returned).

        Args:
            image: a file, or a folder that holds a DICOM series.
            mask: a file of labels or segments; 0 is background.
            label: which label of the mask, where it has several.
            segment: which segment of a ``.seg.nrrd``, by name or ID, where it has several.
            spacing: voxel size in mm for an image without one.
            modality: MG, US, CT or MR for an image that does not say.
            resample: lay a mask of another grid onto the image's (nearest neighbour) instead of refusing it.
            series: which Series Instance UID, where a DICOM folder holds several.

        Raises:
            RadllmError: a file cannot be read, the two do not fit, or the lesion cannot be used.
        """
        image, mask = _files(image, mask, spacing=spacing, modality=modality, series=series)
        return _lesion_of(image, mask, _chosen(mask, label, segment), resample)

    @classmethod
    def all_from_files(
        cls,
        image: str | Path | ImageFile,
        mask: str | Path | ImageFile,
        *,
        spacing: Spacing | None = None,
        modality: str | None = None,
        resample: bool = False,
        series: str | None = None,
    ) -> list[Lesion]:
        """Read every lesion of a mask: one a label, ascending, or one a segment, in the file's order.

        Arguments and errors are those of ``from_files``.
        """
        image, mask = _files(image, mask, spacing=spacing, modality=modality, series=series)
        return [_lesion_of(image, mask, segment, resample) for segment in _segments(mask)]

    @classmethod
    def from_images(
        cls,
        image: sitk.Image,
        mask: sitk.Image,
        *,
        modality: str | None = None,
        spacing_known: bool = True,
        segment: str = "",
        resample: bool = False,
    ) -> Lesion:
        """Check one lesion that is in memory (2D, 3D, or 3D of one slice); in the mask, 0 is background.

        Raises:
            RadllmError: the two do not fit, or the lesion cannot be used.
        """
        in_memory = ImageFile("the image", grey(image, "the image"), True, spacing_known, _known_modality(modality))
        name = f"segment '{segment}'" if segment else "the mask"
        if mask.GetNumberOfComponentsPerPixel() > 1:
            raise RadllmError(f"{name} has several values per voxel: give one label per voxel.")
        mask_file = ImageFile(name, mask, has_geometry=True, spacing_known=True)
        lesion = _lesion_of(in_memory, mask_file, _chosen(mask_file, None, None), resample)
        return replace(lesion, segment=segment)

    @cached_property
    def geometry(self) -> Geometry:
        """Where and how large the lesion is."""
        size, box = self.image.GetSize(), _bounding_box(self.mask)
        first, extent = box[: len(size)], box[len(size) :]
        in_plane = range(2)
        return Geometry(
            size=size,
            spacing=self.image.GetSpacing(),
            spacing_known=self.spacing_known,
            bounding_box=box,
            voxels=int(np.count_nonzero(sitk.GetArrayViewFromImage(self.mask) != 0)),
            touches_border=any(first[axis] == 0 or first[axis] + extent[axis] == size[axis] for axis in in_plane),
        )

    @cached_property
    def image_sha256(self) -> str:
        """SHA-256 of the image's content: size, and values as little-endian float64, x fastest.

        It does not depend on the file format, on the type in which whole numbers are stored, on the place in space or
        on the spacing (which `geometry` tells): an exported PNG that lost its spacing is still the same image.
        """
        return content_sha256(self.image, "<f8")

    @cached_property
    def mask_sha256(self) -> str:
        """SHA-256 of the mask's content, as ``image_sha256``, with the values as bytes."""
        return content_sha256(self.mask, "u1")


def _files(
    image: str | Path | ImageFile,
    mask: str | Path | ImageFile,
    *,
    spacing: Spacing | None,
    modality: str | None,
    series: str | None,
) -> tuple[ImageFile, ImageFile]:
    """Both files, the image with what the caller knows about it."""
    modality = _known_modality(modality)
    image = image if isinstance(image, ImageFile) else read_image(image, series)
    mask = mask if isinstance(mask, ImageFile) else read_mask(mask)
    if modality and image.modality and modality != image.modality:
        raise RadllmError(f"{image.name} is {image.modality}, not {modality}: correct the modality.")
    image = replace(image, modality=image.modality or modality)
    return (image if spacing is None else _with_spacing(image, spacing)), mask


def _known_modality(modality: str | None) -> str | None:
    if modality is None or modality in MODALITIES:
        return modality
    raise RadllmError(f"The modality {modality!r} is not known: give one of {', '.join(MODALITIES)}.")


def _with_spacing(image: ImageFile, spacing: Spacing) -> ImageFile:
    """The image with the voxel size that the caller gives, where its file has none."""
    pixels = sitk.Image(_flat(image.pixels))
    sizes = [float(size) for size in (spacing if isinstance(spacing, Sequence) else [spacing] * pixels.GetDimension())]
    if len(sizes) != pixels.GetDimension() or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise RadllmError(
            f"The spacing {spacing} does not suit {image.name}: give {pixels.GetDimension()} sizes in mm above zero."
        )
    if not image.spacing_known:
        pixels.SetSpacing(sizes)
        return replace(image, pixels=pixels, spacing_known=True)
    if not np.allclose(sizes, pixels.GetSpacing(), rtol=_SPACING_CONTRADICTION, atol=0):
        own = _joined(pixels.GetSpacing())
        raise RadllmError(f"{image.name} has voxels of {own} mm, not {_joined(sizes)}: leave the spacing to the file.")
    return image


def _segments(mask: ImageFile) -> tuple[Segment, ...]:
    """The segments that the file names, or else one for each label."""
    if mask.segments:
        return mask.segments
    values = sitk.GetArrayViewFromImage(mask.pixels)
    labels = np.unique(values[values != 0])
    if not np.isfinite(labels).all() or (labels != np.floor(labels)).any() or (labels < 0).any():
        raise RadllmError(f"{mask.name} has values that are no labels: use whole numbers, 0 for the background.")
    if len(labels) == 0:
        raise RadllmError(f"{mask.name} is empty: mark the lesion.")
    names = [f"label {int(label)}" if len(labels) > 1 else "" for label in labels]
    return tuple(Segment(str(int(label)), name, 0, int(label)) for label, name in zip(labels, names, strict=True))


def _chosen(mask: ImageFile, label: int | None, segment: str | None) -> Segment:
    """The one segment that the caller means."""
    if segment is not None and not mask.segments:
        raise RadllmError(f"{mask.name} names no segments, so not '{segment}' either: choose by label.")
    segments = _segments(mask)
    wanted = [
        candidate
        for candidate in segments
        if label in (None, candidate.label) and segment in (None, candidate.id, candidate.name)
    ]
    if len(wanted) == 1:
        return wanted[0]
    if not wanted:
        missing = f"segment '{segment}'" if segment is not None else f"label {label}"
        raise RadllmError(f"{mask.name} has no {missing}: it has {_listed(mask, segments)}.")
    raise RadllmError(f"{mask.name} leaves open which lesion is meant: choose one of {_listed(mask, wanted)}.")


def _listed(mask: ImageFile, segments: Sequence[Segment]) -> str:
    shown = [
        f"'{segment.name}' (ID {segment.id})" if mask.segments else str(segment.label)
        for segment in segments[:_LABELS_SHOWN]
    ]
    more = f" and {len(segments) - len(shown)} more" if len(segments) > len(shown) else ""
    return ("segments " if mask.segments else "labels ") + ", ".join(shown) + more


def _lesion_of(image: ImageFile, mask: ImageFile, segment: Segment, resample: bool) -> Lesion:
    """The lesion that one segment marks, after every check."""
    _check_values(image)
    marked = replace(mask, name=_title(mask, segment), pixels=_binary(mask, segment))
    _check_extent(marked)
    pixels, binary = _on_one_grid(image, marked, resample)
    binary.CopyInformation(pixels)
    return Lesion(
        _settled(pixels, image.spacing_known),
        _settled(binary, image.spacing_known),
        image.modality,
        image.spacing_known,
        segment.name,
    )


def _title(mask: ImageFile, segment: Segment) -> str:
    if mask.segments:
        return f"segment '{segment.name or segment.id}' of {mask.name}"
    return f"{segment.name} of {mask.name}" if segment.name else mask.name


def _check_values(image: ImageFile) -> None:
    if image.pixels.GetDimension() not in (2, 3):
        raise RadllmError(f"{image.name} has {image.pixels.GetDimension()} dimensions: give a 2D or 3D image.")
    values = sitk.GetArrayViewFromImage(image.pixels)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RadllmError(f"{image.name} has NaN or infinite values: replace them.")
    if values.min() == values.max():
        raise RadllmError(f"{image.name} is constant ({values.min():g} everywhere): give the image itself.")


def _binary(mask: ImageFile, segment: Segment) -> sitk.Image:
    layers = mask.pixels.GetNumberOfComponentsPerPixel()
    if segment.layer >= layers:
        raise RadllmError(f"{_title(mask, segment)} is said to be in a layer that is not there: export it again.")
    values = sitk.GetArrayViewFromImage(mask.pixels)
    marked = (values if layers == 1 else values[..., segment.layer]) == segment.label  # a third of ITK's time
    binary = sitk.GetImageFromArray(marked.view(np.uint8))
    binary.CopyInformation(mask.pixels)
    return binary


def _bounding_box(mask: sitk.Image) -> tuple[int, ...]:
    """First index along each axis, then extent along each axis, x first; all zero for an empty mask."""
    marked: NDArray[np.bool_] = sitk.GetArrayViewFromImage(mask) != 0
    first, extent = [], []
    for axis in range(marked.ndim):
        used = np.flatnonzero(marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis)))
        if not used.size:
            return (0,) * 2 * marked.ndim
        box = slice(used[0], used[-1] + 1)
        marked = marked[(slice(None),) * axis + (box,)]  # the slowest axis first: the others then look at little
        first.append(int(box.start))
        extent.append(int(box.stop - box.start))
    return (*first[::-1], *extent[::-1])


def _check_extent(mask: ImageFile) -> None:
    """PyRadiomics computes nothing of a lesion that does not extend along two axes."""
    box = _bounding_box(mask.pixels)
    extent = box[len(box) // 2 :]
    if max(extent) == 0:
        raise RadllmError(f"{mask.name} is empty: mark the lesion.")
    if max(extent) == 1:
        raise RadllmError(f"{mask.name} is a single voxel: mark the whole lesion.")
    if sum(length > 1 for length in extent) == 1:
        raise RadllmError(f"{mask.name} is a single row or column of voxels: mark the whole lesion.")


def _on_one_grid(image: ImageFile, mask: ImageFile, resample: bool) -> tuple[sitk.Image, sitk.Image]:
    """Pixels of the image and of the mask on the same grid, which is the image's."""
    placed = image.has_geometry and mask.has_geometry and image.pixels.GetDimension() == mask.pixels.GetDimension()
    pixels, binary = (image.pixels, mask.pixels) if placed else (_flat(image.pixels), _flat(mask.pixels))
    if placed and resample:
        return pixels, _resampled(image, mask) if _differences(pixels, binary, True, True) else binary
    own, other = _flat_dimension(pixels), _flat_dimension(binary)
    if own != other:
        raise RadllmError(f"{mask.name} is {other}D but {image.name} is {own}D: give the mask of this image.")
    if different := _differences(pixels, binary, image.spacing_known and mask.spacing_known, placed):
        hint = "draw it on this image or let it be resampled" if placed else "draw it on this image"
        raise RadllmError(
            f"{mask.name} lies on another grid than {image.name} (other {', '.join(different)}): "
            f"{_grid(binary)}, against {_grid(pixels)}; {hint}."
        )
    return pixels, binary


def _resampled(image: ImageFile, mask: ImageFile) -> sitk.Image:
    binary = sitk.Resample(mask.pixels, image.pixels, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    if not sitk.GetArrayViewFromImage(binary).any():
        raise RadllmError(f"{mask.name} lies outside {image.name}, so that resampling leaves nothing: check the pair.")
    _check_extent(replace(mask, pixels=binary))
    return binary


def _differences(image: sitk.Image, mask: sitk.Image, compare_spacing: bool, compare_place: bool) -> list[str]:
    """In what two grids of the same dimension differ; the thickness of a single slice does not count."""
    dimension = image.GetDimension()
    axes = [axis for axis, length in enumerate(image.GetSize()) if length > 1]
    spacing, mask_spacing = np.array(image.GetSpacing())[axes], np.array(mask.GetSpacing())[axes]
    directions = [np.reshape(grid.GetDirection(), (dimension, dimension))[:, axes] for grid in (image, mask)]
    origin_shift = np.abs(np.subtract(image.GetOrigin(), mask.GetOrigin())).max()
    different = {
        "size": image.GetSize() != mask.GetSize(),
        "spacing": compare_spacing and (np.abs(spacing - mask_spacing) > _GRID_TOLERANCE * spacing).any(),
        "origin": compare_place and origin_shift > _GRID_TOLERANCE * spacing.min(initial=np.inf),
        "direction": compare_place and np.abs(directions[0] - directions[1]).max(initial=0) > _DIRECTION_TOLERANCE,
    }
    return [what for what, differs in different.items() if differs]


def _grid(image: sitk.Image) -> str:
    size, spacing = _joined(image.GetSize()), _joined(image.GetSpacing())
    origin, direction = (
        ", ".join(f"{number:g}" for number in numbers) for numbers in (image.GetOrigin(), image.GetDirection())
    )
    return f"size {size}, spacing {spacing} mm, origin ({origin}), direction ({direction})"


def _joined(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _flat_dimension(image: sitk.Image) -> int:
    """Of the image that `_flat` makes."""
    dimension: int = image.GetDimension()
    return dimension - 1 if dimension > 2 and 1 in image.GetSize() else dimension


def _flat(image: sitk.Image) -> sitk.Image:
    """A 3D image of one slice, along whichever axis, as a 2D image; any other image as it is."""
    if _flat_dimension(image) == image.GetDimension():
        return image
    size = list(image.GetSize())
    size[2 - size[::-1].index(1)] = 0
    flat: sitk.Image = sitk.Extract(image, size, [0, 0, 0], sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOIDENTITY)
    return flat


def _settled(pixels: sitk.Image, spacing_known: bool) -> sitk.Image:
    """The image as a lesion holds it: flat if it is one slice, a 2D one without place in space, spacing rounded."""
    image = sitk.Image(_flat(pixels))  # shares the pixels until something is set
    # The shortest decimal number of the same single-precision value: 0.07, whether it was stored in 32 or 64 bits.
    spacing = tuple(float(str(np.float32(size))) if spacing_known else 1.0 for size in image.GetSpacing())
    if image.GetSpacing() != spacing:
        image.SetSpacing(spacing)
    if image.GetDimension() == 2 and (image.GetOrigin(), image.GetDirection()) != ((0, 0), (1, 0, 0, 1)):
        image.SetOrigin((0, 0))
        image.SetDirection((1, 0, 0, 1))
    return image


def parse_spacing(text: str | None) -> float | tuple[float, ...] | None:
    """Millimetres per pixel from ``0.07`` or ``0.07;0.08`` (x, then y; a comma serves too)."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.replace(",", ";").split(";"))
    except ValueError:
        numbers = ()
    if not 1 <= len(numbers) <= 3 or not all(0 < number < 1000 for number in numbers):
        raise RadllmError(f"The spacing '{text[:40]}' is not one: use millimetres per pixel such as 0.07 or 0.07;0.08.")
    return numbers[0] if len(numbers) == 1 else numbers
