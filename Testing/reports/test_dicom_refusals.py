"""What cannot be put into a DICOM report is one sentence, and leaves the folder as it was."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk

from Testing.support.dicom_writing import write_dicom as write_image
from Testing.support.dicom_writing import write_slice

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.prediction import Prediction
from radllm_backend.reports.dicom import REPORT, SEGMENTATION, write_dicom
from radllm_backend.reports.dicom_sources import SourceFiles
from Testing.support.dicom_report_cases import SIDE, STUDY, ct_series, grey, lesion_on, mammogram, prediction_of


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion]:
    """The files of a CT series, and the lesion on it."""
    folder = tmp_path_factory.mktemp("ct") / "scan"
    return ct_series(folder), lesion_on(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion]:
    """The same of a mammogram."""
    file = mammogram(tmp_path_factory.mktemp("mammogram") / "scan.dcm")
    return [file], lesion_on(file)


def refused(sentence: str, folder: Path, files: list[Path], lesion: Lesion, prediction: Prediction) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(RadllmError, match=sentence) as raised:
        write_dicom(folder, SourceFiles.of_files(files), lesion, prediction, identifiers=True)
    assert sorted(folder.iterdir()) == before
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_files_that_are_not_the_image(picture: tuple, volume: tuple, tmp_path: Path) -> None:
    files, lesion, *_ = picture
    prediction = prediction_of(lesion)
    other_breast = write_image(tmp_path / "other.dcm", grey(SIDE, SIDE, seed=9), **STUDY)
    larger = write_image(tmp_path / "larger.dcm", grey(SIDE, SIDE + 2), **STUDY)
    (tmp_path / "a.png").write_bytes(b"\x89PNG" + bytes(200))
    refused("did not come from DICOM files", tmp_path, [], lesion, prediction)
    refused(r"^a\.png is no DICOM file", tmp_path, [tmp_path / "a.png"], lesion, prediction)
    refused(r"^gone\.dcm cannot be opened \(No such file", tmp_path, [tmp_path / "gone.dcm"], lesion, prediction)
    refused(
        r"other\.dcm is not this lesion's image \(it has other pixels\)", tmp_path, [other_breast], lesion, prediction
    )
    refused("another number of rows or columns", tmp_path, [larger], lesion, prediction)
    refused("it has 2 slices, not 1", tmp_path, [*files, other_breast], lesion, prediction)
    slices, on_volume, *_ = volume
    of_volume = prediction_of(on_volume)
    refused("it has 5 slices, not 6", tmp_path, slices[1:], on_volume, of_volume)
    refused("slices at other positions", tmp_path, [*slices[1:], slices[1]], on_volume, of_volume)
    upright = ct_series(tmp_path / "upright", angle=0)
    refused("slices in another direction", tmp_path, upright, on_volume, of_volume)
    flat = [write_image(tmp_path / f"{number}.dcm", grey(SIDE, SIDE), **STUDY) for number in range(6)]
    refused("slices without a position", tmp_path, flat, on_volume, of_volume)


def test_the_files_of_an_image(picture: tuple, volume: tuple, tmp_path: Path) -> None:
    for files, *_ in (picture, volume):
        image = files[0] if len(files) == 1 else files[0].parent
        assert [frame.file for frame in SourceFiles.of_image(image).frames] == files
    of_series = SourceFiles.of_image(volume[0][0].parent, STUDY["SeriesInstanceUID"])
    assert [frame.file for frame in of_series.frames] == volume[0]
    (tmp_path / "a.png").write_bytes(b"\x89PNG" + bytes(200))
    for image, sentence in ((tmp_path / "a.png", "is no DICOM file"), (tmp_path, "holds no DICOM image")):
        with pytest.raises(RadllmError, match=sentence):
            SourceFiles.of_image(image)


def test_swapped_slices_are_noticed(tmp_path: Path) -> None:
    files = ct_series(tmp_path / "scan")
    lesion = lesion_on(tmp_path / "scan")
    first, second = (pydicom.dcmread(file) for file in files[2:4])
    first.PixelData, second.PixelData = second.PixelData, first.PixelData
    first.save_as(files[2])
    refused("other pixels", tmp_path, files, lesion, prediction_of(lesion))


def test_a_prediction_of_another_lesion(picture: tuple, tmp_path: Path) -> None:
    files, lesion, *_ = picture
    prediction = prediction_of(lesion)
    moved = Lesion.from_images(lesion.image, sitk.BinaryErode(lesion.mask), modality="MG")
    refused("The prediction is of another lesion", tmp_path, files, moved, prediction)
    unknown = prediction.model_copy(update={"extraction": None})
    refused("The prediction is of another lesion", tmp_path, files, lesion, unknown)


def test_a_header_that_breaks_the_standard(tmp_path: Path) -> None:
    def refuse(file: Path) -> None:
        lesion = lesion_on(file)
        sentence = rf"^The header of {file.name} breaks the DICOM standard \(\w+ in highdicom\), so"
        refused(sentence, tmp_path, [file], lesion, prediction_of(lesion))

    refuse(mammogram(tmp_path / "sex.dcm", PatientSex="SECRET"))
    refuse(write_image(tmp_path / "study.dcm", grey(SIDE, SIDE)))
    refuse(write_slice(tmp_path / "nowhere.dcm", grey(SIDE, SIDE), (1, 2, 3), **STUDY))


def test_damaged_pixels(tmp_path: Path) -> None:
    file = mammogram(tmp_path / "a.dcm")
    lesion = lesion_on(file)
    file.write_bytes(file.read_bytes()[:-4000])
    refused(r"^a\.dcm is damaged", tmp_path, [file], lesion, prediction_of(lesion))


def test_both_or_neither(picture: tuple, tmp_path: Path) -> None:
    files, lesion, *_ = picture
    (tmp_path / SEGMENTATION).write_bytes(b"older")
    (tmp_path / REPORT).mkdir()
    refused("cannot be written .*report.dcm is a folder", tmp_path, files, lesion, prediction_of(lesion))
    assert (tmp_path / SEGMENTATION).read_bytes() == b"older"
    with pytest.raises(RadllmError, match="cannot be written to gone"):
        write_dicom(tmp_path / "gone", SourceFiles.of_files(files), lesion, prediction_of(lesion))
