"""Forty small studies as DICOM files, for the tests, with everything in them that finding lesions may come upon."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from Testing.support.dicom_databases import study_of, write_picture, write_rtstruct, write_seg, write_volume

SHAPE = (3, 16, 24)
STUDIES = 40
BLOCK = np.zeros(SHAPE, np.uint8)
BLOCK[1:, 4:13, 6:18] = 1


@dataclass
class Archive:
    """Forty studies as files, and what is to be found in them."""

    files: list[Path] = field(default_factory=list)
    remote: list[Path] = field(default_factory=list)
    lesions: list[tuple[str, int]] = field(default_factory=list)
    """SOP Instance UID and number of every segment that can be classified."""
    refused: list[str] = field(default_factory=list)
    """A word of the reason of each that cannot; those on a server have others in the database than in the folder."""

    def draw(self, path: Path, images: list[Path], names: list[str], *, structures: bool = False) -> Path:
        """Write a segmentation and expect its segments to be found."""
        mask = BLOCK[1] if len(pydicom.dcmread(images[0]).get("ImagePositionPatient", ())) == 0 else BLOCK
        file = (write_rtstruct if structures else write_seg)(path, images, dict.fromkeys(names, mask))
        self.files += [*images, file]
        instance = pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID
        self.lesions += [(instance, number) for number in range(1, len(names) + 1)]
        return file

    def refuse(self, count: int, word: str) -> None:
        """The last segments are not to be found after all, for this reason."""
        del self.lesions[-count:]
        self.refused += [word] * count


def write_archive(folder: Path) -> Archive:
    """Put the studies into ``dicom`` of a folder, and into ``server`` what is to be known from a server only."""
    archive = Archive()
    for number in range(STUDIES):
        place = folder / "dicom" / f"Studie {number:02d}"
        study = study_of(f"Étude {number}", f"2024{number % 12 + 1:02d}15")
        _STUDIES[number](archive, place, study) if number in _STUDIES else _ordinary(archive, place, study, number)
    return archive


def _ordinary(archive: Archive, place: Path, study: dict, number: int) -> None:
    modality = ("MG", "US", "CT", "MR")[number % 4]
    if modality in ("MG", "US"):
        images = write_picture(place / "bild.dcm", modality, SHAPE[1:], study)
        archive.draw(place / "seg.dcm", images, ["Läsion", "病变"][: number % 3 + 1])
    else:
        images = write_volume(place / "serie", modality, SHAPE, study)
        archive.draw(place / "marked.dcm", images, ["Läsion", "Zyste"], structures=modality == "MR")


def _without_image(archive: Archive, place: Path, study: dict) -> None:
    images = write_volume(place / "serie", "CT", SHAPE, study)
    archive.draw(place / "seg.dcm", images, ["a", "b"])
    archive.files = [file for file in archive.files if file not in images]
    shutil.rmtree(place / "serie")
    archive.refuse(2, "image is not here")


def _elsewhere(archive: Archive, place: Path, study: dict) -> None:
    images = write_volume(place / "serie", "MR", SHAPE, study)
    file = write_rtstruct(place / "rt.dcm", images, {"a": BLOCK}, frame_of_reference=generate_uid())
    archive.files += [*images, file]
    archive.refused.append("another frame of reference")


def _truncated(archive: Archive, place: Path, study: dict) -> None:
    images = write_picture(place / "bild.dcm", "MG", SHAPE[1:], study)
    file = archive.draw(place / "seg.dcm", images, ["a"])
    file.write_bytes(file.read_bytes()[:-10])
    archive.refuse(1, "cut short")


def _on_server(archive: Archive, place: Path, study: dict) -> None:
    """The image and another segmentation are in the database by URL only; in the folder there are none of these."""
    images = write_volume(place.parents[1] / "server" / "serie", "CT", SHAPE, study)
    archive.draw(place / "seg.dcm", images, ["a"])
    archive.remote += images
    archive.lesions.pop()
    second = write_seg(place.parents[1] / "server" / "seg.dcm", images, {"b": BLOCK})
    archive.files.append(second)
    archive.remote.append(second)


def _twice(archive: Archive, place: Path, study: dict) -> None:
    images = write_picture(place / "bild.dcm", "US", SHAPE[1:], study)
    file = archive.draw(place / "seg.dcm", images, ["a"])
    archive.files += [Path(shutil.copy(each, place / f"zcopy {each.name}")) for each in (*images, file)]


def _other_modality(archive: Archive, place: Path, study: dict) -> None:
    images = write_volume(place / "serie", "PT", SHAPE, study)
    archive.draw(place / "seg.dcm", images, ["a"])
    archive.refuse(1, "no model reads")


def _incomplete(archive: Archive, place: Path, study: dict) -> None:
    images = write_volume(place / "serie", "CT", SHAPE, study)
    archive.draw(place / "seg.dcm", images, ["a"])
    images[2].unlink()
    archive.files.remove(images[2])
    archive.refuse(1, "lacks 1 of 3 files")


def _without_segments(archive: Archive, place: Path, study: dict) -> None:
    images = write_picture(place / "bild.dcm", "MG", SHAPE[1:], study)
    file = archive.draw(place / "seg.dcm", images, ["a"])
    dataset = pydicom.dcmread(file)
    dataset.SegmentSequence = []
    dataset.save_as(file)
    archive.refuse(1, "has no segments")


def _without_contours(archive: Archive, place: Path, study: dict) -> None:
    images = write_volume(place / "serie", "MR", SHAPE, study)
    file = write_rtstruct(place / "rt.dcm", images, {"a": BLOCK, "leer": np.zeros(SHAPE)})
    archive.files += [*images, file]
    archive.lesions.append((pydicom.dcmread(file).SOPInstanceUID, 1))
    archive.refused.append("marks nothing")


def _many_pictures(archive: Archive, place: Path, study: dict) -> None:
    """A series of three ultrasound pictures, one of them segmented."""
    series = {**study, "SeriesInstanceUID": generate_uid()}
    images = [write_picture(place / f"{number}.dcm", "US", SHAPE[1:], series)[0] for number in range(3)]
    archive.draw(place / "seg.dcm", images[1:2], ["a"])
    archive.files += [images[0], images[2]]


_STUDIES = {
    3: _without_image, 7: _elsewhere, 8: _truncated, 14: _on_server, 17: _twice, 22: _other_modality, 26: _incomplete,
    28: _without_segments, 31: _without_contours, 33: _many_pictures,
}  # fmt: skip
