"""Filters of PyRadiomics that compute less when only the lesion's box of their result is wanted; same values."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from radllm_backend.features.cropping import Source

_SMALLEST = 4  # voxels along an axis, below which PyRadiomics leaves out the Laplacian of Gaussian


def laplacian_of_gaussian(region: Source, sigma: float) -> sitk.Image | None:
    """ITK's recursive Laplacian of Gaussian in the lesion's box; None where PyRadiomics leaves it out.

    It is a sum over the axes: the second derivative along one, smoothed along the others, one axis after the other. Of
    each axis only the lesion's part is needed once it has been filtered.

    Args:
        region: the lesion with the filter's margin.
        sigma: in mm.
    """
    spacing, size = region.image.GetSpacing(), region.image.GetSize()
    enough = all(
        length >= max(_SMALLEST, math.ceil(sigma / voxel) + 1) for length, voxel in zip(size, spacing, strict=True)
    )
    if sigma <= 0 or not enough:
        return None
    total = np.zeros(region.extent[::-1], np.float32)
    for axis, voxel in enumerate(spacing):
        part = sitk.GetArrayFromImage(_second_derivative(region, sigma, axis)).astype(np.float64)
        total = (total + part * (1 / voxel**2)).astype(np.float32)  # rounded as ITK does
    image = sitk.GetImageFromArray(total)
    image.CopyInformation(region.cut(region.mask))
    return image


def _second_derivative(region: Source, sigma: float, axis: int) -> sitk.Image:
    gaussian = sitk.RecursiveGaussianImageFilter()
    gaussian.SetSigma(sigma)
    gaussian.SetNormalizeAcrossScale(True)
    image = region.image
    for direction in (axis, *(other for other in range(image.GetDimension()) if other != axis)):
        gaussian.SetDirection(direction)
        gaussian.SetOrder(gaussian.SecondOrder if direction == axis else gaussian.ZeroOrder)
        image = gaussian.Execute(image)
        extent, first = list(image.GetSize()), [0] * image.GetDimension()
        extent[direction], first[direction] = region.extent[direction], region.first[direction]
        image = sitk.RegionOfInterest(image, extent, first)
    return image
