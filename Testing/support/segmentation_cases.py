"""Masks as DICOM segmentations, and the lesions that they must come to, for the tests of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

from radllm_backend.batch.candidates import Candidate, SegmentationKind
from radllm_backend.imaging.image_files import read_image
from radllm_backend.imaging.lesion import Lesion

SHAPE = (4, 9, 11)


def lopsided(shape: tuple[int, ...] = SHAPE, *, shift: int = 0) -> np.ndarray:
    """Unlike its mirror images, with a hole, and off the first and the last slice."""
    mask = np.zeros(shape, np.uint8)
    mask[..., 2:7, 1 + shift : 6 + shift] = 1
    mask[..., 4, 3 + shift] = 0
    mask[..., 6, 1 + shift] = 0
    if mask.ndim == 3:
        mask[0], mask[-1] = 0, 0
        mask[2, 2, :] = 0
    return mask


def candidate(kind: SegmentationKind, images: list[Path], file: Path, number: int = 1, **more: Any) -> Candidate:
    header = pydicom.dcmread(images[0], stop_before_pixels=True)
    uids = {"series": header.SeriesInstanceUID, "source": "1.2"}
    return Candidate(
        kind=kind, image=tuple(map(str, images)), segmentation=str(file), number=number, modality=header.Modality,
        **uids, **more,
    )  # fmt: skip


def from_files(images: list[Path], mask: np.ndarray, tmp_path: Path) -> Lesion:
    """The lesion as a mask file beside the image gives it: what a segment must come to."""
    image = read_image(images[0].parent if len(images) > 1 else images[0])
    marked = sitk.GetImageFromArray(mask)
    marked.CopyInformation(image.pixels)
    sitk.WriteImage(marked, str(tmp_path / "mask.nrrd"))
    return Lesion.from_files(image, tmp_path / "mask.nrrd")


def assert_same(lesion: Lesion, expected: Lesion) -> None:
    assert (lesion.image_sha256, lesion.mask_sha256) == (expected.image_sha256, expected.mask_sha256)
    assert (lesion.geometry, lesion.modality) == (expected.geometry, expected.modality)
    assert lesion.image.GetOrigin() == lesion.mask.GetOrigin() == expected.image.GetOrigin()
    assert lesion.image.GetDirection() == expected.image.GetDirection()
