"""The DICOM report: mask and prediction, read back by highdicom, pydicom, dcmqi and dciodvfy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from Testing.support.dicom_writing import write_dicom as write_image
from Testing.support.dicom_writing import write_enhanced

hd = pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.batch.lesions import read_lesion
from radllm_backend.batch.matching import Series, candidates_among
from radllm_backend.imaging.image_files import read_image
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.prediction import (
    RESEARCH_USE_ONLY,
)
from radllm_backend.reports.dicom import CALL, CAUTION, PROBABILITY, REPORT, SEGMENTATION, THRESHOLD, write_dicom
from radllm_backend.reports.dicom_codes import feature_code, unit_of
from radllm_backend.reports.dicom_sources import SourceFiles
from Testing.support.dicom_report_cases import (
    CAUTIONS,
    HASH,
    PICTURES,
    PLACED,
    SIDE,
    STUDY,
    VALUES,
    ct_series,
    grey,
    lesion_on,
    lopsided_mask,
    mammogram,
    prediction_of,
    ultrasound_in_colour,
)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion, Path, Path]:
    """The files of a CT series, the lesion on it, and its segmentation and report."""
    folder = tmp_path_factory.mktemp("ct")
    files = ct_series(folder / "scan")
    lesion = lesion_on(folder / "scan")
    return files, lesion, *write_dicom(folder, SourceFiles.of_files(files), lesion, prediction_of(lesion))


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion, Path, Path]:
    """The same of an enhanced file whose frames are in no order."""
    folder = tmp_path_factory.mktemp("enhanced")
    file = write_enhanced(folder / "scan.dcm", grey(5, SIDE, SIDE), [4, 0, 2, 8, 6], **PLACED)
    lesion = lesion_on(file)
    return [file], lesion, *write_dicom(folder, SourceFiles.of_files([file]), lesion, prediction_of(lesion))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion, Path, Path]:
    """The same of a mammogram."""
    folder = tmp_path_factory.mktemp("mammogram")
    file = mammogram(folder / "scan.dcm")
    lesion = lesion_on(file)
    return [file], lesion, *write_dicom(folder, SourceFiles.of_files([file]), lesion, prediction_of(lesion))


@pytest.fixture(scope="module")
def ultrasound(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Lesion, Path, Path]:
    """The same of an ultrasound picture in colour, without a pixel size."""
    folder = tmp_path_factory.mktemp("ultrasound")
    file = ultrasound_in_colour(folder / "scan.dcm")
    lesion = lesion_on(file)
    return [file], lesion, *write_dicom(folder, SourceFiles.of_files([file]), lesion, prediction_of(lesion))


EVERY = pytest.mark.parametrize("written", ["picture", "ultrasound", "volume", "enhanced"])


def group_of(report: Path) -> Any:
    groups = hd.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 1
    return groups[0]


def items(dataset: Dataset) -> list[Dataset]:
    found = list(dataset.get("ContentSequence") or [])
    return found + [below for item in found for below in items(item)]


def in_space(segmentation: Path, lesion: Lesion) -> np.ndarray:
    """The segmentation on the lesion's grid, each frame where its own header says that it lies."""
    dataset = pydicom.dcmread(segmentation)
    mask = np.zeros(sitk.GetArrayFromImage(lesion.mask).shape, np.uint8)
    pixels = dataset.pixel_array.reshape(-1, SIDE, SIDE)
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(number) for number in groups.PlanePositionSequence[0].ImagePositionPatient]
        column, row, number = lesion.image.TransformPhysicalPointToIndex(place)
        assert (column, row) == (0, 0)
        mask[number] = frame
    return mask


@pytest.mark.parametrize("kind", PICTURES)
def test_the_segmentation_of_a_picture_is_the_mask(kind: str, tmp_path: Path) -> None:
    file = PICTURES[kind](tmp_path / "scan.dcm")
    lesion = lesion_on(file)
    segmentation, report = write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion))
    np.testing.assert_array_equal(pydicom.dcmread(segmentation).pixel_array, sitk.GetArrayFromImage(lesion.mask))
    read = hd.seg.segread(segmentation)
    source = pydicom.dcmread(file)
    by_source = read.get_pixels_by_source_instance([source.SOPInstanceUID]) if "NumberOfFrames" not in source else None
    if by_source is not None:
        np.testing.assert_array_equal(by_source[0, ..., 0], lopsided_mask(SIDE, SIDE))
    assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert read.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert group_of(report).referenced_segment[1].referenced_sop_instance_uid == source.SOPInstanceUID


