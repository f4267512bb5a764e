"""How far a prediction moves when the lesion is outlined slightly otherwise, as another reader would."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import measure
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE
from radllm_backend.models.model import Model
from radllm_backend.models.prediction import MaskVariant, Prediction, Stability
from radllm_backend.records import Features

SEEDS = 3
"""Outlines moved at random, beside the one that is a pixel smaller and the one that is a pixel larger."""
AMPLITUDE, FARTHEST = 1.0, 2.0
"""How far a random outline moves, in pixels: standard deviation, and at most."""

_SMALLEST_BEND = 2.0  # pixels
_BENDS = 0.25  # of the lesion's radius: a hand that follows a contour errs over stretches, not from pixel to pixel
_MARGIN = 3  # voxels around the lesion, beyond what any variant reaches
_THICK = 1.5  # slice thickness in pixels, above which a whole slice more or less is no small change


def stability(lesion: Lesion, model: Model, prediction: Prediction, *, seeds: int = SEEDS) -> Stability:
    """The model's probabilities of the lesion under each of its `outlines`, measured with the model's settings.

    Uncertain band and descriptors are those of the prediction. The same lesion gives the same result.

    Args:
        prediction: what the model says of the lesion as it was drawn.
        seeds: how many outlines are moved at random.
    """
    given = {share.descriptor: share.value for share in prediction.descriptors if share.value}
    measured = {name: _measured(lesion, mask, model) for name, mask in outlines(lesion, seeds).items()}
    usable = {
        name: features.model_copy(update={"descriptors": given}) for name, features in measured.items() if features
    }
    confidence = prediction.band.confidence if prediction.band else DEFAULT_CONFIDENCE
    others = model.predict_many(list(usable.values()), explain=False, confidence=confidence) if usable else []
    probabilities = {name: other.probability for name, other in zip(usable, others, strict=True)}
    together = [prediction, *others]
    return Stability(
        low=min(one.probability for one in together),
        high=max(one.probability for one in together),
        calls=[call for call, _ in Counter(one.call for one in together).most_common()],
        variants=[MaskVariant(name=name, probability=probabilities.get(name)) for name in measured],
    )


def outlines(lesion: Lesion, seeds: int = SEEDS) -> dict[str, sitk.Image]:
    """Masks on the lesion's grid with slightly other outlines, by what was done to them; one may be empty.

    One pixel smaller and one pixel larger: every voxel that shares a side with the other kind changes. Moved at random:
    see `_moved`. In a volume this also goes from slice to slice, unless slices are more than 1.5 times as thick as a
    pixel is wide: then a lesion keeps its slices. Where a lesion is cut off by the edge of the image, it stays cut off
    there. Of what falls apart, only as many parts are kept, the largest ones, as the lesion was drawn in.
    """
    start, region = _surroundings(lesion)
    thickness = _thickness(lesion)
    reach = [1, 1, int(thickness <= _THICK)][: region.GetDimension()]
    changed = {
        "one pixel smaller": sitk.BinaryErode(region, reach, sitk.sitkCross),
        "one pixel larger": sitk.BinaryDilate(region, reach, sitk.sitkCross),
    }
    changed |= {f"moved at random ({seed})": _moved(region, thickness, seed) for seed in range(1, seeds + 1)}
    parts = _parts(region)[1]
    return {
        name: sitk.Paste(lesion.mask, _largest(other, parts), region.GetSize(), [0] * len(start), start)
        for name, other in changed.items()
    }


def _surroundings(lesion: Lesion) -> tuple[list[int], sitk.Image]:
    """The lesion's box with a margin, cut at the image's edge: its first index along each axis, and the mask in it."""
    box, size = lesion.geometry.bounding_box, lesion.geometry.size
    firsts, extents = box[: len(size)], box[len(size) :]
    start = [max(0, first - _MARGIN) for first in firsts]
    stop = [min(length, first + extent + _MARGIN) for length, first, extent in zip(size, firsts, extents, strict=True)]
    return start, sitk.RegionOfInterest(lesion.mask, np.subtract(stop, start).tolist(), start)


def _thickness(lesion: Lesion) -> float:
    """Of a slice, in pixels; 1 for a lesion in 2D."""
    spacing = lesion.geometry.spacing
    return spacing[2] / math.sqrt(spacing[0] * spacing[1]) if len(spacing) == 3 else 1.0


def _moved(region: sitk.Image, thickness: float, seed: int) -> sitk.Image:
    """The mask with its contour moved to and fro.

    To the signed distance from the contour, in pixels, a smooth Gaussian random field is added, and the sum thresholded
    at zero: M. Lê, J. Unkelbach, N. Ayache and H. Delingette, *Sampling image segmentations for uncertainty
    quantification*, Medical Image Analysis 34 (2016) 42, with the Euclidean instead of a geodesic distance. That
    features are to be tested on perturbed contours: A. Zwanenburg et al., *Assessing robustness of radiomic features by
    image perturbation*, Scientific Reports 9 (2019) 614. The field's standard deviation is `AMPLITUDE`, cut off at
    `FARTHEST`; it bends over a quarter of the lesion's radius, and over two pixels at least.
    """
    inside = sitk.GetArrayFromImage(region).astype(bool)
    voxel = (thickness, 1.0, 1.0)[-inside.ndim :]  # in pixels, in numpy's order
    if inside.all():  # as large as the image: nobody drew a contour
        return region
    moved = sitk.GetImageFromArray((_distance(inside, voxel) + _field(inside, voxel, seed) > 0).astype(np.uint8))
    moved.CopyInformation(region)
    return moved


def _distance(inside: NDArray[np.bool_], voxel: tuple[float, ...]) -> NDArray[np.float64]:
    """From each voxel's centre to the contour, in pixels; above zero inside, half a pixel at the first voxel."""
    inwards = ndimage.distance_transform_edt(inside, sampling=voxel)
    outwards = ndimage.distance_transform_edt(~inside, sampling=voxel)
    distance: NDArray[np.float64] = np.where(inside, inwards - 0.5, 0.5 - outwards)
    return distance


