"""Results added to Slicer's DICOM database through clicks on the panel, and read back from there."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from Testing.slicer.module_scene import (
    MASKS,
    PICTURE,
    add_segmentation,
    add_volume,
    classify,
    click,
    finish,
    prepare,
    slicer,
    wait_until,
)
from Testing.support.nodules import ball

hd = pytest.importorskip("highdicom", reason="needs highdicom")
pytest.importorskip("imagecodecs", reason="the tests write DICOM files with imagecodecs")

import pydicom
from pydicom.uid import UltrasoundImageStorage

from radllm_backend.imaging import dicom_files
from radllm_backend.imaging.image_files import read_image
from radllm_backend.reports.dicom import PROBABILITY
from Testing.slicer.harness.dicom import DicomDatabase
from Testing.support.dicom_writing import write_dicom, write_slice

STUDY = {
    "StudyInstanceUID": "1.2.840.1",
    "SeriesInstanceUID": "1.2.840.2",
    "PatientID": "P-1",
    "PatientName": "Doe^Jane",
}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> DicomDatabase:
    """Slicer's, empty and open."""
    monkeypatch.setattr(slicer, "dicomDatabase", DicomDatabase())
    return slicer.dicomDatabase


@pytest.fixture
def one(one: Any, database: DicomDatabase) -> Any:
    """The panel, beside an open database."""
    return one


def ultrasound(folder: Path) -> Path:
    """The two lesions' picture as DICOM."""
    about = {"Modality": "US", "PixelSpacing": [0.08, 0.08], "PatientOrientation": None, **STUDY}
    grey = PICTURE.astype(np.uint8)
    return write_dicom(folder / "scan.dcm", grey, sop_class=UltrasoundImageStorage, **about)


