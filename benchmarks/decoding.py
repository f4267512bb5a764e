"""Reading a mammogram's pixels: ours against SimpleITK's own DICOM reader, in every transfer syntax."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.comparison import QUICK, Comparison, Tell, compare
from benchmarks.mammograms import BITS, FULL_FIELD, generated_mammogram, write_mammogram
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import read_image

_USUAL = "SimpleITK.ReadImage"
_NAMES: dict[UID, str] = {
    ExplicitVRLittleEndian: "uncompressed",
    RLELossless: "RLE",
    JPEGLosslessSV1: "lossless JPEG",
    JPEGLSLossless: "JPEG-LS",
    JPEG2000Lossless: "lossless JPEG 2000",
}


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """One file a transfer syntax, the same generated mammogram in each; processor time of both ways.

    Raises:
        RadllmError: the packages that encode the files are missing, or the two ways read different pixels.
    """
    shape = (450, 270) if os.environ.get(QUICK) else FULL_FIELD
    values = generated_mammogram(shape)
    for syntax, name in _NAMES.items():
        tell(f"Decoding: {name}")
        file = work / f"{syntax}.dcm"
        write_mammogram(file, values, syntax)
        case = f"{name}, {BITS} bits, {shape[1]} × {shape[0]}"
        usual, ours = partial(sitk.ReadImage, str(file)), partial(read_image, file)
        _check_same(case, values, sitk.GetArrayFromImage(usual())[0], sitk.GetArrayFromImage(ours().pixels))
        yield compare(
            "decoding", case, (_USUAL, usual), ours, runs=runs, note="identical pixels", clock=time.process_time
        )
        file.unlink()


def _check_same(case: str, written: NDArray[Any], *read: NDArray[Any]) -> None:
    if not all(np.array_equal(written, found) for found in read):
        raise RadllmError(f"Decoding {case} gives other pixels than were written: please report this.")