def _field(inside: NDArray[np.bool_], voxel: tuple[float, ...], seed: int) -> NDArray[np.float64]:
    """A smooth Gaussian random field of the mask's shape, in pixels."""
    content = np.count_nonzero(inside) * math.prod(voxel)
    radius = math.sqrt(content / math.pi) if inside.ndim == 2 else math.cbrt(3 * content / (4 * math.pi))
    bend = max(_SMALLEST_BEND, _BENDS * radius)
    noise = np.fft.rfftn(np.random.default_rng(seed).standard_normal(inside.shape))
    smooth = ndimage.fourier_gaussian(noise, [bend / size for size in voxel], n=inside.shape[-1])
    field = np.fft.irfftn(smooth, inside.shape, axes=range(inside.ndim))
    clipped: NDArray[np.float64] = np.clip(AMPLITUDE * field / field.std(), -FARTHEST, FARTHEST)
    return clipped


def _parts(mask: sitk.Image) -> tuple[sitk.Image, int]:
    """The mask's connected parts, numbered from 1, and how many there are; touching at a corner is connected."""
    components = sitk.ConnectedComponentImageFilter()
    components.SetFullyConnected(True)
    labels = components.Execute(mask)
    return labels, components.GetObjectCount()


def _largest(mask: sitk.Image, count: int) -> sitk.Image:
    labels, found = _parts(mask)
    if found <= count:
        return mask
    sorted_by_size = sitk.RelabelComponent(labels, sortByObjectSize=True)
    largest: sitk.Image = sitk.BinaryThreshold(sorted_by_size, 1, count, 1, 0)
    return largest


def _measured(lesion: Lesion, mask: sitk.Image, model: Model) -> Features | None:
    """The features under another mask; None where too little is left, or the model reads what is undefined now."""
    try:
        other = Lesion.from_images(lesion.image, mask, modality=lesion.modality, spacing_known=lesion.spacing_known)
        values = measure(other, model.settings, features=[row.feature for row in model.card.features])
    except RadllmError:  # of this mask: the lesion as it was drawn was measured with these settings
        return None
    return None if None in values.values() else Features(values=values)
