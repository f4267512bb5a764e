"""Writes small DICOM files for the tests: any transfer syntax, classic slices and enhanced multi-frame files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

ENCODERS: dict[UID, Callable[[np.ndarray], bytes]] = {
    JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k"),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
}
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
SYNTAXES = (*NATIVE, RLELossless, *ENCODERS)


def write_dicom(
    path: Path,
    stored: np.ndarray,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    sop_class: UID = DigitalMammographyXRayImageStorageForPresentation,
    bits_stored: int | None = None,
    **elements: Any,
) -> Path:
    """Write stored values, (rows, columns) or (frames, rows, columns), grey or with three colours last."""
    colour = elements.get("PhotometricInterpretation", "").startswith(("RGB", "YBR"))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = stored.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    _add_pixels(dataset, stored, syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _add_pixels(dataset: Dataset, stored: np.ndarray, syntax: UID) -> None:
    if syntax in ENCODERS:
        dataset.PixelData = encapsulate([ENCODERS[syntax](np.ascontiguousarray(stored))])
        dataset["PixelData"].is_undefined_length = True
    else:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OW" if stored.itemsize == 2 else "OB"
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)


def write_slice(path: Path, stored: np.ndarray, position: Sequence[float], **elements: Any) -> Path:
    """Write one CT slice; ``position`` is that of its first pixel."""
    elements = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.25], **elements}
    located = {"Modality": "CT", "ImagePositionPatient": [float(f"{number:.6f}") for number in position]}
    return write_dicom(path, stored, sop_class=CTImageStorage, **{**located, **elements})


def write_enhanced(
    path: Path, stored: np.ndarray, heights: Sequence[float], slopes: Sequence[float] | None = None, **elements: Any
) -> Path:
    """Write an enhanced CT file whose frames lie at the heights; every frame has its own slope if slopes are given."""
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.5, 0.25])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    frames = [Dataset() for _ in heights]
    for number, (frame, height) in enumerate(zip(frames, heights, strict=True)):
        frame.PlanePositionSequence = [_item(ImagePositionPatient=[1, 2, height])]
        if slopes:
            rescale = {"RescaleSlope": slopes[number], "RescaleIntercept": 0, "RescaleType": "US"}
            frame.PixelValueTransformationSequence = [_item(**rescale)]
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    about = {"Modality": "CT", "NumberOfFrames": len(stored), **groups, **elements}
    return write_dicom(path, stored, sop_class=EnhancedCTImageStorage, **about)


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