@pytest.mark.parametrize("written", ["volume", "enhanced"])
def test_the_segmentation_of_a_volume_is_the_mask(written: str, request: pytest.FixtureRequest) -> None:
    _, lesion, segmentation, _ = request.getfixturevalue(written)
    np.testing.assert_array_equal(in_space(segmentation, lesion), sitk.GetArrayFromImage(lesion.mask))


def test_every_slice_gets_the_mask_of_its_own_file(volume: tuple) -> None:
    files, lesion, segmentation, _ = volume
    read, mask = hd.seg.segread(segmentation), sitk.GetArrayFromImage(lesion.mask)
    for file in files:
        header = pydicom.dcmread(file)
        number = lesion.image.TransformPhysicalPointToIndex([float(mm) for mm in header.ImagePositionPatient])[2]
        pixels = read.get_pixels_by_source_instance([header.SOPInstanceUID], assert_missing_frames_are_empty=True)
        np.testing.assert_array_equal(pixels[0, ..., 0], mask[number])


@EVERY
def test_the_report_says_what_the_prediction_says(written: str, request: pytest.FixtureRequest) -> None:
    _, lesion, _, report = request.getfixturevalue(written)
    prediction, group = prediction_of(lesion), group_of(report)
    measured = {item.name: item for item in group.get_measurements()}
    for name, value in VALUES.items():
        item = measured.pop(hd.sr.CodedConcept(*feature_code(name)))
        assert item.value == value, name
        assert item.unit == hd.sr.CodedConcept(*unit_of(name, lesion.spacing_known))
    assert {item.name: (item.value, item.unit.value) for item in measured.values()} == {
        hd.sr.CodedConcept.from_code(PROBABILITY): (pytest.approx(100 * prediction.probability), "%"),
        hd.sr.CodedConcept.from_code(THRESHOLD): (45, "%"),
    }
    category = "Morphologically Abnormal Structure"
    said = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert said == {CALL.meaning: prediction.call, "Mass Shape": "oval", "Finding category": category}
    texts = [item for item in items(pydicom.dcmread(report)) if item.ValueType == "TEXT"]
    words = [(item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue) for item in texts]
    for text in CAUTIONS:
        assert (CAUTION.meaning, text) in words
    assert ("Comment", RESEARCH_USE_ONLY) in words
    assert ("Algorithm Name", "test-model") in words
    assert ("Algorithm Version", "radllm-backend 0.1.0") in words
    assert ("Algorithm Parameters", f"Model SHA-256 {HASH['model']}") in words
    assert ("Algorithm Version", "3.1.4") in words


@EVERY
def test_the_references_resolve(written: str, request: pytest.FixtureRequest) -> None:
    files, lesion, segmentation, report = request.getfixturevalue(written)
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, files)}
    seg, read = pydicom.dcmread(segmentation), hd.sr.srread(report)
    assert {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence} == set(headers)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == STUDY["SeriesInstanceUID"]
    evidence = {(series, instance) for _, series, instance, _ in read.get_evidence()}
    expected = {(header.SeriesInstanceUID, uid) for uid, header in headers.items()}
    assert evidence == expected | {(seg.SeriesInstanceUID, seg.SOPInstanceUID)}
    group = group_of(report)
    assert group.referenced_segment[0].referenced_sop_instance_uid == seg.SOPInstanceUID
    on_lesion = {
        (item.referenced_sop_instance_uid, tuple(np.atleast_1d(item.referenced_frame_numbers or [])))
        for item in group.referenced_segment[1:]
    }
    if written == "enhanced":
        assert on_lesion == {(next(iter(headers)), (1, 3, 5))}  # the heights 4, 2 and 6
    elif written == "volume":
        marked = sitk.GetArrayFromImage(lesion.mask).any(axis=(1, 2))
        assert len(on_lesion) == marked.sum() < len(files)
    assert {uid for uid, _ in on_lesion} <= set(headers)


