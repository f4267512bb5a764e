"""Radiomics features: ours against PyRadiomics called with two files, as SlicerRadiomics calls it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from benchmarks.comparison import Comparison, Tell, compare
from radllm_backend.features.extraction import extract, measure
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.shipped import CARD, SHIPPED

QUICK = "RADLLM_BENCH_QUICK"
"""Environment variable: any value makes the images small, to try the benchmark itself."""

_USUAL = "execute(image_path, mask_path), processor time"
_SELECTED = 20
_TEXTURES = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
_FILTERED = {"Original": {}, "LoG": {"sigma": [1, 2, 3]}, "Wavelet": {}}
_FILTERED_FLAT = {"Original": {}, "LoG": {"sigma": [0.3, 0.6, 1.0]}, "Wavelet": {}}  # pixels are finer than voxels


@dataclass(frozen=True)
class _Case:
    """A generated lesion, in memory for us and as two files for the usual way."""

    name: str
    lesion: Lesion
    files: tuple[str, str]


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """Mammogram and volume; all features, a model's, and 20 selected ones; the original image and filtered ones."""
    for across, wanted in ((100, None), (300, 16), (600, None)):
        case = _mammogram(across, work, tell)
        yield _compared(case, "all 102 features", _settings("shape2D", {"Original": {}}, binCount=64), runs, wanted)
        if across == 300:
            yield from _of_300_pixels(case, runs)
    for across, wanted in ((30, None), (60, 8), (90, None)):
        case = _volume(across, work, tell)
        yield _compared(case, "all 107 features", _settings("shape", {"Original": {}}, binWidth=25), runs, wanted)
        if across == 60:
            filtered = _settings("shape", _FILTERED, binWidth=25)
            yield _compared(case, "1,130 features of filtered images", filtered, runs, 6)
            yield _selected(case, filtered, runs, 10)


def _of_300_pixels(case: _Case, runs: int) -> Iterator[Comparison]:
    card = json.loads((SHIPPED / "breast-us" / CARD).read_text(encoding="utf-8"))
    features = [row["feature"] for row in card["features"]]
    own = Settings.from_dict(card["settings"], card["settings_name"])
    what = f"the {len(features)} features of the model breast-us"
    yield _compared(case, what, own, runs, 25, features)
    yield _with_provenance(case, own, runs)
    filtered = _settings("shape2D", _FILTERED_FLAT, binCount=64)
    yield _compared(case, "753 features of filtered images", filtered, runs, 12)
    yield _selected(case, filtered, runs, 40)


