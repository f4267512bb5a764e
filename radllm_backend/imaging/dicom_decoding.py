"""The stored values of a DICOM file, each transfer syntax by the fastest decoder that gives them bit for bit.

GDCM, which SimpleITK brings along, decodes what no other is named for below, and whatever a named one is not installed
for or declines: inside 3D Slicer, all JPEGs. JPEG and JPEG 2000 with losses are GDCM's alone, because decoders round
differently there.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

_GREY = ("MONOCHROME1", "MONOCHROME2")
_OF_PYDICOM_3 = hasattr(Dataset, "pixel_array_options")
_WHOLE_FILE = {"enforce_file_format": True} if _OF_PYDICOM_3 else {"write_like_original": False}
_JPEG_2000 = b"\xff\x4f\xff\x51"
_LOSSLESS, _LS, _RESTART, _SCAN = 0xC3, 0xF7, 0xDD, 0xDA
"""Markers of a JPEG: frame headers of its lossless processes and of JPEG-LS, restart interval, start of scan."""


def stored_values(dataset: Dataset) -> NDArray[Any]:
    """The file's stored values, (frames, rows, columns) or, in colour, RGB as (frames, rows, columns, 3).

    Values have the type that Bits Allocated and Pixel Representation give; bits above Bits Stored are none of theirs.

    Raises:
        Exception: of many kinds, from pydicom and the decoders, where the pixels are damaged or of no known syntax.
    """
    decode = _FASTEST.get(dataset.file_meta.TransferSyntaxUID)
    values = decode(dataset) if decode else None
    return _by_gdcm(dataset) if values is None else values


def _by_pydicom(dataset: Dataset) -> NDArray[Any] | None:
    """Its RLE is ten times faster where pylibjpeg-rle is installed."""
    if dataset.PhotometricInterpretation not in (*_GREY, "RGB"):
        return None
    if dataset.BitsStored == dataset.BitsAllocated and _OF_PYDICOM_3:
        dataset.pixel_array_options(view_only=True)  # uncompressed pixels are not copied
    try:
        values = dataset.pixel_array
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # pylibjpeg-rle, written in Rust, panics on a damaged frame: no Exception
        raise ValueError("damaged pixel data") from error
    colours = (3,) if dataset.PhotometricInterpretation == "RGB" else ()
    native = values.astype(values.dtype.newbyteorder("="), copy=False)  # SimpleITK takes no other byte order
    return native.reshape(-1, dataset.Rows, dataset.Columns, *colours)


def _by_imagecodecs(function: str, dataset: Dataset) -> NDArray[Any] | None:
    try:
        import imagecodecs
        from pydicom.encaps import generate_frames  # of pydicom 3
    except ImportError:
        return None
    signed, allocated = bool(dataset.PixelRepresentation), dataset.BitsAllocated
    if dataset.PhotometricInterpretation not in _GREY or allocated not in (8, 16):
        return None
    count = int(dataset.get("NumberOfFrames") or 1)
    values = np.empty((count, dataset.Rows, dataset.Columns), f"{'i' if signed else 'u'}{allocated // 8}")
    try:
        frames = generate_frames(dataset.PixelData, number_of_frames=count)
        for decoded, frame in zip(values, frames, strict=True):
            if not _suits(_codestream(frame), dataset):
                return None
            decoded[:] = getattr(imagecodecs, function)(frame)
    except Exception:  # of as many kinds as there are codecs; GDCM has the last word on what is damaged
        return None
    if unused := allocated - dataset.BitsStored:
        np.left_shift(values, unused, out=values)
        np.right_shift(values, unused, out=values)
    return values


class _Codestream(NamedTuple):
    """What the header of one compressed frame says, before any memory is given to it."""

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool
    restarts: bool


def _codestream(frame: bytes) -> _Codestream:
    """The header of a JPEG 2000, JPEG-LS or lossless JPEG codestream.

    Raises:
        IndexError, struct.error: it is none of these.
    """
    if frame.startswith(_JPEG_2000):
        columns, rows, left, top = struct.unpack_from(">4I", frame, 8)
        samples, depth = struct.unpack_from(">HB", frame, 40)
        return _Codestream(rows - top, columns - left, samples, (depth & 0x7F) + 1, depth > 0x7F, restarts=False)
    restarts, place, found = False, 2, None
    while (marker := frame[place + 1]) != _SCAN:
        restarts |= marker == _RESTART
        if marker in (_LOSSLESS, _LS):
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
            found = rows, columns, samples, bits
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    if found is None:
        raise IndexError
    return _Codestream(*found, signed=False, restarts=restarts)


def _suits(stream: _Codestream, dataset: Dataset) -> bool:
    """Whether a codestream is what the file says: the usual case, which every decoder understands alike."""
    right_sign = bool(dataset.PixelRepresentation) or not stream.signed  # a JPEG keeps signed values as unsigned bits
    return (
        (stream.rows, stream.columns, stream.samples) == (dataset.Rows, dataset.Columns, 1)
        and stream.bits <= dataset.BitsAllocated
        and right_sign
        and not stream.restarts  # imagecodecs' lossless JPEG does not know them
    )


def _by_gdcm(dataset: Dataset) -> NDArray[Any]:
    """Use GDCM as a decoder and for nothing else: it gets the pixels without what it would apply to them."""
    bare = dataset.group_dataset(0x0028)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        bare.pop(keyword, None)
    if bare.PhotometricInterpretation == "MONOCHROME1":
        bare.PhotometricInterpretation = "MONOCHROME2"
    bare.add(dataset["PixelData"])
    bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.SOPInstanceUID = generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pixels.dcm"
        pydicom.dcmwrite(file, bare, **_WHOLE_FILE)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        return sitk.GetArrayFromImage(reader.Execute())


_FASTEST: dict[UID, Callable[[Dataset], NDArray[Any] | None]] = {
    ImplicitVRLittleEndian: _by_pydicom,
    ExplicitVRLittleEndian: _by_pydicom,
    ExplicitVRBigEndian: _by_pydicom,
    DeflatedExplicitVRLittleEndian: _by_pydicom,
    RLELossless: _by_pydicom,
    JPEGLossless: partial(_by_imagecodecs, "ljpeg_decode"),
    JPEGLosslessSV1: partial(_by_imagecodecs, "ljpeg_decode"),
    JPEGLSLossless: partial(_by_imagecodecs, "jpegls_decode"),
    JPEGLSNearLossless: partial(_by_imagecodecs, "jpegls_decode"),
    JPEG2000Lossless: partial(_by_imagecodecs, "jpeg2k_decode"),
}
"""The decoder of each transfer syntax; it gives None for what it leaves to GDCM."""
