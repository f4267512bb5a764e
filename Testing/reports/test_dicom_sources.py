"""The files of an image are read and decoded once, however many lesions on it become DICOM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
import SimpleITK as sitk

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.imaging import dicom_files
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.reports.dicom import REPORT, write_dicom
from radllm_backend.reports.dicom_sources import SourceFiles
from Testing.support.dicom_report_cases import STUDY, ct_series, lesion_on, mammogram, prediction_of


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SOP Instance UID of each file whose pixels are decoded from now on."""
    found: list[str] = []
    decode = dicom_files.stored_values

    def told(dataset: Any) -> Any:
        found.append(dataset.SOPInstanceUID)
        return decode(dataset)

    monkeypatch.setattr(dicom_files, "stored_values", told)
    return found


def three_lesions(image: Path) -> list[Lesion]:
    """One lesion and the same eroded twice."""
    lesion = lesion_on(image)
    masks = [lesion.mask, sitk.BinaryErode(lesion.mask), sitk.BinaryErode(lesion.mask, [2, 2])]
    return [Lesion.from_images(lesion.image, mask, modality="MG") for mask in masks]


def export(folder: Path, files: SourceFiles, lesions: list[Lesion], **more: Any) -> None:
    for number, lesion in enumerate(lesions):
        (folder / str(number)).mkdir()
        write_dicom(folder / str(number), files, lesion, prediction_of(lesion), **more)


@pytest.mark.parametrize("read", [SourceFiles.of_image, lambda image: SourceFiles.of_files([image])])
def test_a_mammogram_is_decoded_once_for_all_its_lesions(
    read: Callable[[Path], SourceFiles], decoded: list[str], tmp_path: Path
) -> None:
    image = mammogram(tmp_path / "scan.dcm")
    lesions = three_lesions(image)
    decoded.clear()
    export(tmp_path, read(image), lesions)
    assert decoded == [pydicom.dcmread(image).SOPInstanceUID]


@pytest.mark.parametrize("of_image", [True, False])
def test_a_series_is_decoded_once_for_all_its_lesions(of_image: bool, decoded: list[str], tmp_path: Path) -> None:
    files = ct_series(tmp_path / "scan")
    lesion = lesion_on(tmp_path / "scan")
    decoded.clear()
    read = SourceFiles.of_image(tmp_path / "scan") if of_image else SourceFiles.of_files(files)
    export(tmp_path, read, [lesion, lesion])
    # Read file by file, the first and the last slice, on which the lesion does not lie, are not decoded at all.
    assert len(decoded) == len(set(decoded)) == (len(files) if of_image else len(files) - 2)


def test_the_image_for_the_lesions_is_the_decoded_one(decoded: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    ct_series(folder)
    own, expected = SourceFiles.of_image(folder, STUDY["SeriesInstanceUID"]).image, lesion_on(folder)
    lesion = Lesion.from_images(own.pixels, expected.mask, modality=own.modality)
    assert lesion.image_sha256 == expected.image_sha256
    assert own.has_geometry


def test_what_one_lesion_s_files_forget_the_next_one_s_may_say(tmp_path: Path) -> None:
    image = mammogram(tmp_path / "scan.dcm")
    lesion, files = lesion_on(image), SourceFiles.of_image(image)
    for identifiers in (True, False, True):
        write_dicom(tmp_path, files, lesion, prediction_of(lesion), identifiers=identifiers)
        report = pydicom.dcmread(tmp_path / REPORT)
        assert report.PatientID == (STUDY["PatientID"] if identifiers else "")