def load(database: DicomDatabase, place: Path) -> Any:
    """A file or a folder's series, imported into the database and loaded as Slicer loads it."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    for file in files:
        database.insert(file, copy=True)
    image = read_image(place).pixels
    matrix, direction = np.eye(4), np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    size = len(direction)
    matrix[:size, :size] = direction * image.GetSpacing()
    matrix[:size, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image)
    node = slicer.util.addVolumeFromArray(
        array if array.ndim == 3 else array[np.newaxis], np.diag([-1, -1, 1, 1]) @ matrix, STUDY["PatientName"]
    )
    node.SetAttribute("DICOM.instanceUIDs", " ".join(pydicom.dcmread(file).SOPInstanceUID for file in files))
    return node


def add(panel: Any) -> str:
    """A click on “Add to DICOM database”, and all that follows; what the status line says."""
    click(panel.ui.dicomButton)
    finish(panel)
    return str(panel.ui.statusLabel.text)


def new_files(database: DicomDatabase, before: list[str]) -> dict[str, list[Path]]:
    """What came since, by its modality."""
    found: dict[str, list[Path]] = {"SEG": [], "SR": []}
    for instance in database.instances():
        if instance not in before:
            path = Path(database.fileForInstance(instance))
            found[pydicom.dcmread(path).Modality].append(path)
    return found


def test_masks_and_reports_go_into_the_study_of_the_image(one: Any, database: DicomDatabase, tmp_path: Path) -> None:
    file = ultrasound(tmp_path)
    source = pydicom.dcmread(file)
    add_segmentation(load(database, file))
    classify(one)
    before = database.instances()
    said = add(one)
    assert said == (
        "Added to the DICOM database, each with a segmentation and a structured report: the oval, the spiculated."
    )
    found = new_files(database, before)
    assert (len(found["SEG"]), len(found["SR"])) == (2, 2)
    masks = {pydicom.dcmread(path).SOPInstanceUID: hd.seg.segread(path) for path in found["SEG"]}
    chances = []
    for path in found["SR"]:
        report = hd.sr.srread(path)
        (group,) = report.content.get_volumetric_roi_measurement_groups()
        mask = masks.pop(group.referenced_segment[0].referenced_sop_instance_uid)
        assert mask.ReferencedSeriesSequence[0].SeriesInstanceUID == STUDY["SeriesInstanceUID"]
        assert mask.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        evidence = {(series, instance) for _, series, instance, _ in report.get_evidence()}
        assert (STUDY["SeriesInstanceUID"], source.SOPInstanceUID) in evidence
        for dataset in (report, mask):
            # The database would file them under another patient otherwise.
            assert all(dataset[keyword].value == STUDY[keyword] for keyword in STUDY if "Series" not in keyword)
        name = hd.sr.CodedConcept.from_code(PROBABILITY)
        (chance,) = [item.value for item in group.get_measurements() if item.name == name]
        drawn = mask.pixel_array.astype(bool).reshape(PICTURE.shape)
        (segment,) = [key for key, own in MASKS.items() if (own == drawn).all()]
        chances.append((segment, chance))
    expected = {result.segmentId: 100 * result.prediction.probability for result in one.panel.results.results}
    assert dict(chances) == pytest.approx(expected)


def test_the_picture_is_decoded_once_for_both_lesions(
    one: Any, database: DicomDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_segmentation(load(database, ultrasound(tmp_path)))
    classify(one)
    decoded, decode = [], dicom_files.stored_values
    monkeypatch.setattr(dicom_files, "stored_values", lambda dataset: decoded.append(dataset) or decode(dataset))
    assert add(one).endswith("the oval, the spiculated.")
    assert len(decoded) == 1


@pytest.mark.long
def test_a_series_of_slices(panel: Any, volume_model: Path, database: DicomDatabase, tmp_path: Path) -> None:
    shape = (10, 24, 24)
    voxels = np.random.default_rng(1).integers(60, 140, shape).astype(np.uint16)
    folder = tmp_path / "series"
    folder.mkdir()
    for number, plane in enumerate(voxels):
        place = (-3.0, 4.0, 2.0 * number)
        write_slice(folder / f"{number * 7 % 10}.dcm", plane, place, FrameOfReferenceUID="1.2.840.3", **STUDY)
    volume = load(database, folder)
    drawn = ball(shape, (5, 12, 12), 4)
    add_segmentation(volume, {"nodule": drawn})
    prepare(panel, volume_model, "CT")
    classify(panel)
    before = database.instances()
    assert "the nodule" in add(panel)
    found = new_files(database, before)
    mask = hd.seg.segread(found["SEG"][0])
    for instance in before:
        header = pydicom.dcmread(database.fileForInstance(instance))
        pixels = mask.get_pixels_by_source_instance([instance], assert_missing_frames_are_empty=True)
        height = round(float(header.ImagePositionPatient[2]) / 2)
        np.testing.assert_array_equal(pixels[0, ..., 0], drawn[height])
    assert len(found["SR"]) == 1


def test_names_of_segments_volumes_and_folders_stay_here(one: Any, database: DicomDatabase, tmp_path: Path) -> None:
    (tmp_path / "MARKfolder").mkdir()
    volume = load(database, ultrasound(tmp_path / "MARKfolder"))
    segmentation = add_segmentation(volume)
    volume.SetName("MARKvolume")
    segmentation.SetName("MARKsegmentation")
    segmentation.GetSegmentation().GetSegment("oval").SetName("MARKsegment")
    classify(one)
    before = database.instances()
    add(one)
    found = new_files(database, before)
    paths = [*found["SEG"], *found["SR"]]
    assert len(paths) == 4
    for path in paths:
        assert b"MARK" not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_the_disabled_button_says_why(
    one: Any, database: DicomDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    button = one.ui.dicomButton
    said = [button.toolTip]
    volume = add_volume()
    add_segmentation(volume, {"oval": MASKS["oval"]})
    classify(one)
    said.append(button.toolTip)
    assert not button.enabled
    slicer.mrmlScene.Clear()
    add_segmentation(load(database, ultrasound(tmp_path)), {"oval": MASKS["oval"]})
    classify(one)
    assert button.enabled
    assert button.toolTip.startswith("Add each classified segment's mask and report to the image's patient and study")
    database.isOpen = False
    one.panel.refresh()
    said.append(button.toolTip)
    monkeypatch.delattr(slicer, "dicomDatabase")
    one.panel.refresh()
    said.append(button.toolTip)
    database.isOpen = True
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    one.panel.refresh()
    said.append(button.toolTip)
    assert not button.enabled
    assert said == [
        "There is no result yet: classify a segment first.",
        "The volume did not come from DICOM: load it with Slicer's module DICOM, and classify again.",
        "No DICOM database is open: open one in Slicer's module DICOM.",
        "No DICOM database is open: open one in Slicer's module DICOM.",
        "Writing DICOM needs Slicer 5.12 or newer, which brings highdicom.",
    ]


def refused_by_the_database(database: DicomDatabase, _volume: Any) -> str:
    database.refuse = "report.dcm"
    return "Slicer's DICOM database did not take the files: Slicer's error log says why."


def gone_from_the_database(database: DicomDatabase, _volume: Any) -> str:
    database.removeSeries(STUDY["SeriesInstanceUID"])
    return "The volume's DICOM files are not in the open database: import its series again."


def gone_from_the_disk(database: DicomDatabase, volume: Any) -> str:
    Path(database.fileForInstance(volume.GetAttribute("DICOM.instanceUIDs"))).unlink()
    return "put the image's files back."


def changed_since(_database: DicomDatabase, volume: Any) -> str:
    slicer.util.arrayFromVolume(volume)[0, 0, 0] ^= 1
    return "“the oval” or its volume was changed since it was classified: classify it again."


@pytest.mark.parametrize("spoil", [refused_by_the_database, gone_from_the_database, gone_from_the_disk, changed_since])
def test_what_goes_wrong_is_one_sentence_and_nothing_is_added(
    one: Any, database: DicomDatabase, tmp_path: Path, spoil: Any
) -> None:
    volume = load(database, ultrasound(tmp_path))
    add_segmentation(volume)
    classify(one)
    sentence = spoil(database, volume)
    before = database.instances()
    said = add(one)
    assert said.endswith(sentence)
    assert database.instances() == before
    assert one.ui.dicomButton.enabled
    assert len(one.panel.results.results) == 2


def test_cancel_adds_nothing_and_leaves_no_file(
    one: Any, database: DicomDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_segmentation(load(database, ultrasound(tmp_path)))
    classify(one)
    before = database.instances()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    click(one.ui.dicomButton)
    wait_until(lambda: one.ui.statusLabel.text.startswith("Writing DICOM of the"))
    QTest.mouseClick(one.ui.classifyButton, Qt.LeftButton)
    finish(one)
    assert one.ui.statusLabel.text == "Cancelled: nothing was added to the DICOM database."
    assert database.instances() == before
    assert list((tmp_path / "temporary").iterdir()) == []