@EVERY
def test_both_belong_to_the_study_and_to_one_lesion(
    written: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    files, lesion, *outputs = request.getfixturevalue(written)
    source, (seg, report) = pydicom.dcmread(files[0]), map(pydicom.dcmread, outputs)
    named = write_dicom(tmp_path, SourceFiles.of_files(files), lesion, prediction_of(lesion), identifiers=True)
    for dataset in (seg, report, *map(pydicom.dcmread, named)):
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            wanted = STUDY[keyword] if dataset.filename in map(str, named) else None
            assert source[keyword].value == STUDY[keyword]
            assert (dataset[keyword].value or None) == wanted, keyword
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.ContentQualification == "RESEARCH"
        assert dataset.SeriesDescription.startswith("RadiomicsLLM: ")
    assert len({seg.SeriesInstanceUID, report.SeriesInstanceUID, source.SeriesInstanceUID}) == 3
    tracked = seg.SegmentSequence[0]
    group = group_of(outputs[1])
    assert (group.tracking_uid, group.tracking_identifier) == (tracked.TrackingUID, tracked.TrackingID)


def test_the_same_lesion_is_tracked_under_the_same_uid(picture: tuple, tmp_path: Path) -> None:
    files, lesion, _, first = picture
    _, second = write_dicom(tmp_path, SourceFiles.of_files(files), lesion, prediction_of(lesion))
    assert group_of(first).tracking_uid == group_of(second).tracking_uid
    assert pydicom.dcmread(first).SOPInstanceUID != pydicom.dcmread(second).SOPInstanceUID


def test_nothing_else_of_the_header_and_no_file_name_gets_out(tmp_path: Path) -> None:
    free_text = (
        "InstitutionName", "InstitutionAddress", "StationName", "OperatorsName", "PerformingPhysicianName",
        "SeriesDescription", "ProtocolName", "ImageComments", "DerivationDescription", "Manufacturer",
        "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "RequestedProcedureDescription",
        "InstitutionalDepartmentName", "PerformedProcedureStepDescription", "AcquisitionComments",
    )  # fmt: skip
    file = mammogram(tmp_path / "MARK-path.dcm", **{keyword: f"MARK-{keyword}"[:16] for keyword in free_text})
    image = read_image(file)
    mask = sitk.GetImageFromArray(lopsided_mask(SIDE, SIDE))
    mask.CopyInformation(image.pixels)
    lesion = Lesion.from_images(image.pixels, mask, modality="MG", segment="MARK-segment")
    prediction = prediction_of(lesion)
    for path in write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction):
        assert b"MARK" not in path.read_bytes(), path.name


def test_a_name_that_highdicom_warns_about_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: Any
) -> None:
    file = mammogram(tmp_path / "a.dcm", PatientName="MARK", PatientOrientation="CC")
    lesion = lesion_on(file)
    segmentation, _ = write_dicom(
        tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion), identifiers=True
    )
    assert "MARK" not in "".join([*capfd.readouterr(), caplog.text, *(str(warning.message) for warning in recwarn)])
    assert pydicom.dcmread(segmentation).PatientName == "MARK"
    assert not pydicom.dcmread(segmentation).PatientOrientation


def test_a_header_without_what_an_anonymiser_removed(tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.dcm", grey(SIDE, SIDE), StudyInstanceUID="1.2.840.1")
    lesion = lesion_on(file)
    segmentation, report = write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion))
    assert not pydicom.dcmread(report).PatientID
    # Without a pixel size a length is in pixels.
    units = {item.name.meaning: item.unit.value for item in group_of(report).get_measurements()}
    assert units["Major Axis"] == "{pixels}"
    assert pydicom.dcmread(segmentation).pixel_array.any()


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("written", ["volume", "enhanced"])
def test_dcmqi_reads_the_segmentation(written: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    _, lesion, segmentation, _ = request.getfixturevalue(written)
    arguments = ("--inputDICOM", segmentation, "--outputDirectory", tmp_path, "--prefix", "a", "--outputType", "nrrd")
    finished = run("segimage2itkimage", *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    segment = sitk.ReadImage(str(tmp_path / "a-1.nrrd"))
    on_grid = sitk.Resample(segment, lesion.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(on_grid), sitk.GetArrayFromImage(lesion.mask))


def given_a_place(segmentation: Path, changed: Path) -> Path:
    """The segmentation with a position that its picture does not have."""
    dataset = pydicom.dcmread(segmentation)
    measures, orientation, position = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    position.ImagePositionPatient = [0, 0, 0]
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = [position]
    dataset.save_as(changed)
    return changed


@pytest.mark.parametrize("kind", [kind for kind in PICTURES if kind != "one CT slice"])
def test_dcmqi_misses_nothing_but_a_place_in_the_segmentation_of_a_picture(kind: str, tmp_path: Path) -> None:
    """It reads segmentations in space only (dcmqi's issue 319), and a picture is nowhere in space."""
    file = PICTURES[kind](tmp_path / "scan.dcm")
    lesion = lesion_on(file)
    segmentation, _ = write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion))
    arguments = ("--outputDirectory", tmp_path, "--prefix", "a", "--outputType", "nrrd", "--inputDICOM")
    refused = run("segimage2itkimage", *arguments, segmentation)
    assert refused.returncode != 0
    assert "Plane Orientation (Patient) is missing" in refused.stdout + refused.stderr
    finished = run("segimage2itkimage", *arguments, given_a_place(segmentation, tmp_path / "placed.dcm"))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a-1.nrrd")))
    np.testing.assert_array_equal(read[0], sitk.GetArrayFromImage(lesion.mask))


