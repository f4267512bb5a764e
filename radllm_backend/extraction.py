"""From a `Lesion` to its `Features`, by PyRadiomics.

The settings are a PyRadiomics parameter file with one section more, ``radllm``, that PyRadiomics never sees: the
modality and dimension the preset is meant for, and how intensities are prepared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from threadpoolctl import threadpool_limits

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.features import MODALITIES, Extraction, Features
from radllm_backend.imaging import Lesion

_PRESET_FOLDER = Path(__file__).parent / "settings"
_BUILDING = Lock()
_INTENSITIES = ("as-stored", "min-max")
# Settings under which a value depends on voxels outside the lesion's box: then PyRadiomics gets the whole image.
_NEEDS_WHOLE_IMAGE = ("normalize", "resampledPixelSpacing")


@dataclass(frozen=True)
class Settings:
    """What PyRadiomics is to compute, and how the intensities are prepared for it."""

    name: str
    """The preset's name, or ``custom``."""
    parameters: dict[str, Any]
    """PyRadiomics' own: ``imageType``, ``featureClass``, ``setting``."""
    modality: str | None = None
    dimension: int | None = None
    """2 or 3; None where the settings serve both."""
    intensity: str = "as-stored"
    """``min-max``: the whole image scaled to 0..1 first; ``as-stored``: left alone."""

    @property
    def sha256(self) -> str:
        """Hash of everything that changes a value (not of the name)."""
        canonical = json.dumps([self.intensity, self.parameters], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model bundle; `Settings.from_dict` reads it back."""
        own = {"modality": self.modality, "dimension": self.dimension, "intensity": self.intensity}
        return {"radllm": own, **self.parameters}

    @classmethod
    def from_dict(cls, data: dict[str, Any], name: str = "custom") -> Settings:
        """Settings from the content of a parameter file; RadllmError where a part of it is unknown."""
        unknown = set(data) - {"radllm", "imageType", "featureClass", "setting"}
        if unknown:
            raise RadllmError(
                f"The settings '{name}' have an unknown section '{min(map(str, unknown))}': "
                "a PyRadiomics file has imageType, featureClass and setting."
            )
        own = data.get("radllm") or {}
        settings = cls(
            name=name,
            parameters={key: value for key, value in data.items() if key != "radllm"},
            **{key: own[key] for key in ("modality", "dimension", "intensity") if key in own},
        )
        settings._check()
        return settings

    def _check(self) -> None:
        if self.modality not in (None, *MODALITIES):
            raise RadllmError(f"The settings '{self.name}' name the modality '{self.modality}': use MG, US, CT or MR.")
        if self.dimension not in (None, 2, 3):
            raise RadllmError(f"The settings '{self.name}' name the dimension '{self.dimension}': use 2 or 3.")
        if self.intensity not in _INTENSITIES:
            raise RadllmError(
                f"The settings '{self.name}' name the intensity '{self.intensity}': use {' or '.join(_INTENSITIES)}."
            )
        if find_spec("radiomics"):  # a server, which never extracts, need not have it
            _extractor(self._canonical_parameters(), 2)

    def _canonical_parameters(self) -> str:
        return json.dumps(self.parameters, sort_keys=True)


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.stem for path in _PRESET_FOLDER.glob("*.yaml"))


def load_settings(name_or_path: str | Path) -> Settings:
    """A preset by its name, or the user's own PyRadiomics parameter file (YAML or JSON) by its path."""
    text = str(name_or_path)
    if text in preset_names():
        path, name = _PRESET_FOLDER / f"{text}.yaml", text
    else:
        path, name = Path(text), "custom"
    if not path.is_file():
        raise RadllmError(
            f"There are no settings '{text}': give a PyRadiomics parameter file or one of {', '.join(preset_names())}."
        )
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RadllmError(f"The settings file {path.name} is not valid YAML: mend it or use a preset.") from error
    if not isinstance(data, dict):
        raise RadllmError(f"The settings file {path.name} holds no settings: it needs imageType and featureClass.")
    return Settings.from_dict(data, name)


def extract(lesion: Lesion, settings: Settings | str | Path) -> Features:
    """The radiomics features of one lesion, in PyRadiomics' order.

    Args:
        lesion: image and mask on one grid, 2D or 3D.
        settings: a preset's name, a PyRadiomics parameter file, or `Settings`.

    Raises:
        RadllmError: the settings do not fit the lesion's dimension, or PyRadiomics refuses the lesion.
    """
    chosen = settings if isinstance(settings, Settings) else load_settings(settings)
    dimension = lesion.image.GetDimension()
    if chosen.dimension not in (None, dimension):
        raise RadllmError(
            f"The settings '{chosen.name}' are for {chosen.dimension}D images and this image is {dimension}D: "
            "choose settings for its modality."
        )
    image, mask = _prepare(lesion, chosen)
    values = _execute(image, mask, chosen, dimension)
    return Features(
        values=values,
        extraction=Extraction(
            preset=chosen.name,
            settings_sha256=chosen.sha256,
            versions=_versions(),
            modality=lesion.modality,
            geometry=lesion.geometry,
            image_sha256=lesion.image_sha256,
            mask_sha256=lesion.mask_sha256,
        ),
    )


def _prepare(lesion: Lesion, settings: Settings) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask for PyRadiomics: whole-image scaling first, then the lesion's box where exact."""
    image, mask = lesion.image, lesion.mask
    if settings.intensity == "min-max":
        statistics = sitk.MinimumMaximumImageFilter()
        statistics.Execute(image)
        low, high = statistics.GetMinimum(), statistics.GetMaximum()
    if _can_crop(settings):
        box = lesion.geometry.bounding_box
        dimension = image.GetDimension()
        image = sitk.RegionOfInterest(image, box[dimension:], box[:dimension])
        mask = sitk.RegionOfInterest(mask, box[dimension:], box[:dimension])
    if settings.intensity == "min-max":
        return (sitk.Cast(image, sitk.sitkFloat64) - low) / (high - low), mask
    return sitk.Cast(image, sitk.sitkInt32 if _is_whole(image) else sitk.sitkFloat64), mask


def _is_whole(image: sitk.Image) -> bool:
    """Whether all values are whole numbers, however stored: PyRadiomics resamples and filters those as such."""
    pixels = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(pixels.dtype, np.integer):
        return True
    return bool((np.rint(pixels) == pixels).all() and np.abs(pixels).max() < 2**31)


def _can_crop(settings: Settings) -> bool:
    """Whether the lesion's box alone gives identical values: nothing is taken from around the lesion."""
    types = set(settings.parameters.get("imageType") or {"Original": {}})
    general = settings.parameters.get("setting") or {}
    return types == {"Original"} and not any(general.get(key) for key in _NEEDS_WHOLE_IMAGE)


def _execute(image: sitk.Image, mask: sitk.Image, settings: Settings, dimension: int) -> dict[str, float | None]:
    extractor = _extractor(settings._canonical_parameters(), dimension)
    with _one_thread():
        try:
            result = extractor.execute(image, mask)
        except (ValueError, RuntimeError, IndexError) as error:
            raise RadllmError(f"PyRadiomics cannot measure this lesion ({_reason(error)}): check its mask.") from error
    values = {name: _number(value) for name, value in result.items() if not name.startswith("diagnostics_")}
    if not values:
        raise RadllmError(
            f"The settings '{settings.name}' yield no feature of a {dimension}D image: enable more feature classes."
        )
    return values


def _number(value: Any) -> float | None:
    """A finite float; numpy 2.5 makes some shape features complex with no imaginary part."""
    number = float(np.real(value))
    return number if math.isfinite(number) else None


def _extractor(parameters_json: str, dimension: int) -> Any:
    """A PyRadiomics extractor for images of this dimension."""
    with _BUILDING:  # what validates the parameters does not bear being called from two threads at once
        return _built_extractor(parameters_json, dimension)


@lru_cache(maxsize=16)
def _built_extractor(parameters_json: str, dimension: int) -> Any:
    """Kept, because validating the parameters is slow."""
    try:
        import radiomics
        from radiomics.featureextractor import RadiomicsFeatureExtractor
    except ImportError as error:
        raise RadllmError(
            "PyRadiomics is missing: install the extension SlicerRadiomics in Slicer, "
            "or 'pip install pyradiomics-bhklab==3.1.4' elsewhere."
        ) from error
    radiomics.setVerbosity(logging.CRITICAL)  # what matters arrives as an exception
    parameters = json.loads(parameters_json)
    general = dict(parameters.get("setting") or {})
    general.update(label=1, additionalInfo=False)
    if dimension == 2:
        general["force2D"] = False  # with it, PyRadiomics expects a 3D image
    parameters["setting"] = general
    try:
        return RadiomicsFeatureExtractor(parameters)
    except Exception as error:  # pykwalify and PyRadiomics raise a dozen kinds
        raise RadllmError(f"PyRadiomics refuses these settings: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words[:200].rstrip(".") or type(error).__name__


@contextmanager
def _one_thread() -> Iterator[None]:
    """One ITK and one BLAS thread: on small boxes more of them cost up to seventy times more than they give."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    import radiomics

    return {
        "radllm_backend": __version__,
        "pyradiomics": str(radiomics.__version__).lstrip("v"),
        "numpy": np.__version__,
        "SimpleITK": metadata.version("SimpleITK"),
        "python": platform.python_version(),
    }
