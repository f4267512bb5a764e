"""What PyRadiomics has to see of an image so that a lesion's values are those of the whole image.

The lesion's box is enough for the original image. A filter looks farther, by a margin that depends on it; some take
something from the whole image (a maximum, a mean and a deviation), which is found there first and carried over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

SettingSection = dict[str, Any]
"""PyRadiomics' ``setting`` section with its defaults, and what an image type adds to it."""
Prepare = Callable[[sitk.Image], sitk.Image]

_LOG_SIGMAS = 16  # the recursive Gaussian has faded to the rounding of its 32-bit result
_NEIGHBOURS = 8  # more than the gradient and the usual local binary pattern reach
_LOG_LEAST = 4  # voxels, for a sigma of less than one
_SCALED_BY_MAXIMUM = ("Square", "SquareRoot", "Logarithm", "Exponential")


@dataclass(frozen=True)
class Margin:
    """How far beyond the lesion's box a filter looks."""

    voxels: tuple[int, ...]
    """Along x, y (, z)."""
    wraps: bool = False
    """Whether the filter continues the image at its edge with the opposite edge."""
    maximum: bool = False
    """Whether the filter scales by the largest magnitude in the whole image."""


@dataclass(frozen=True)
class Source:
    """An image with the lesion's box on it, from which regions are cut as PyRadiomics is to see them."""

    image: sitk.Image
    mask: sitk.Image
    """On the image's grid; 1 in the lesion."""
    first: tuple[int, ...]
    """The lesion box's first index along each axis."""
    extent: tuple[int, ...]
    prepared: Prepare
    """Changes every voxel by the same rule, which never makes a darker voxel the brighter one."""

    def cut(self, image: sitk.Image) -> sitk.Image:
        """The lesion's box of any image on this grid."""
        box: sitk.Image = sitk.RegionOfInterest(image, self.extent, self.first)
        return box

    @cached_property
    def box(self) -> tuple[sitk.Image, sitk.Image]:
        """Prepared image and mask in the lesion's box."""
        return self.prepared(self.cut(self.image)), self.cut(self.mask)

    def region(self, margin: Margin | None) -> Source:
        """The prepared image around the lesion as far as a filter looks; whole without a margin."""
        if margin is None:
            return Source(self.prepared(self.image), self.mask, self.first, self.extent, _as_it_is)
        start, stop = self._bounds(margin)
        extent = [after - before for before, after in zip(start, stop, strict=True)]
        image = self.prepared(sitk.RegionOfInterest(self.image, extent, start))
        mask = sitk.RegionOfInterest(self.mask, extent, start)
        if margin.maximum:  # one row more, of voxels as extreme as the most extreme one of the whole image
            none, row = [0] * len(extent), [1] + [0] * (len(extent) - 1)
            image = sitk.ConstantPad(image, none, row, self._most_extreme)
            mask = sitk.ConstantPad(mask, none, row, 0)
        first = tuple(inside - before for inside, before in zip(self.first, start, strict=True))
        return Source(image, mask, first, self.extent, _as_it_is)

    def _bounds(self, margin: Margin) -> tuple[list[int], list[int]]:
        """First and last (exclusive) index along each axis."""
        start, stop = [], []
        axes = zip(self.first, self.extent, self.image.GetSize(), margin.voxels, strict=True)
        for first, extent, size, voxels in axes:
            low, high = first - voxels, first + extent + voxels
            if margin.wraps and voxels and (low < 0 or high > size):
                low, high = 0, size  # the opposite edge belongs to the surroundings
            start.append(max(low, 0))
            stop.append(min(high, size))
        return start, stop

    @cached_property
    def _most_extreme(self) -> float:
        """The prepared image's value of largest magnitude."""
        voxels = sitk.GetArrayViewFromImage(self.image)
        ends = np.zeros((1,) * (voxels.ndim - 1) + (2,), voxels.dtype)
        ends[..., 0], ends[..., 1] = voxels.min(), voxels.max()
        prepared = self.prepared(sitk.GetImageFromArray(ends))
        return float(max(sitk.GetArrayFromImage(prepared).ravel(), key=abs))


def _as_it_is(image: sitk.Image) -> sitk.Image:
    return image