def _selected(case: _Case, settings: Settings, runs: int, wanted: float) -> Comparison:
    """Features spread over all filtered images and feature classes: the hardest choice to be quick with."""
    names = list(measure(case.lesion, settings))
    step = len(names) // _SELECTED
    features = names[step // 2 :: step][:_SELECTED]
    return _compared(case, f"{_SELECTED} selected features of filtered images", settings, runs, wanted, features)


def _compared(
    case: _Case,
    what: str,
    settings: Settings,
    runs: int,
    wanted: float | None,
    features: Collection[str] | None = None,
) -> Comparison:
    usual = _usual(case, settings)

    def ours() -> dict[str, float | None]:
        return measure(replace(case.lesion), settings, features=features)  # a copy knows nothing of itself yet

    note = _difference(usual(), ours()) if settings.intensity == "as-stored" else "scales the whole image to 0..1 too"
    return _timed(f"{case.name}, {what}", usual, ours, runs, wanted, note)


def _with_provenance(case: _Case, settings: Settings, runs: int) -> Comparison:
    """From two images in memory, with all checks and the hashes that tell later what was measured."""

    def ours() -> object:
        return extract(Lesion.from_images(case.lesion.image, case.lesion.mask, modality="MG"), settings)

    what = "all 102 features, with the checks of image and mask and their SHA-256"
    return _timed(f"{case.name}, {what}", _usual(case, settings), ours, runs)


def _timed(
    case: str,
    usual: Callable[[], object],
    ours: Callable[[], object],
    runs: int,
    wanted: float | None = None,
    note: str = "",
) -> Comparison:
    """In processor time: both ways run in this process, and in real time other work on the machine counts too."""
    clock = time.process_time
    return compare("extraction", case, (_USUAL, usual), ours, runs=runs, wanted=wanted, note=note, clock=clock)


def _usual(case: _Case, settings: Settings) -> Callable[[], dict[str, Any]]:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    extractor = RadiomicsFeatureExtractor(settings.parameters)

    def usual() -> dict[str, Any]:
        with threadpool_limits(limits=1):  # more BLAS threads would only make it slower
            return dict(extractor.execute(*case.files))

    return usual


def _difference(usual: dict[str, Any], ours: dict[str, float | None]) -> str:
    largest = max(
        abs(value - float(usual[name])) / max(abs(float(usual[name])), 1e-300)
        for name, value in ours.items()
        if value is not None
    )
    return f"{len(ours)} values, largest relative difference {largest:.1e}"


def _settings(shape: str, images: dict[str, Any], **general: Any) -> Settings:
    classes = dict.fromkeys((shape, *_TEXTURES))
    return Settings.from_dict({"imageType": images, "featureClass": classes, "setting": general})


def _mammogram(across: int, work: Path, tell: Tell) -> _Case:
    """3328 x 4084 pixels of 16 bits and 0.07 mm."""
    shape, across = ((600, 500), across // 10) if os.environ.get(QUICK) else ((4084, 3328), across)
    return _case(f"mammogram, lesion of {across} px", shape, across, (0.07, 0.07), (20000, 6000, 0, 65535), work, tell)


def _volume(across: int, work: Path, tell: Tell) -> _Case:
    """256 x 256 x 150 voxels of 1 mm, in Hounsfield units."""
    shape, across = ((30, 50, 50), across // 5) if os.environ.get(QUICK) else ((150, 256, 256), across)
    return _case(f"volume, lesion of {across}³", shape, across, (1, 1, 1), (40, 160, -1024, 3071), work, tell)


def _case(
    name: str,
    shape: tuple[int, ...],
    across: int,
    spacing: tuple[float, ...],
    grey: tuple[float, float, float, float],
    work: Path,
    tell: Tell,
) -> _Case:
    """A lobed lesion in the middle of correlated noise of this mean, deviation, least and largest grey value."""
    from scipy import ndimage

    tell(f"extraction: {name}")
    random = np.random.default_rng(across)
    mean, deviation, low, high = grey
    noise = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), 1.5)
    voxels = mean + deviation * (noise / noise.std() + 0.2 * random.standard_normal(shape, np.float32))
    image = sitk.GetImageFromArray(np.clip(voxels, low, high).astype(np.uint16 if low == 0 else np.int16))
    mask = sitk.GetImageFromArray(_lobed(shape, across))
    for one in (image, mask):
        one.SetSpacing(spacing)
    files = tuple(str(work / f"{name.replace(', ', ' ')} {kind}.nrrd") for kind in ("image", "mask"))
    sitk.WriteImage(image, files[0])
    sitk.WriteImage(mask, files[1])
    return _Case(name, Lesion.from_images(image, mask), (files[0], files[1]))


def _lobed(shape: tuple[int, ...], across: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A disc or ball whose radius goes up and down by a tenth as the angle in the last two axes goes round."""
    axes = np.ogrid[tuple(slice(length) for length in shape)]
    apart = [(axis - length // 2) for axis, length in zip(axes, shape, strict=True)]
    radius = across / 2 * (0.9 + 0.1 * np.cos(4 * np.arctan2(apart[-2], apart[-1])))
    inside: np.ndarray[Any, np.dtype[np.bool_]] = np.sqrt(sum(axis**2 for axis in apart)) <= radius
    return inside.astype(np.uint8)
