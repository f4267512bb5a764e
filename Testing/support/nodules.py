"""Nodules in noise, and their feature table: what a model of volumes is trained on in the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radllm_backend import Lesion, extract
from radllm_backend.features.table import write_table


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    return np.linalg.norm(np.indices(shape) - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius


def write_volume_table(path: Path) -> None:
    """Features of nodules in noise: the bright ones are malignant."""
    rows = []
    random = np.random.default_rng(0)
    for number in range(16):
        mask = ball((16, 24, 24), (8, 12, 12), 5 + number % 3)
        voxels = random.normal(100, 10, mask.shape) + 40 * (number % 2) * mask
        image, segment = sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(mask.astype(np.uint8))
        features = extract(Lesion.from_images(image, segment, modality="CT"), "ct")
        label = ("benign", "malignant")[number % 2]
        rows.append(({"lesion": f"nodule{number}", "label": label, "patient": f"patient{number}"}, features))
    write_table(path, rows)
