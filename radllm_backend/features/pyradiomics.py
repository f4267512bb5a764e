"""PyRadiomics' feature classes, driven so that nothing is computed twice or for nothing; the values stay the same.

`RadiomicsFeatureExtractor.execute` filters and checks the whole image, discretises each image once a feature class and
measures diameters between all pairs of surface points. Here a lesion's box is cut out first (see `cropping`), the
discretised image is shared, and diameters are measured between the points that can be the farthest ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from radllm_backend.features.cropping import SettingSection, Source, margin_of
from radllm_backend.features.filters import laplacian_of_gaussian
from radllm_backend.features.mesh import mesh_coefficients

Wanted = Mapping[str, list[str]]
"""Features to compute by feature class, in PyRadiomics' order."""

_BINNED = "radllm_binned"  # among the settings of a feature class: what the classes of one image share
_ONE_IMAGE = {
    "Original": "original",
    "Square": "square",
    "SquareRoot": "squareroot",
    "Logarithm": "logarithm",
    "Exponential": "exponential",
    "Gradient": "gradient",
    "LBP2D": "lbp-2D",
}


@dataclass(frozen=True)
class Job:
    """One filter to run, and which features of which of its images are wanted."""

    image_type: str
    """PyRadiomics' name of the filter."""
    settings: SettingSection
    wanted: Mapping[str, Wanted]
    """By the filtered image's name, such as ``wavelet-LH``."""


def plan(extractor: Any, dimension: int, features: Collection[str] | None) -> tuple[Wanted, list[Job]]:
    """What has to be computed for these features.

    Args:
        extractor: a `RadiomicsFeatureExtractor` with the settings.
        dimension: of the image, 2 or 3.
        features: PyRadiomics' names; None for all that are enabled.

    Returns:
        Features of shape, and jobs in PyRadiomics' order. A feature that the settings do not enable is in neither.
    """
    asked = None if features is None else frozenset(features)
    enabled = {family: _enabled(family, names) for family, names in extractor.enabledFeatures.items()}
    shapes = {family: names for family, names in enabled.items() if family.startswith("shape")}
    others = {family: names for family, names in enabled.items() if not family.startswith("shape")}
    shape = _wanted("original", shapes, asked)
    jobs = []
    for image_type, settings, images in _filters(extractor, dimension):
        wanted = {image: _wanted(image, others, asked) for image in images}
        if any(wanted.values()):
            jobs.append(Job(image_type, settings, wanted))
    return shape, jobs


def _enabled(family: str, names: list[str] | None) -> list[str]:
    """Without names, all features that are not deprecated."""
    return list(names or [name for name, old in _features_of(family).items() if not old])


def _wanted(image: str, enabled: Wanted, features: frozenset[str] | None) -> Wanted:
    """The features asked for of one image; None asks for all."""
    if features is None:
        return enabled
    wanted: dict[str, list[str]] = {}
    for family, names in enabled.items():
        found = [name for name in names if f"{image}_{family}_{name}" in features]
        if found:
            wanted[family] = found
    return wanted


def _filters(extractor: Any, dimension: int) -> Iterator[tuple[str, SettingSection, list[str]]]:
    """Image type, its settings and the names of its images; one sigma of the Laplacian of Gaussian at a time."""
    for image_type, own in extractor.enabledImagetypes.items():
        settings = {**extractor.settings, **(own or {})}
        if image_type == "LoG":
            for sigma in settings.get("sigma", []):
                name = f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"
                yield image_type, {**settings, "sigma": [sigma]}, [name]
        else:
            yield image_type, settings, _images(image_type, settings, dimension)


def _images(image_type: str, settings: SettingSection, dimension: int) -> list[str]:
    if image_type == "Wavelet":
        axes = dimension - bool(settings.get("force2D"))
        bands = ["".join(letters) for letters in product("LH", repeat=axes)]
        levels = settings.get("level", 1)
        names = [f"wavelet{level if level > 1 else ''}-{band}" for level in range(1, levels + 1) for band in bands[1:]]
        return [*names, f"wavelet{levels if levels > 1 else ''}-{bands[0]}"]
    if image_type == "LBP3D":
        return [*(f"lbp-3D-m{level + 1}" for level in range(settings.get("lbp3DLevels", 2))), "lbp-3D-k"]
    return [_ONE_IMAGE[image_type]]


def feature_values(source: Source, settings: SettingSection, shape: Wanted, jobs: list[Job]) -> dict[str, Any]:
    """PyRadiomics' values by its names, in its order.

    Args:
        settings: PyRadiomics' ``setting`` section with its defaults.
        shape, jobs: see `plan`.

    Raises:
        ValueError: PyRadiomics refuses the lesion.
    """
    from radiomics import imageoperations

    image, drawn = source.box
    bounds = _checked(drawn, settings)
    mask = drawn
    if settings.get("resegmentRange") is not None:
        mask = imageoperations.resegmentMask(image, drawn, **settings)
        bounds, _ = imageoperations.checkMask(image, mask, **settings)
    outlined = mask if settings.get("resegmentShape") else drawn
    inside, outline = imageoperations.cropToTumorMask(image, outlined, bounds)
    values = _shape(inside, outline, settings, shape)
    for job in jobs:
        for name, filtered in _filtered(source, job):
            inside, outline = imageoperations.cropToTumorMask(filtered, mask, bounds)
            values |= _intensities(inside, outline, name, job.settings, job.wanted[name])
    return values


