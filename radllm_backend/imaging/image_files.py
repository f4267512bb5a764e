"""Reading one image or mask file: DICOM, NRRD (also Slicer's .seg.nrrd), NIfTI, MetaImage, PNG, TIFF, JPEG, BMP."""

from __future__ import annotations

import gzip
import math
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from PIL.ImageFile import ImageFile as Picture

from radllm_backend.errors import RadllmError
from radllm_backend.files import is_dicom

_KNOWN_FORMATS = "DICOM, NRRD, NIfTI, MetaImage, PNG, TIFF, JPEG or BMP"
_VOLUME_READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
_PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_BT601_LUMA = (0.299, 0.587, 0.114)
_COLOUR_TYPES = (sitk.sitkVectorUInt8, sitk.sitkVectorUInt16)

_one_reader = threading.Lock()


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation file: the voxels of ``layer`` that have the value ``label``."""

    id: str
    name: str
    layer: int
    label: int


@dataclass(frozen=True, eq=False)
class ImageFile:
    """What one file (or DICOM series) holds."""

    name: str
    """The file's name without its folder, for messages."""
    pixels: sitk.Image
    """2D or 3D, one value a voxel; a ``.seg.nrrd`` of several layers has one component a layer."""
    has_geometry: bool
    """Whether the file says where in space its pixels lie; a picture or a projection radiograph does not."""
    spacing_known: bool
    modality: str | None = None
    """MG, US, CT or MR, as DICOM says it."""
    segments: tuple[Segment, ...] = ()
    """In the file's order; empty where the file names none."""


def read_image(path: str | Path, series: str | None = None) -> ImageFile:
    """Read an image; colours become grey by the luma weights of ITU-R BT.601, rounded, and alpha is ignored.

    Args:
        path: a file, or a folder that holds a DICOM series.
        series: the Series Instance UID to read, where a folder holds several.

    Raises:
        RadllmError: the file is missing, damaged or of another kind, or has not two or three dimensions.
    """
    file = _read(Path(path), series, is_mask=False)
    return replace(file, pixels=grey(file.pixels, file.name))


def read_mask(path: str | Path) -> ImageFile:
    """Read a mask, whose values are labels; in a colour picture the label is the largest of red, green and blue.

    Raises:
        RadllmError: as ``read_image``, and for a JPEG file, whose compression changes labels.
    """
    file = _read(Path(path), None, is_mask=True)
    layers = file.pixels.GetNumberOfComponentsPerPixel()
    if layers == 1 or file.segments:
        return file
    if file.has_geometry or file.pixels.GetPixelID() not in _COLOUR_TYPES:
        raise RadllmError(f"{file.name} has {layers} values per voxel but names no segments: give one label per voxel.")
    colours = sitk.GetArrayViewFromImage(file.pixels)
    brightest = np.maximum.reduce([colours[..., channel] for channel in range(3)])
    return replace(file, pixels=_like(file.pixels, brightest))


def grey(pixels: sitk.Image, name: str) -> sitk.Image:
    """The image itself, or its luma where it is in colour (RGB or RGBA of 8 or 16 bits).

    Raises:
        RadllmError: the image has several values per voxel that are no colour.
    """
    components = pixels.GetNumberOfComponentsPerPixel()
    if components == 1:
        return pixels
    if components not in (3, 4) or pixels.GetPixelID() not in _COLOUR_TYPES:
        raise RadllmError(f"{name} has {components} values per voxel that are no colour: give a grey-scale image.")
    colours = sitk.GetArrayViewFromImage(pixels)
    if (colours[..., 0] == colours[..., 1]).all() and (colours[..., 0] == colours[..., 2]).all():
        return _like(pixels, colours[..., 0])
    luma = np.rint(sum(weight * colours[..., channel] for channel, weight in enumerate(_BT601_LUMA)))
    return _like(pixels, luma.astype(colours.dtype))