def margin_of(image_type: str, settings: SettingSection, spacing: tuple[float, ...]) -> Margin | None:
    """How far a filter looks; None where that is not known, so that it needs the whole image.

    Args:
        image_type: PyRadiomics' name of it, such as ``Wavelet``.
        settings: with those of this image type.
        spacing: voxel size in mm along x, y (, z).
    """
    if image_type in _SCALED_BY_MAXIMUM:
        return Margin((0,) * len(spacing), maximum=True)
    if image_type == "Wavelet":
        return Margin(_wavelet_voxels(settings, len(spacing)), wraps=True)
    if image_type == "LoG":
        sigma = max(settings.get("sigma") or [0])
        return Margin(tuple(_LOG_LEAST + math.ceil(_LOG_SIGMAS * sigma / size) for size in spacing))
    if image_type in ("Gradient", "LBP2D"):
        return Margin((_NEIGHBOURS + math.ceil(settings.get("lbp2DRadius", 1)),) * len(spacing))
    return None


def _wavelet_voxels(settings: SettingSection, dimension: int) -> tuple[int, ...]:
    import pywt

    levels = settings.get("level", 1) + settings.get("start_level", 0)
    # Half the filter's length a level, and one for the voxel that PyRadiomics adds to an odd length.
    reach = levels * (pywt.Wavelet(settings.get("wavelet", "coif1")).dec_len // 2 + 1)
    voxels = [reach] * dimension
    if settings.get("force2D"):
        voxels[dimension - 1 - settings.get("force2Ddimension", 0)] = 0
    return tuple(voxels)


def source_of(
    image: sitk.Image, mask: sitk.Image, box: tuple[int, ...], settings: SettingSection, *, min_max: bool
) -> Source:
    """The image as PyRadiomics' settings prepare it: scaled, normalised, resampled.

    Args:
        image: as it was read; ``mask``: 1 in the lesion, on the same grid.
        box: the lesion's first index along each axis, then its extent along each axis.
        settings: PyRadiomics' ``setting`` section with its defaults.
        min_max: whether the whole image is scaled to 0..1 first.

    Raises:
        ValueError: PyRadiomics cannot resample the lesion.
    """
    from radiomics import imageoperations

    dimension = image.GetDimension()
    prepared = _preparation(image, settings, min_max)
    if settings.get("resampledPixelSpacing") is not None and settings.get("interpolator") is not None:
        # Whole: rounding to whole numbers, and the mask's ties, depend on where the image begins.
        mask = sitk.Cast(mask, sitk.sitkUInt32)
        image, mask = imageoperations.resampleImage(prepared(image), mask, **settings)
        first, extent = _box(mask)
        return Source(image, mask, first, extent, _as_it_is)
    source = Source(image, mask, box[:dimension], box[dimension:], prepared)
    if settings.get("preCrop"):  # PyRadiomics' own crop, beyond which no filter looks
        return source.region(Margin((settings.get("padDistance", 5),) * dimension))
    return source


def _box(mask: sitk.Image) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(mask)
    if not shape.HasLabel(1):
        raise ValueError("Resampling leaves nothing of the mask")
    box = shape.GetBoundingBox(1)
    return box[: len(box) // 2], box[len(box) // 2 :]


def _preparation(image: sitk.Image, settings: SettingSection, min_max: bool) -> Prepare:
    """What makes of any part of the image what it is in the whole image, scaled and normalised."""
    scaled = scaling(image, min_max)
    if not settings.get("normalize"):
        return scaled
    statistics = sitk.StatisticsImageFilter()
    statistics.Execute(scaled(image) if min_max else image)
    mean, deviation = statistics.GetMean(), statistics.GetSigma()
    limit, scale = settings.get("removeOutliers"), settings.get("normalizeScale", 1)

    def normalised(part: sitk.Image) -> sitk.Image:
        result = sitk.ShiftScale(scaled(part), -mean, 1 / deviation, sitk.sitkFloat64)
        if limit is not None:
            result = sitk.Clamp(result, sitk.sitkFloat64, -limit, limit)
        normal: sitk.Image = result * scale
        return normal

    return normalised


def scaling(image: sitk.Image, min_max: bool) -> Prepare:
    """What makes of any part of the image what it is in the whole image with its intensities scaled, or as stored."""
    voxels = sitk.GetArrayViewFromImage(image)
    if min_max:
        low, high = float(voxels.min()), float(voxels.max())
        return lambda part: (sitk.Cast(part, sitk.sitkFloat64) - low) / (high - low)
    # Whole numbers, however stored, are resampled and filtered as such.
    pixel = sitk.sitkInt32 if _is_whole(voxels) else sitk.sitkFloat64
    return lambda part: sitk.Cast(part, pixel)


def _is_whole(voxels: np.ndarray[Any, Any]) -> bool:
    if np.issubdtype(voxels.dtype, np.integer):
        return True
    # Part by part, because most images of another kind show it in the first one.
    return all((np.rint(part) == part).all() and np.abs(part).max() < 2**31 for part in voxels)
