"""A mask comes back from a DICOM SEG exactly as it was written; damaged files of both kinds are one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from Testing.support.dicom_writing import NATIVE, write_enhanced

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.batch.candidates import SegmentationKind
from radllm_backend.batch.lesions import read_lesion
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.dicom_segmentations import segments_of
from Testing.support.dicom_databases import (
    PATIENT,
    SPACING,
    headers_of,
    study_of,
    write_clip_seg,
    write_picture,
    write_rtstruct,
    write_seg,
    write_volume,
)
from Testing.support.segmentation_cases import SHAPE, assert_same, candidate, from_files, lopsided

LITTLE_ENDIAN = [syntax for syntax in NATIVE if syntax.is_little_endian]
BESIDE_PYTHON = str(Path(sys.executable).parent)
READER = shutil.which("segimage2itkimage", path=BESIDE_PYTHON) or shutil.which("segimage2itkimage")
WRITER = shutil.which("itkimage2segimage", path=BESIDE_PYTHON) or shutil.which("itkimage2segimage")


# --- SEG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_of_a_volume(tmp_path: Path, kind: str) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    masks = {"Läsion 1": lopsided(), "Läsion 2": np.roll(lopsided(shift=4) * (1 - lopsided()), 1, axis=0)}
    masks["Läsion 2"] *= 1 - masks["Läsion 1"]
    written = {name: 0.9 * mask if kind == "FRACTIONAL" else mask for name, mask in masks.items()}
    file = write_seg(tmp_path / "seg.dcm", images, written, kind)
    found = segments_of(file)
    assert [(each.number, each.name, each.empty) for each in found] == [(1, "Läsion 1", False), (2, "Läsion 2", False)]
    for number, mask in enumerate(masks.values(), start=1):
        assert_same(read_lesion(candidate("SEG", images, file, number)), from_files(images, mask, tmp_path))


def test_what_the_header_says(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "MR", SHAPE, study_of())
    headers = headers_of(images)
    uids = [header.SOPInstanceUID for header in headers]
    for file in (
        write_seg(tmp_path / "seg.dcm", images, {"a": lopsided()}),
        write_rtstruct(tmp_path / "rt.dcm", images, {"a": lopsided()}),
    ):
        (segment,) = segments_of(file)
        assert segment.instances == frozenset(uids[1:3])
        assert segment.series == {headers[0].SeriesInstanceUID: frozenset(uids)}
        assert segment.frame_of_reference == headers[0].FrameOfReferenceUID


@pytest.mark.parametrize("syntax", [*LITTLE_ENDIAN, RLELossless])
def test_every_transfer_syntax(tmp_path: Path, syntax: UID) -> None:
    """Frames of 99 bits, so that all but the first begin within a byte."""
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    kind = "FRACTIONAL" if syntax == RLELossless else "BINARY"
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided(), "b": 1 - lopsided()}, kind)
    dataset = pydicom.dcmread(file)
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(file, implicit_vr=syntax.is_implicit_VR)
    for number, mask in ((1, lopsided()), (2, 1 - lopsided())):
        assert_same(read_lesion(candidate("SEG", images, file, number)), from_files(images, mask, tmp_path))


def test_half_a_voxel_belongs_to_the_lesion(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    share = np.where(lopsided(), 0.502, 0.498)  # of 255 steps: 128 and 127
    file = write_seg(tmp_path / "seg.dcm", images, {"a": share}, "FRACTIONAL")
    assert_same(read_lesion(candidate("SEG", images, file)), from_files(images, lopsided(), tmp_path))


@settings(max_examples=10, deadline=None)
@given(mask=arrays(np.uint8, (3, 5, 7), elements=st.integers(0, 1)))
def test_any_mask_comes_back_from_seg_and_from_contours(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray
) -> None:
    mask[1, 2:4, 2:4] = 1  # there is something to be read
    tmp_path = tmp_path_factory.mktemp("mask")
    images = write_volume(tmp_path / "mr", "MR", mask.shape, study_of())
    seg = write_seg(tmp_path / "seg.dcm", images, {"a": mask})
    structures = write_rtstruct(tmp_path / "rt.dcm", images, {"a": mask})
    expected = from_files(images, mask, tmp_path)
    assert_same(read_lesion(candidate("SEG", images, seg)), expected)
    assert_same(read_lesion(candidate("RTSTRUCT", images, structures)), expected)


@pytest.mark.parametrize("modality", ["MG", "US"])
def test_a_picture_without_a_place(tmp_path: Path, modality: str) -> None:
    shape = SHAPE[1:]
    images = write_picture(tmp_path / "a.dcm", modality, shape, study_of(), ImagerPixelSpacing=[0.07, 0.07])
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided(shape), "b": lopsided(shape, shift=4)})
    for number, shift in ((1, 0), (2, 4)):
        lesion = read_lesion(candidate("SEG", images, file, number))
        assert_same(lesion, from_files(images, lopsided(shape, shift=shift), tmp_path))
        assert lesion.modality == modality


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_one_frame_of_an_ultrasound_clip(tmp_path: Path, syntax: UID) -> None:
    (clip,) = write_picture(tmp_path / "clip.dcm", "US", SHAPE, study_of(), syntax=syntax)
    write_picture(tmp_path / "one.dcm", "US", SHAPE[1:], study_of())
    mask = lopsided(SHAPE[1:])
    for number in (1, 3):
        file = write_clip_seg(tmp_path / "seg.dcm", clip, {number: mask})
        lesion = read_lesion(candidate("SEG", [clip], file))
        frame = pydicom.dcmread(clip).pixel_array[number - 1]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.image), frame)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.mask), mask)
    several = write_clip_seg(tmp_path / "seg.dcm", clip, {1: mask, 2: mask})
    with pytest.raises(RadllmError, match="just one frame"):
        read_lesion(candidate("SEG", [clip], several))


def test_a_lesion_on_one_slice_of_files_in_several_folders(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    mask = lopsided()
    mask[2] = 0
    file = write_seg(tmp_path / "seg.dcm", images, {"a": mask})
    expected = from_files(images, mask, tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(images[2], tmp_path / "ct" / "copy.dcm")  # the same instance twice, which a folder may hold
    images[1] = Path(shutil.move(images[1], tmp_path / "other" / images[3].name))  # a name that is there twice
    assert_same(read_lesion(candidate("SEG", images, file)), expected)


def test_a_volume_of_one_slice(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", (1, *SHAPE[1:]), study_of())
    mask = lopsided(SHAPE[1:])[np.newaxis]
    expected = from_files(images, mask, tmp_path)
    seg, structures = tmp_path / "seg.dcm", tmp_path / "rt.dcm"
    assert_same(read_lesion(candidate("SEG", images, write_seg(seg, images, {"a": mask}))), expected)
    assert_same(read_lesion(candidate("RTSTRUCT", images, write_rtstruct(structures, images, {"a": mask}))), expected)


def test_an_enhanced_file(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 2000, SHAPE).astype(np.uint16)
    about = {**study_of(), "FrameOfReferenceUID": "1.2.3.9"}
    image = write_enhanced(tmp_path / "ct.dcm", values, [6.0, 2.0, 4.0, 0.0], **about)  # out of order
    mask = lopsided()
    stored = mask[[3, 1, 2, 0]]  # what lies at 0, 2, 4 and 6 mm, in the order of the file's frames
    dataset = pydicom.dcmread(image)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 2
    dataset.save_as(image)
    file = write_seg(tmp_path / "seg.dcm", [image], {"a": stored})
    assert_same(read_lesion(candidate("SEG", [image], file)), from_files([image], mask, tmp_path))
    dataset = pydicom.dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    dataset.save_as(file)
    assert_same(read_lesion(candidate("SEG", [image], file)), from_files([image], mask, tmp_path))


def test_frames_that_run_another_way(tmp_path: Path) -> None:
    """Rows upwards rather than downwards, in the same voxels."""
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided()})
    dataset = pydicom.dcmread(file)
    turned = dataset.pixel_array[:, ::-1]
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    across, down = np.reshape(orientation.ImageOrientationPatient, (2, 3))
    orientation.ImageOrientationPatient = [*across.tolist(), *(-down).tolist()]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        moved = np.array(place.ImagePositionPatient, float) + (SHAPE[1] - 1) * SPACING[0] * down
        place.ImagePositionPatient = moved.round(6).tolist()
    packed = np.packbits(turned, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.save_as(file)
    assert_same(read_lesion(candidate("SEG", images, file)), from_files(images, lopsided(), tmp_path))


def test_frames_without_a_place_lie_where_their_images_do(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided()})
    dataset = pydicom.dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    dataset.save_as(file)
    assert_same(read_lesion(candidate("SEG", images, file)), from_files(images, lopsided(), tmp_path))


def test_another_grid_is_refused(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided()})
    for change, sentence in (
        ({"PixelSpacing": [0.25, 0.25]}, "another grid"),
        ({"PixelSpacing": [1.0, 0.5]}, "another grid"),
        ({"SpacingBetweenSlices": 5}, "another grid"),
    ):
        dataset = pydicom.dcmread(file)
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        for keyword, value in change.items():
            setattr(measures, keyword, value)
        dataset.save_as(tmp_path / "changed.dcm")
        with pytest.raises(RadllmError, match=sentence):
            read_lesion(candidate("SEG", images, tmp_path / "changed.dcm"))
    with pytest.raises(RadllmError, match="outside the image"):
        read_lesion(candidate("SEG", images[:2], file))


def test_empty_segments_are_told(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    masks = {"a": lopsided(), "nothing": np.zeros(SHAPE, np.uint8)}
    for file in (
        write_seg(tmp_path / "seg.dcm", images, masks),
        write_rtstruct(tmp_path / "rt.dcm", images, masks),
    ):
        assert [segment.empty for segment in segments_of(file)] == [False, True]


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_a_file_cut_anywhere_is_one_sentence_or_still_whole(tmp_path: Path, kind: SegmentationKind) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    write = write_seg if kind == "SEG" else write_rtstruct
    whole = write(tmp_path / "whole.dcm", images, {"a": lopsided()}).read_bytes()
    expected = from_files(images, lopsided(), tmp_path)
    cut = tmp_path / "cut.dcm"
    for length in np.linspace(0, len(whole) - 1, 30, dtype=int):
        cut.write_bytes(whole[:length])
        sentence, lesion = "", None
        try:
            lesion = read_lesion(candidate(kind, images, cut))
        except RadllmError as error:
            sentence = str(error)
        assert "\n" not in sentence
        assert not any(str(word) in sentence for word in PATIENT.values() if len(str(word)) > 1)
        if lesion:
            assert_same(lesion, expected)


def test_surfaces_are_refused(tmp_path: Path) -> None:
    images = write_picture(tmp_path / "us.dcm", "US", SHAPE[1:], study_of())
    dataset = pydicom.dcmread(write_seg(tmp_path / "seg.dcm", images, {"a": lopsided(SHAPE[1:])}))
    del dataset.Rows, dataset.PixelData
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(RadllmError, match="surfaces rather than pixels"):
        segments_of(tmp_path / "seg.dcm")


def test_other_files_are_refused(tmp_path: Path) -> None:
    images = write_picture(tmp_path / "us.dcm", "US", SHAPE[1:], study_of())
    with pytest.raises(RadllmError, match="neither a DICOM segmentation nor a structure set"):
        segments_of(images[0])
    (tmp_path / "text.dcm").write_text("nothing")
    for file in (tmp_path / "text.dcm", tmp_path / "absent.dcm"):
        with pytest.raises(RadllmError, match=file.name):
            segments_of(file)


# --- other people's programs ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not (READER and WRITER), reason="needs dcmqi")
def test_dcmqi_reads_the_same_segment(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_seg(tmp_path / "seg.dcm", images, {"a": lopsided()})
    command = [str(READER), "--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    lesion = read_lesion(candidate("SEG", images, file))
    theirs = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "1.nrrd")), lesion.mask, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.mask), sitk.GetArrayFromImage(theirs))


@pytest.mark.skipif(not (READER and WRITER), reason="needs dcmqi")
def test_what_dcmqi_writes_is_read(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    expected = from_files(images, lopsided(), tmp_path)
    lesion = {"CodeValue": "52988006", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Lesion"}
    category = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Abnormal structure"}
    segment = {"labelID": 1, "SegmentDescription": "a", "SegmentLabel": "a", "SegmentAlgorithmType": "MANUAL"}
    segment |= {"SegmentedPropertyCategoryCodeSequence": category, "SegmentedPropertyTypeCodeSequence": lesion}
    about = {"ContentCreatorName": "x", "SeriesDescription": "s", "SeriesNumber": "9", "InstanceNumber": "1"}
    (tmp_path / "about.json").write_text(json.dumps({**about, "segmentAttributes": [[segment]]}))
    sources = ",".join(map(str, images))
    command = [str(WRITER), "--inputImageList", tmp_path / "mask.nrrd", "--inputDICOMList", sources]
    command += ["--inputMetadata", tmp_path / "about.json", "--outputDICOM", tmp_path / "seg.dcm"]
    subprocess.run(command, check=True, capture_output=True)
    assert [each.name for each in segments_of(tmp_path / "seg.dcm")] == ["a"]
    assert_same(read_lesion(candidate("SEG", images, tmp_path / "seg.dcm")), expected)