@pytest.mark.parametrize("kind", PICTURES)
def test_our_own_reader_finds_image_and_mask_again(kind: str, tmp_path: Path) -> None:
    file = PICTURES[kind](tmp_path / "scan.dcm")
    lesion = lesion_on(file)
    segmentation, _ = write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion))
    headers = {path: pydicom.dcmread(path) for path in (file, segmentation)}
    series = [
        Series(header.SeriesInstanceUID, header.Modality, "", "", "", {header.SOPInstanceUID: path})
        for path, header in headers.items()
    ]
    found = candidates_among(series)
    assert found.refusals == []
    (candidate,) = found.candidates
    assert candidate.image == (str(file),)
    read = read_lesion(candidate)
    assert (read.image_sha256, read.mask_sha256) == (lesion.image_sha256, lesion.mask_sha256)


def test_the_segmentation_of_a_picture_is_in_no_space(tmp_path: Path) -> None:
    """Although some mammograms carry a frame of reference, without a position in it."""
    for kind in ("mammogram", "with a frame of reference", "ultrasound clip"):
        file = PICTURES[kind](tmp_path / "scan.dcm")
        lesion = lesion_on(file)
        segmentation, report = write_dicom(tmp_path, SourceFiles.of_files([file]), lesion, prediction_of(lesion))
        dataset = pydicom.dcmread(segmentation)
        assert "FrameOfReferenceUID" not in dataset
        groups = {*dataset.SharedFunctionalGroupsSequence[0].dir(), *dataset.PerFrameFunctionalGroupsSequence[0].dir()}
        assert groups.isdisjoint({"PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"})
        source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == pydicom.dcmread(file).SOPInstanceUID
        keeps_the_standard(segmentation, report)


@EVERY
def test_dcmqi_reads_the_report(written: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report = request.getfixturevalue(written)[3]
    finished = run("tid1500reader", "--inputDICOM", report, "--outputMetadata", tmp_path / "a.json")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (group,) = json.loads((tmp_path / "a.json").read_text())["Measurements"]
    values = {
        (item["quantity"]["CodingSchemeDesignator"], item["quantity"]["CodeValue"]): float(item["value"])
        for item in group["measurementItems"]
    }
    for name, value in VALUES.items():
        code = feature_code(name)
        assert values[code.scheme_designator, code.value] == pytest.approx(value, rel=1e-9)
    assert values["DCM", "111047"] == pytest.approx(73.12345678901234)
    assert group["measurementAlgorithmIdentification"]["AlgorithmName"] == "test-model"
    assert group["ReferencedSegment"] == 1


def keeps_the_standard(*paths: Path) -> None:
    for path in paths:
        finished = run("dciodvfy", path)
        said = finished.stdout + finished.stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == [], path.name


@EVERY
def test_the_standard_is_kept(written: str, request: pytest.FixtureRequest) -> None:
    keeps_the_standard(*request.getfixturevalue(written)[2:])


def test_the_command_line_writes_both_beside_the_other_reports(
    tmp_path: Path, tiny_model: Path, tiny_base: Path, fresh_cache: Path
) -> None:
    pytest.importorskip("torch")
    from Testing.support.command_line import radllm, succeed

    source = tmp_path / "us.dcm"
    write_image(source, grey(SIDE, SIDE, dtype=np.uint8), Modality="US", **STUDY)
    sitk.WriteImage(sitk.GetImageFromArray(lopsided_mask(SIDE, SIDE)), tmp_path / "mask.png")
    given = ["--model", tiny_model, "--base-model", tiny_base, "--resample", "--dicom", "-o"]
    succeed("classify", source, tmp_path / "mask.png", *given, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written > {"prediction.json", "features.csv", "report.html", SEGMENTATION, REPORT}
    succeed("classify", source, tmp_path / "mask.png", "--identifiers", *given, tmp_path / "named")
    for folder, patient in (("out", None), ("named", STUDY["PatientID"])):
        said = pydicom.dcmread(tmp_path / folder / REPORT)
        assert (said.StudyInstanceUID, said.PatientID or None) == (STUDY["StudyInstanceUID"], patient)
    picture = tmp_path / "picture.png"
    sitk.WriteImage(sitk.GetImageFromArray(grey(SIDE, SIDE, dtype=np.uint8)), picture)
    refused = radllm("classify", picture, tmp_path / "mask.png", *given, tmp_path / "none")
    assert (refused.code, "DICOM" in refused.error) == (1, True)
    assert not (tmp_path / "none").exists()
