"""Reading the lesion that a candidate of a batch names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import SimpleITK as sitk

from radllm_backend.batch.candidates import Candidate
from radllm_backend.errors import RadllmError
from radllm_backend.imaging import dicom_files
from radllm_backend.imaging.dicom_files import Frame
from radllm_backend.imaging.dicom_masks import draw_region, draw_segment
from radllm_backend.imaging.dicom_segmentations import frames_of, read_header, readable
from radllm_backend.imaging.image_files import ImageFile, read_image
from radllm_backend.imaging.lesion import Lesion, parse_spacing


def read_lesion(candidate: Candidate) -> Lesion:
    """The lesion, as `Lesion.from_files` reads the same image and mask.

    Raises:
        RadllmError: a file is gone or damaged, image and segmentation do not fit, or the lesion cannot be used.
    """
    if candidate.kind == "mask":
        return Lesion.from_files(
            _whole_image(candidate.image),
            candidate.segmentation,
            label=candidate.number,
            segment=candidate.segment or None,
            spacing=parse_spacing(candidate.spacing or None),
            modality=candidate.modality or None,
        )
    file, number = Path(candidate.segmentation), candidate.number
    if number is None:
        raise RadllmError(f"It is left open which segment of {file.name} is meant: give its number.")
    drawn = _with_region if candidate.kind == "RTSTRUCT" else _with_segment
    image, mask = drawn(candidate.image, file, number)
    return Lesion.from_images(
        image.pixels,
        mask,
        modality=image.modality,
        spacing_known=image.spacing_known,
        segment=candidate.segment,
    )


def _with_region(files: Sequence[str], structures: Path, number: int) -> tuple[ImageFile, sitk.Image]:
    """An image, and the mask that a region of an RTSTRUCT is on it."""
    image = _whole_image(files)
    return image, draw_region(structures, number, image.pixels)


def _with_segment(files: Sequence[str], segmentation: Path, number: int) -> tuple[ImageFile, sitk.Image]:
    """An image, and the mask that a segment of a SEG is on it; of an ultrasound clip, the one frame that it marks."""
    planes = _planes(files)
    is_clip = len(files) == 1 and len(planes) > 1 and not planes[0].has_geometry
    if is_clip:
        planes = [_marked_frame(segmentation, number, planes)]
    image = _frame_of_clip(planes[0]) if is_clip else _whole_image(files)
    return image, draw_segment(segmentation, number, image.pixels, planes)


def _planes(files: Sequence[str]) -> list[Frame]:
    """The frames of the image's files, each with its header."""
    planes = []
    for file in map(Path, files):
        with readable(file):
            planes += dicom_files.read_frames(file, None)
    return planes


def _whole_image(files: Sequence[str]) -> ImageFile:
    """The image that one file holds, or all files of a series together, wherever they lie."""
    if len(files) == 1:
        return read_image(files[0])
    with _gathered(files) as folder:
        return read_image(folder)


@contextmanager
def _gathered(files: Sequence[str]) -> Iterator[Path]:
    """A folder with these files and no others: those of a series may lie among others, or twice."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "The image"  # begins the sentences about it
        folder.mkdir()
        for number, file in enumerate(files):
            link = folder / Path(file).name  # of the same name, for the sentences, unless two folders have it
            if os.path.lexists(link):
                link = folder / f"{number} {link.name}"
            with readable(Path(file)):
                _link(Path(file).absolute(), link)
        yield folder


def _link(file: Path, link: Path) -> None:
    """A link, or a copy where the system allows none: Windows lets few users make symbolic ones."""
    file.stat()  # a symbolic link can be made to nothing
    for make in (os.symlink, os.link):
        try:
            make(file, link)
            return
        except OSError:
            continue
    shutil.copyfile(file, link)


def _marked_frame(file: Path, number: int, planes: Sequence[Frame]) -> Frame:
    """The one frame of an ultrasound clip that a segment lies on."""
    instance = str(planes[0].header.get("SOPInstanceUID", ""))
    with readable(file):
        marked = {
            frame_number
            for frame in frames_of(read_header(file))
            if frame.number in (number, None)
            for uid, frame_number in frame.sources
            if uid == instance and frame_number
        }
    if len(marked) != 1 or not marked <= set(range(1, len(planes) + 1)):
        raise RadllmError(f"{file.name} does not mark just one frame of a clip: segment one frame of it.")
    return planes[marked.pop() - 1]


def _frame_of_clip(plane: Frame) -> ImageFile:
    """One frame of a clip as an image: read as a file of its own, so that it is decoded like any other."""
    from pydicom.encaps import encapsulate, get_frame

    with tempfile.TemporaryDirectory() as folder, readable(plane.file):
        dataset = pydicom.dcmread(plane.file)
        count, dataset.NumberOfFrames = int(dataset.NumberOfFrames or 1), 1
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.PixelData = encapsulate([get_frame(dataset.PixelData, plane.index, number_of_frames=count)])
        else:
            length = len(dataset.PixelData) // count
            stored = dataset.PixelData[plane.index * length : (plane.index + 1) * length]
            dataset.PixelData = stored + b"\0" * (length % 2)
        single = Path(folder) / plane.file.name
        dataset.save_as(single)
        return read_image(single)
