"""Lesions that a table names: each line is a candidate, or a refusal with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.batch.candidates import Candidate
from radllm_backend.batch.lesions import read_lesion
from radllm_backend.batch.sources import find_in_manifest
from Testing.support.dicom_archive import BLOCK, SHAPE
from Testing.support.dicom_databases import study_of, write_volume


def write_manifest(folder: Path, *lines: str) -> Path:
    (folder / "lesions.csv").write_text("\n".join(["image,mask,mask_label,spacing_mm,modality", *lines]))
    return folder / "lesions.csv"


def test_a_manifest(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, SHAPE[1:]).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "bild é.png"))
    two = np.where(np.roll(BLOCK[1], -3, axis=0), 1, 2 * np.roll(BLOCK[1], 3, axis=0))
    sitk.WriteImage(sitk.GetImageFromArray(two.astype(np.uint8)), str(tmp_path / "mask.png"))
    good = ["bild é.png,mask.png,1,0.1,US", "bild é.png,mask.png,2,0.1,US"]
    found = find_in_manifest(write_manifest(tmp_path, *good))
    assert found.refusals == []
    assert len({each.key for each in found.candidates}) == 2
    first, second = map(read_lesion, found.candidates)
    assert (first.modality, first.geometry.spacing) == ("US", (0.1, 0.1))
    assert first.mask_sha256 != second.mask_sha256
    bad = [
        "absent.png,mask.png,1,,",
        "bild é.png,mask.png,one,,",
        "bild é.png,mask.png,1,-3,",
        "bild é.png,mask.png,1,,XX",
    ]
    found = find_in_manifest(write_manifest(tmp_path, *good, *bad, good[0]))
    assert len(found.candidates) == 2
    assert [refusal.what for refusal in found.refusals] == [f"Line {line} of lesions.csv" for line in range(4, 9)]
    assert "earlier line" in found.refusals[-1].reason


def test_two_segments_of_one_file_are_two_lesions(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(BLOCK + np.arange(SHAPE[2], dtype=np.uint8)), str(tmp_path / "image.nrrd"))
    mask = sitk.GetImageFromArray(BLOCK + 2 * np.roll(BLOCK, 2, axis=0))
    for number, name in enumerate(("Läsion", "Zyste")):
        mask.SetMetaData(f"Segment{number}_ID", f"S{number}")
        mask.SetMetaData(f"Segment{number}_Name", name)
        mask.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
        mask.SetMetaData(f"Segment{number}_Layer", "0")
    sitk.WriteImage(mask, str(tmp_path / "mask.seg.nrrd"))
    (tmp_path / "m.csv").write_text(
        "image,mask,segment\nimage.nrrd,mask.seg.nrrd,Läsion\nimage.nrrd,mask.seg.nrrd,S1\n"
    )
    found = find_in_manifest(tmp_path / "m.csv")
    assert len({each.key for each in found.candidates}) == 2
    assert len({candidate.source for candidate in found.candidates}) == 1
    assert [read_lesion(candidate).segment for candidate in found.candidates] == ["Läsion", "Zyste"]


def test_a_mask_is_recognised_by_its_label_and_its_segment_and_dicom_by_its_number_alone() -> None:
    mask = Candidate(kind="mask", image=("i.nrrd",), segmentation="m.nrrd", series="s", source="m")
    choices = [{}, {"number": 1}, {"number": 2}, {"segment": "a"}, {"segment": "b"}, {"number": 1, "segment": "a"}]
    assert len({mask.model_copy(update=choice).key for choice in choices}) == len(choices)
    dicom = mask.model_copy(update={"kind": "SEG", "number": 1, "segment": "a"})
    assert dicom.key == dicom.model_copy(update={"segment": "renamed"}).key


def test_a_manifest_of_dicom_series(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    sitk.WriteImage(sitk.GetImageFromArray(BLOCK), str(tmp_path / "mask.nrrd"))
    (candidate,) = find_in_manifest(write_manifest(tmp_path, "ct,mask.nrrd,,,")).candidates
    assert candidate.series == pydicom.dcmread(images[0]).SeriesInstanceUID
    assert candidate.image == tuple(sorted(map(str, images)))
