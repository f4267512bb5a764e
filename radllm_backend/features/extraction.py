"""From a `Lesion` to its `Features`, by PyRadiomics."""

from __future__ import annotations

import json
import logging
import math
import platform
from collections.abc import Collection
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from threadpoolctl import threadpool_limits

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.features import agreement, pyradiomics
from radllm_backend.features.cropping import scaling, source_of
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.records import Extraction, Features

_PRESET_FOLDER = Path(__file__).parent / "settings"
_BUILDING = Lock()
_MEASURING = RLock()
"""Threads take turns. SimpleITK moves the voxels of an image that two of them use, and one would read freed memory."""


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
    settings = Settings.from_dict(data, name)
    if find_spec("radiomics"):
        _extractor(settings.canonical_parameters(), 2)  # refuses now what it would refuse at the first lesion
    return settings


def extract(lesion: Lesion, settings: Settings | str | Path, *, features: Collection[str] | None = None) -> Features:
    """The radiomics features of one lesion, in PyRadiomics' order, with what they were measured of.

    Args:
        lesion: image and mask on one grid, 2D or 3D.
        settings: a preset's name, a PyRadiomics parameter file, or `Settings`.
        features: only these are computed, by PyRadiomics' names such as ``wavelet-LH_glszm_ZoneEntropy``; None: all.

    Raises:
        RadllmError: the settings do not fit the lesion's dimension or do not yield a feature that is asked for, or
            PyRadiomics refuses the lesion.
    """
    chosen = settings if isinstance(settings, Settings) else load_settings(settings)
    with _MEASURING:
        return Features(
            values=measure(lesion, chosen, features=features),
            extraction=Extraction(
                preset=chosen.name,
                settings_sha256=chosen.sha256,
                versions=_versions(agreement.agrees(*_extractor_of(chosen, lesion))),
                modality=lesion.modality,
                geometry=lesion.geometry,
                image_sha256=lesion.image_sha256,
                mask_sha256=lesion.mask_sha256,
            ),
        )


def measure(
    lesion: Lesion, settings: Settings | str | Path, *, features: Collection[str] | None = None
) -> dict[str, float | None]:
    """The values alone, without hashes of image and mask; arguments and errors are those of `extract`.

    Returns:
        By PyRadiomics' names, in its order; None where a value is not defined.
    """
    chosen = settings if isinstance(settings, Settings) else load_settings(settings)
    dimension = lesion.image.GetDimension()
    if chosen.dimension not in (None, dimension):
        raise RadllmError(
            f"The settings '{chosen.name}' are for {chosen.dimension}D images and this image is {dimension}D: "
            "choose settings for its modality."
        )
    if features is not None and not features:
        raise RadllmError("No feature is asked for: name one, or leave it to the settings.")
    with _MEASURING, _ONE_THREAD:
        try:
            result = _measured(lesion, chosen, features)
        except (ValueError, RuntimeError, IndexError) as error:
            raise RadllmError(f"PyRadiomics cannot measure this lesion ({_reason(error)}): check its mask.") from error
    values = {name: _number(value) for name, value in result.items()}
    if missing := sorted(set(features or ()) - set(values)):  # not enabled, or left out by PyRadiomics
        raise _not_yielded(missing[0], chosen, dimension)
    if not values:
        raise RadllmError(
            f"The settings '{chosen.name}' yield no feature of a {dimension}D image: enable more feature classes."
        )
    return values


def _measured(lesion: Lesion, settings: Settings, features: Collection[str] | None) -> dict[str, Any]:
    """By our way through PyRadiomics, or by its own where ours would give other values."""
    extractor, dimension = _extractor_of(settings, lesion)
    min_max = settings.intensity == "min-max"
    if not agreement.agrees(extractor, dimension):
        scaled = scaling(lesion.image, min_max)
        return agreement.execute(extractor, scaled(lesion.image), lesion.mask, features)
    shape, jobs = pyradiomics.plan(extractor, dimension, features)
    box = lesion.geometry.bounding_box
    source = source_of(lesion.image, lesion.mask, box, extractor.settings, min_max=min_max)
    return pyradiomics.feature_values(source, extractor.settings, shape, jobs)


def _not_yielded(feature: str, settings: Settings, dimension: int) -> RadllmError:
    return RadllmError(
        f"The settings '{settings.name}' yield no feature '{feature[:80]}' of this {dimension}D image: "
        "ask for one that they enable."
    )


def _number(value: Any) -> float | None:
    """A finite float; numpy 2.5 makes some shape features complex with no imaginary part."""
    number = float(np.real(value))
    return number if math.isfinite(number) else None


def _extractor_of(settings: Settings, lesion: Lesion) -> tuple[Any, int]:
    """The extractor for a lesion, and its dimension."""
    dimension = lesion.image.GetDimension()
    return _extractor(settings.canonical_parameters(), dimension), dimension


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


class _OneThread:
    """One ITK and one BLAS thread: on small boxes more of them cost up to seventy times more than they give.

    Both are settings of the process, so that the first extraction that begins changes them, and the last one that ends
    sets them back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._itk = 0
        self._blas: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._itk = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
            self._blas = threadpool_limits(limits=1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            self._blas.restore_original_limits()
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self._itk)


_ONE_THREAD = _OneThread()


@lru_cache(maxsize=2)
def _versions(in_our_way: bool) -> dict[str, str]:
    """Of the packages that have a part in the values; PyRadiomics' says so where its own way measured."""
    import radiomics

    version = str(radiomics.__version__).lstrip("v")
    return {
        "radllm_backend": __version__,
        "pyradiomics": version if in_our_way else agreement.executed(version),
        "numpy": np.__version__,
        "SimpleITK": metadata.version("SimpleITK"),
        "python": platform.python_version(),
    }