def _like(pixels: sitk.Image, values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(pixels)
    return image


def _read(path: Path, series: str | None, *, is_mask: bool) -> ImageFile:
    path = Path(os.path.abspath(path))  # so that the folder "." has a name
    if not path.exists():
        raise RadllmError(f"{path.name} does not exist: check the path.")
    suffix = _suffix(path)
    try:
        with _silent_libraries():
            if path.is_dir() or is_dicom(path):
                # What it needs takes longer to import than a picture takes to be read.
                from radllm_backend.imaging.dicom_files import read_dicom

                return ImageFile(path.name, *read_dicom(path, series, invert_monochrome1=not is_mask))
            if suffix in _VOLUME_READERS:
                return _read_volume(path, _VOLUME_READERS[suffix])
            if suffix in _PICTURE_SUFFIXES:
                return ImageFile(path.name, _read_picture(path, is_mask), has_geometry=False, spacing_known=False)
    except OSError as error:
        raise RadllmError(f"{path.name} cannot be opened ({error.strerror}): check that you may read it.") from error
    if suffix in _DICOM_SUFFIXES:
        raise _damaged(path)
    raise RadllmError(f"{path.name} is no image that can be read here: give {_KNOWN_FORMATS}.")


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Keep off the terminal what ITK's, Pillow's and pylibjpeg's C libraries print about a file before they fail."""
    with _one_reader:
        try:
            terminal = os.dup(2)
        except OSError:  # a windowed program may have no standard error
            terminal = None
        if terminal is None:
            yield
            return
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _damaged(path: Path) -> RadllmError:
    return RadllmError(f"{path.name} is damaged, or is no {_suffix(path)[1:]} file: export or copy it again.")


def _read_picture(path: Path, is_mask: bool) -> sitk.Image:
    """A picture of 8 or 16 bits; colour comes as a vector image."""
    try:
        with warnings.catch_warnings():
            for remark in (UserWarning, Image.DecompressionBombWarning):  # Pillow's, on metadata that is not used
                warnings.simplefilter("ignore", remark)
            with Image.open(path, formats=("PNG", "TIFF", "JPEG", "BMP")) as picture:
                return _decoded(path, picture, is_mask)
    except RadllmError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise _damaged(path) from error


def _decoded(path: Path, picture: Picture, is_mask: bool) -> sitk.Image:
    if is_mask and picture.format == "JPEG":
        raise RadllmError(f"{path.name} is a JPEG file, whose compression changes labels: save the mask as PNG.")
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise RadllmError(f"{path.name} holds {pages} pictures: give one as its own file.")
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        return sitk.GetImageFromArray(values.astype(values.dtype.newbyteorder("="), copy=False))
    if picture.mode == "1":
        return sitk.GetImageFromArray(np.asarray(picture.convert("L")))
    if _has_sixteen_bit_colours(picture):
        return _without_spacing(sitk.ReadImage(str(path)))
    return sitk.GetImageFromArray(np.asarray(picture.convert("RGB")), isVector=True)


def _has_sixteen_bit_colours(picture: Picture) -> bool:
    """Whether the file stores 16 bits a colour, of which Pillow would keep eight."""
    arguments = picture.tile[0].args or ""
    raw_mode = arguments if isinstance(arguments, str) else str(arguments[0])
    return picture.mode in ("RGB", "RGBA") and "16" in raw_mode


def _without_spacing(pixels: sitk.Image) -> sitk.Image:
    """A picture's resolution is that of the page it was meant for, not of the patient."""
    pixels.SetSpacing([1.0] * pixels.GetDimension())
    return pixels


def _read_volume(path: Path, reader_name: str) -> ImageFile:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        if reader_name == "NiftiImageIO":
            _check_nifti(path, header)
        pixels = reader.Execute()
    except (RuntimeError, KeyError, ValueError) as error:
        if "orthonormal" in str(error):
            raise RadllmError(f"{path.name} lies on a sheared grid: resample it to a rectangular one.") from error
        raise _damaged(path) from error
    if "complex" in pixels.GetPixelIDTypeAsString():
        raise RadllmError(f"{path.name} has complex values: give its magnitude.")
    has_geometry, spacing_known = _what_is_known(path, reader_name, header)
    return ImageFile(path.name, _in_space(pixels, path), has_geometry, spacing_known, segments=_segments(header))


def _in_space(pixels: sitk.Image, path: Path) -> sitk.Image:
    """The image without a time axis, and its voxels without a list of values, where either has length one."""
    if pixels.GetNumberOfComponentsPerPixel() == 1 and pixels.GetPixelIDTypeAsString().startswith("vector"):
        pixels = sitk.VectorIndexSelectionCast(pixels, 0)
    while pixels.GetDimension() > 3 and pixels.GetSize()[-1] == 1:
        pixels = pixels[(slice(None),) * (pixels.GetDimension() - 1) + (0,)]
    if pixels.GetDimension() > 3:
        sizes = " x ".join(map(str, pixels.GetSize()))
        raise RadllmError(f"{path.name} has {pixels.GetDimension()} dimensions ({sizes}): give one volume of it.")
    return pixels


def _what_is_known(path: Path, reader_name: str, header: dict[str, str]) -> tuple[bool, bool]:
    """Whether the header gives a place in space, and whether it gives the voxel size."""
    if reader_name == "NrrdImageIO":
        fields = _nrrd_fields(path)
        return "space directions" in fields, bool(fields & {"space directions", "spacings"})
    if reader_name == "NiftiImageIO":
        return (header["qform_code"], header["sform_code"]) != ("0", "0"), True
    return True, True


def _nrrd_fields(path: Path) -> set[str]:
    """The names of the fields in a NRRD header, which ends at the first empty line."""
    fields = set()
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                break
            fields.add(line.decode("latin-1").partition(":")[0].strip().lower())
    return fields


def _check_nifti(path: Path, header: dict[str, str]) -> None:
    """Refuse what ITK's NIfTI reader would let pass: a truncated file, and two voxel sizes in one header."""
    voxels = math.prod(int(header[f"dim[{axis}]"]) for axis in range(1, int(header["dim[0]"]) + 1))
    if _unpacked_size(path) < float(header["vox_offset"]) + voxels * int(header["bitpix"]) // 8:
        raise _damaged(path)
    rows = np.array([header[f"srow_{axis}"].split() for axis in "xyz"], dtype=float)[:, :3]
    by_sform = np.linalg.norm(rows, axis=0)
    by_pixdim = np.array([float(header[f"pixdim[{axis}]"]) for axis in (1, 2, 3)])
    axes = min(3, int(header["dim[0]"]))
    if header["sform_code"] != "0" and rows.any() and not np.allclose(by_sform[:axes], by_pixdim[:axes], rtol=0.01):
        sizes = [" x ".join(f"{size:g}" for size in by[:axes]) for by in (by_sform, by_pixdim)]
        raise RadllmError(f"{path.name} gives two voxel sizes, {sizes[0]} (sform) and {sizes[1]} (pixdim): correct it.")


def _unpacked_size(path: Path) -> int:
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
    size = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                size += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path) from error
    return size


def _segments(header: dict[str, str]) -> tuple[Segment, ...]:
    """The segments that 3D Slicer lists in a NRRD header; those without a layer or label are of Slicer 4.10."""
    numbers = sorted(int(key[len("Segment") : -len("_ID")]) for key in header if _is_segment_id(key))
    return tuple(
        Segment(
            id=header[f"Segment{number}_ID"],
            name=header.get(f"Segment{number}_Name", ""),
            layer=int(header.get(f"Segment{number}_Layer", number)),
            label=int(header.get(f"Segment{number}_LabelValue", 1)),
        )
        for number in numbers
    )


def _is_segment_id(key: str) -> bool:
    return key.startswith("Segment") and key.endswith("_ID") and key[len("Segment") : -len("_ID")].isdigit()
