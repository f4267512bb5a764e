"""Small images and masks, in memory and as files, for the tests of lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radllm_backend.imaging.lesion import Lesion

RNG = np.random.default_rng(11)
VALUES_3D = RNG.integers(0, 1000, (6, 9, 10), dtype=np.int16)
VALUES_2D = RNG.integers(0, 256, (9, 10), dtype=np.uint8)


def image_of(
    values: np.ndarray,
    spacing: Sequence[float] | None = None,
    origin: Sequence[float] | None = None,
    direction: Sequence[float] | None = None,
) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing or [1.0] * values.ndim)
    image.SetOrigin(origin or [0.0] * values.ndim)
    image.SetDirection(direction or np.eye(values.ndim).ravel().tolist())
    return image


def mask_of(values: np.ndarray, label: int = 1, dtype: type = np.uint8) -> np.ndarray:
    """A box of the label away from the border."""
    mask = np.zeros(values.shape, dtype)
    mask[tuple(slice(length // 4, length // 4 + 3) if length > 1 else slice(None) for length in values.shape)] = label
    return mask


def three_labels() -> np.ndarray:
    mask = np.zeros_like(VALUES_2D)
    mask[1:3, 1:3], mask[4:7, 1:4], mask[5:8, 6:9] = 200, 3, 17
    return mask


def write(path: Path, image: sitk.Image | np.ndarray) -> Path:
    sitk.WriteImage(image if isinstance(image, sitk.Image) else sitk.GetImageFromArray(image), str(path))
    return path


def pair(folder: Path, image: Any = VALUES_2D, mask: Any = None, suffix: str = "nrrd") -> tuple[Path, Path]:
    mask = mask_of(image) if mask is None else mask
    return write(folder / f"image.{suffix}", image), write(folder / f"mask.{suffix}", mask)


def content(lesion: Lesion) -> tuple:
    return lesion.geometry, lesion.image_sha256, lesion.mask_sha256