def _checked(mask: sitk.Image, settings: SettingSection) -> NDArray[np.int64]:
    """First and last index of the box along x, y (, z), after PyRadiomics' checks, without its statistics."""
    size = np.array(mask.GetSize())
    axes, least = int((size > 1).sum()), settings.get("minimumROIDimensions", 2)
    if axes < least:
        raise ValueError(f"mask has too few dimensions (number of dimensions {axes}, minimum required {least})")
    smallest = settings.get("minimumROISize")
    if smallest is not None and np.count_nonzero(sitk.GetArrayViewFromImage(mask)) <= smallest:
        raise ValueError(f"Size of the ROI is too small (minimum size: {smallest})")
    return np.stack([np.zeros_like(size), size - 1], axis=1).ravel()


def _filtered(source: Source, job: Job) -> Iterator[tuple[str, sitk.Image]]:
    """Name and content, in the lesion's box, of the images that one filter makes, as far as they are wanted."""
    from radiomics import imageoperations

    if job.image_type == "Original":
        yield "original", source.box[0]
        return
    region = source.region(margin_of(job.image_type, job.settings, source.image.GetSpacing()))
    if job.image_type == "LoG":
        (name,), (sigma,) = job.wanted, job.settings["sigma"]
        image = laplacian_of_gaussian(region, sigma)
        if image is not None:
            yield name, image
        return
    make = getattr(imageoperations, f"get{job.image_type}Image")
    for image, name, _ in make(region.image, region.mask, **job.settings):
        if job.wanted.get(name):
            yield name, region.cut(image)


def _shape(image: sitk.Image, mask: sitk.Image, settings: SettingSection, wanted: Wanted) -> dict[str, Any]:
    """As PyRadiomics: of a volume, or of a single slice."""
    values: dict[str, Any] = {}
    flat = mask.GetDimension() == 2
    if "shape" in wanted and not flat:
        values |= _values(_quick_shape()(image, mask, **settings), "original_shape", wanted["shape"])
    if "shape2D" in wanted and (flat or _is_forced_flat(image, settings)):
        values |= _values(_feature_class("shape2D")(image, mask, **settings), "original_shape2D", wanted["shape2D"])
    return values


def _is_forced_flat(image: sitk.Image, settings: SettingSection) -> bool:
    """Whether PyRadiomics measures the 2D shape in a volume (it takes the axes in the opposite order here)."""
    return bool(settings.get("force2D")) and image.GetSize()[settings.get("force2Ddimension", 0)] > 1


def _intensities(
    image: sitk.Image, mask: sitk.Image, name: str, settings: SettingSection, wanted: Wanted
) -> dict[str, Any]:
    """First-order and texture features of one image, which is discretised once for all of them."""
    values: dict[str, Any] = {}
    own = {**settings, _BINNED: []}
    for family, features in wanted.items():
        values |= _values(_sharing(family)(image, mask, **own), f"{name}_{family}", features)
    return values


def _values(measured: Any, prefix: str, features: list[str]) -> dict[str, Any]:
    for feature in features:
        measured.enableFeatureByName(feature)
    return {f"{prefix}_{feature}": value for feature, value in measured.execute().items()}


def _feature_class(family: str) -> Any:
    from radiomics import getFeatureClasses

    return getFeatureClasses()[family]


@lru_cache(maxsize=16)
def _features_of(family: str) -> dict[str, bool]:
    """By name, whether PyRadiomics has deprecated them; looking them up takes it a while."""
    return dict(_feature_class(family).getFeatureNames())


@lru_cache(maxsize=16)
def _sharing(family: str) -> Any:
    """PyRadiomics' feature class, which takes the discretised image from the others if one of them has made it."""
    from radiomics import imageoperations

    base, names = _feature_class(family), _features_of(family)

    def apply_binning(self: Any, matrix: NDArray[Any]) -> NDArray[Any]:
        shared = self.settings[_BINNED]
        if not shared:
            inside = matrix[self.maskArray]
            ends = np.array([inside.min(), inside.max()], inside.dtype)  # all that the edges of the bins depend on
            levels = np.digitize(inside, imageoperations.getBinEdges(ends, **self.settings))
            binned = np.zeros(matrix.shape, np.intc)  # as PyRadiomics' C code reads it
            binned[self.maskArray] = levels
            shared.extend((binned, np.unique(levels)))
        binned, levels = shared
        self.coefficients.update(grayLevels=levels, Ng=int(levels[-1]))
        image: NDArray[Any] = binned
        return image

    own = {
        "_applyBinning": apply_binning,
        "getFeatureNames": staticmethod(lambda: names),
        "__module__": base.__module__,
    }
    if family == "firstorder":
        own["_moment"] = staticmethod(_central_moment)
    return type(base.__name__, (base,), own)


def _central_moment(values: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The second, third or fourth one along the second axis: by products, in a fraction of the time of powers."""
    apart = values - values.mean(axis=1, keepdims=True)
    products = apart * apart
    if order > 2:
        products *= apart if order == 3 else products
    return np.asarray(products.mean(axis=1))


@lru_cache(maxsize=1)
def _quick_shape() -> Any:
    """PyRadiomics' class of 3D shape, whose own code finds our `mesh_coefficients` where it looks for its own."""
    base = _feature_class("shape")
    begin = base._initSegmentBasedCalculation
    names = {**begin.__globals__, "cShape": SimpleNamespace(calculate_coefficients=mesh_coefficients)}
    own = FunctionType(begin.__code__, names, begin.__name__, begin.__defaults__, begin.__closure__)
    return type(base.__name__, (base,), {"_initSegmentBasedCalculation": own, "__module__": base.__module__})
