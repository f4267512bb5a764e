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
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from radllm_backend.benchmarks.comparison import Comparison, Progress, compare
from radllm_backend.errors import RadllmError
from radllm_backend.image_files import read_image

_QUICK = "RADLLM_BENCH_QUICK"
_FULL_FIELD = (4500, 2700)  # rows and columns, as a digitised film of CBIS-DDSM has them
_BITS = 16
_USUAL = "SimpleITK.ReadImage"
_NAMES: dict[UID, str] = {
    ExplicitVRLittleEndian: "uncompressed",
    RLELossless: "RLE",
    JPEGLosslessSV1: "lossless JPEG",
    JPEGLSLossless: "JPEG-LS",
    JPEG2000Lossless: "lossless JPEG 2000",
}


def comparisons(runs: int, work: Path, tell: Progress) -> Iterator[Comparison]:
    """One file a transfer syntax, the same generated mammogram in each; processor time of both ways.

    Raises:
        RadllmError: the packages that encode the files are missing, or the two ways read different pixels.
    """
    shape = (450, 270) if os.environ.get(_QUICK) else _FULL_FIELD
    values = _mammogram(shape)
    for syntax, name in _NAMES.items():
        tell(f"Decoding: {name}")
        file = work / f"{syntax}.dcm"
        _write(file, values, syntax)
        case = f"{name}, {_BITS} bits, {shape[1]} × {shape[0]}"
        usual, ours = partial(sitk.ReadImage, str(file)), partial(read_image, file)
        _check_same(case, values, sitk.GetArrayFromImage(usual())[0], sitk.GetArrayFromImage(ours().pixels))
        yield compare(
            "decoding", case, (_USUAL, usual), ours, runs=runs, note="identical pixels", clock=time.process_time
        )
        file.unlink()


def _mammogram(shape: tuple[int, int]) -> NDArray[np.uint16]:
    """A breast of uneven density and with noise before an empty background, 16 bits, (rows, columns)."""
    generator = np.random.default_rng(0)
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    tissue = 30_000 + 8_000 * np.sin(9 * rows + 4 * columns) + 4_000 * np.cos(31 * rows * columns)
    breast = rows**2 + columns**2 < 0.7
    return np.where(breast, tissue + generator.normal(0, 200, shape), 0).astype(np.uint16)


def _write(file: Path, values: NDArray[np.uint16], syntax: UID) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.ImagerPixelSpacing = "MG", [0.05, 0.05]
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = _BITS, _BITS, _BITS - 1, 0
    dataset.add_new("PixelData", "OW", values.astype("<u2").tobytes())
    try:
        _compress(dataset, values, syntax)
        dataset.save_as(file, enforce_file_format=True)
    except (ImportError, TypeError) as error:
        raise RadllmError(
            "Writing the files to decode needs pydicom 3 and the decoders: pip install 'radllm-backend[dicom]'."
        ) from error


def _compress(dataset: Dataset, values: NDArray[np.uint16], syntax: UID) -> None:
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        from pydicom.encaps import encapsulate

        dataset.PixelData = encapsulate([_codestream(values, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax


def _codestream(values: NDArray[np.uint16], syntax: UID) -> bytes:
    import imagecodecs

    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k"))
    encode = imagecodecs.jpegls_encode if syntax == JPEGLSLossless else imagecodecs.ljpeg_encode
    return bytes(encode(values))


def _check_same(case: str, written: NDArray[Any], *read: NDArray[Any]) -> None:
    if not all(np.array_equal(written, found) for found in read):
        raise RadllmError(f"Decoding {case} gives other pixels than were written: please report this.")
