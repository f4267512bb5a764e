"""Whether our way through PyRadiomics gives its own values: asked once a process, of a lesion of a few voxels.

`pyradiomics`, `cropping`, `filters` and `mesh` lean on what is not public in it: ``_applyBinning`` and ``_moment``,
which they replace; ``_initSegmentBasedCalculation``, which they rebuild around another ``cShape``; that the edges of
bins depend on the darkest and the brightest voxel alone; the names, sizes and margins of filters. Slicer brings a
PyRadiomics of its own. Where it differs, its `RadiomicsFeatureExtractor.execute` measures, which always fits.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import SimpleITK as sitk

from radllm_backend.features.cropping import source_of
from radllm_backend.features.pyradiomics import feature_values, plan

_CLOSE = 1e-7
"""Of a value; roundings differ by less, definitions by more."""
_SHAPE, _SPACING = (12, 13, 14), (0.9, 0.8, 0.7)
_FIRST, _EXTENT = (5, 4, 5), (3, 4, 5)
"""Of the lesion along x, y (, z): small enough for milliseconds, and with image around it to be cut off."""
_GENERAL = {"normalize": True, "normalizeScale": 100, "label": 1, "additionalInfo": False}
_OPTIONS: Mapping[str, dict[str, Any]] = {"LoG": {"sigma": [0.8]}}
_OF_FILTERS = {"firstorder": ["Entropy", "Mean", "Skewness"]}
"""Of a filtered image only a few: its discretisation, a moment, and the voxels."""
_ASKING = Lock()
_LOGGER = logging.getLogger(__name__)


def agrees(extractor: Any, dimension: int) -> bool:
    """Whether our way gives PyRadiomics' values, of every feature class and of each filter that the settings enable.

    The first call for a filter takes some milliseconds. Where the answer is no, the log says why, once.

    Args:
        extractor: a `RadiomicsFeatureExtractor` with the settings.
        dimension: of the image, 2 or 3.
    """
    with _ASKING:
        return all(_agrees(dimension, image_type) for image_type in ("Original", *extractor.enabledImagetypes))


def execute(extractor: Any, image: sitk.Image, mask: sitk.Image, features: Collection[str] | None) -> dict[str, Any]:
    """PyRadiomics' values by its names, in its order, by its own way.

    Args:
        image: with its intensities scaled, but neither normalised nor resampled.
        features: only these are returned; None: all that are enabled.

    Raises:
        ValueError: PyRadiomics refuses the lesion; or another exception of its own.
    """
    values = extractor.execute(image, mask)
    return {name: value for name, value in values.items() if features is None or name in features}


def executed(version: str) -> str:
    """PyRadiomics' version in the provenance of what its own way measured: with the local label ``execute``."""
    return f"{version}{'.' if '+' in version else '+'}execute"


@lru_cache(maxsize=64)
def _agrees(dimension: int, image_type: str) -> bool:
    import radiomics

    try:
        reason = _difference(dimension, image_type)
    except Exception as error:  # whatever another PyRadiomics raises where something has changed or is gone
        reason = f"it fails: {type(error).__name__}: {error}"
    if reason:
        _LOGGER.warning(
            "PyRadiomics %s measures by its own execute(), which takes longer: our way through it does not fit (%s).",
            str(radiomics.__version__).lstrip("v"),
            reason,
        )
    return not reason


def _difference(dimension: int, image_type: str) -> str:
    """The first value that is another one by our way; empty where there is none."""
    extractor = _extractor(image_type)
    image, mask = _lesion(dimension)
    expected = execute(extractor, image, mask, None)
    box = (*_FIRST[:dimension], *_EXTENT[:dimension])
    source = source_of(image, mask, box, extractor.settings, min_max=False)
    found = feature_values(source, extractor.settings, *plan(extractor, dimension, None))
    if list(found) != list(expected):
        return "other features, or another order of them"
    for name, value in expected.items():
        if not np.isclose(np.real(found[name]), np.real(value), rtol=_CLOSE, atol=1e-12, equal_nan=True):
            return f"another value of {name}"
    return ""


def _extractor(image_type: str) -> Any:
    """For one kind of image; made without a parameter file, for to validate one takes long."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    is_original = image_type == "Original"
    extractor = RadiomicsFeatureExtractor()
    extractor.settings.update(_GENERAL)
    if is_original:
        extractor.settings["binCount"] = 8
    extractor.disableAllImageTypes()
    extractor.enableImageTypes(**{image_type: _OPTIONS.get(image_type, {})})
    if not is_original:
        extractor.disableAllFeatures()
        extractor.enableFeaturesByName(**_OF_FILTERS)
    return extractor


def _lesion(dimension: int) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask: waves, and a box without its corners in them."""
    grid = np.indices(_SHAPE[:dimension])
    waves = 200 + sum(50 * np.sin((1.3 + axis) * places + axis) for axis, places in enumerate(grid))
    mask = np.zeros(grid.shape[1:], np.uint8)
    axes = tuple(zip(_FIRST[:dimension], _EXTENT[:dimension], strict=True))[::-1]
    mask[tuple(slice(first, first + extent) for first, extent in axes)] = 1
    mask[tuple(first for first, _ in axes)] = mask[tuple(first + extent - 1 for first, extent in axes)] = 0
    images = sitk.GetImageFromArray(waves), sitk.GetImageFromArray(mask)
    for image in images:
        image.SetSpacing(_SPACING[:dimension])
    return images
