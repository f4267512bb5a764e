"""Generated full-field mammograms in DICOM files, in every lossless transfer syntax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from radllm_backend.errors import RadllmError

FULL_FIELD = (4500, 2700)
"""Rows and columns, as a digitised film of CBIS-DDSM has them."""
BITS = 16


def generated_mammogram(shape: tuple[int, int] = FULL_FIELD, seed: int = 0) -> NDArray[np.uint16]:
    """A breast of uneven density and with noise before an empty background, 16 bits, (rows, columns)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    tissue = 30_000 + 8_000 * np.sin(9 * rows + 4 * columns) + 4_000 * np.cos(31 * rows * columns)
    breast = rows**2 + columns**2 < 0.7
    return np.where(breast, tissue + generator.normal(0, 200, shape), 0).astype(np.uint16)


def write_mammogram(file: Path, values: NDArray[np.uint16], syntax: UID) -> None:
    """A DICOM file of these pixels, (rows, columns), compressed without loss as `syntax` says.

    Raises:
        RadllmError: the packages that encode it are missing.
    """
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
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = BITS, BITS, BITS - 1, 0
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
