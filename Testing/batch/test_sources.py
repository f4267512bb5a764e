"""Every lesion of a database or a folder is found once, or refused with a reason; nothing is lost."""

from __future__ import annotations

import copy
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.batch import sources as dicom_database
from radllm_backend.batch.candidates import Found
from radllm_backend.batch.lesions import read_lesion
from radllm_backend.batch.sources import Filter, find_in_database, find_in_folder, selected
from radllm_backend.errors import RadllmError
from Testing.support.dicom_archive import BLOCK, SHAPE, Archive, write_archive
from Testing.support.dicom_databases import (
    PATIENT,
    study_of,
    write_database,
    write_picture,
    write_rtstruct,
    write_seg,
    write_volume,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Archive]:
    folder = tmp_path_factory.mktemp("archive") / "Datenbank Łódź"
    written = write_archive(folder)
    write_database(folder, written.files, remote=written.remote)
    return folder, written


def found_keys(found: Found) -> list[str]:
    return sorted(candidate.key for candidate in found.candidates)


# --- all is found ---------------------------------------------------------------------------------------------------


def test_every_lesion_of_forty_studies_is_a_candidate_or_a_refusal(archive: tuple[Path, Archive]) -> None:
    folder, written = archive
    in_database, in_folder = find_in_database(folder), find_in_folder(folder / "dicom")
    for found, on_server in ((in_database, ["on a server only"] * 2), (in_folder, ["image is not here"])):
        assert sorted((each.source, each.number) for each in found.candidates) == sorted(written.lesions)
        expected = Counter([*written.refused, *on_server])
        reasons = [refusal.reason for refusal in found.refusals]
        assert {word: sum(word in reason for reason in reasons) for word in expected} == expected
        assert len(reasons) == expected.total()
    assert found_keys(in_database) == found_keys(in_folder)
    assert max(Counter(found_keys(in_database)).values()) == 1


def test_image_series_without_a_segment_are_told_apart(archive: tuple[Path, Archive]) -> None:
    """One has a segmentation that is cut short, the other one without segments: nothing says that it is theirs."""
    folder, _ = archive
    for found in (find_in_database(folder), find_in_folder(folder / "dicom")):
        assert [each.what for each in found.unsegmented] == [
            "MG 'MG links' of 'Étude 28' 20240515",
            "MG 'MG links' of 'Étude 8' 20240915",
        ]


def test_both_sources_say_the_same_of_a_lesion(archive: tuple[Path, Archive]) -> None:
    folder, _ = archive
    in_folder = {each.key: each for each in find_in_folder(folder / "dicom").candidates}
    for candidate in find_in_database(folder).candidates:
        assert candidate == in_folder[candidate.key]


def test_the_words_are_those_of_the_files_and_of_no_patient(archive: tuple[Path, Archive]) -> None:
    found = find_in_database(archive[0])
    assert {each.segment for each in found.candidates} >= {"Läsion", "病变", "Zyste"}
    assert "MR axial é" in {each.series_description for each in found.candidates}
    assert "Étude 0" in {each.study_description for each in found.candidates}
    assert "20240115" in {each.study_date for each in found.candidates}
    text = found.model_dump_json()
    assert not any(part in text for part in (*PATIENT["PatientName"].split("^"), PATIENT["PatientID"]))


def test_every_candidate_can_be_read(archive: tuple[Path, Archive]) -> None:
    for candidate in find_in_database(archive[0]).candidates:
        mask = sitk.GetArrayFromImage(read_lesion(candidate).mask)
        np.testing.assert_array_equal(mask, BLOCK[1] if mask.ndim == 2 else BLOCK)


# --- the database ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, list[Path]]:
    """One lesion: the database's folder, and the files in it."""
    folder = tmp_path / "db"
    images = write_picture(folder / "dicom" / "a.dcm", "MG", SHAPE[1:], study_of())
    return folder, [*images, write_seg(folder / "dicom" / "seg.dcm", images, {"a": BLOCK[1]})]


def execute(folder: Path, *statements: str) -> None:
    """Change the database behind everybody's back."""
    with closing(sqlite3.connect(folder / "ctkDICOM.sql")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@pytest.mark.parametrize("version", ["0.7.0", "0.8.1"])
def test_both_layouts_and_both_kinds_of_names(small: tuple[Path, list[Path]], version: str) -> None:
    folder, files = small
    elsewhere = Path(shutil.copytree(folder, folder.parent / "elsewhere"))
    write_database(folder, files, version)
    write_database(folder.parent / "absolute", [elsewhere / file.relative_to(folder) for file in files], version)
    (own,) = find_in_database(folder).candidates
    (absolute,) = find_in_database(folder.parent / "absolute").candidates
    assert own.key == absolute.key
    assert (own.image, absolute.image) == ((str(files[0]),), (str(elsewhere / "dicom" / "a.dcm"),))


def test_any_other_layout_is_one_sentence(small: tuple[Path, list[Path]]) -> None:
    folder, files = small
    with pytest.raises(RadllmError, match=r"holds no ctkDICOM\.sql"):
        find_in_database(folder)
    write_database(folder, files, "0.5.4")
    with pytest.raises(RadllmError, match=r"layout 0\.5\.4, not 0\.7\.0 or 0\.8\.1"):
        find_in_database(folder)
    execute(folder, "DROP TABLE SchemaInfo")
    with pytest.raises(RadllmError, match="of another program"):
        find_in_database(folder)
    (folder / "ctkDICOM.sql").write_bytes(b"no database at all" * 100)
    with pytest.raises(RadllmError, match="is damaged"):
        find_in_database(folder)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_it_may_be_in_use(small: tuple[Path, list[Path]], journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_database, "PATIENCE", 0.1)
    folder, files = write_database(*small), small[1]
    expected = find_in_database(folder)
    before = (folder / "ctkDICOM.sql").read_bytes()
    with closing(sqlite3.connect(folder / "ctkDICOM.sql", isolation_level=None)) as slicer:
        slicer.execute(f"PRAGMA journal_mode={journal}")
        slicer.execute("BEGIN IMMEDIATE")
        slicer.execute("UPDATE Series SET SeriesDescription = 'not yet'")
        assert find_in_database(folder) == expected
        slicer.execute("ROLLBACK")
        slicer.execute("BEGIN EXCLUSIVE")
        if journal == "delete":
            with pytest.raises(RadllmError, match="locked.*try again later"):
                find_in_database(folder)
        else:
            assert find_in_database(folder) == expected
        slicer.execute("ROLLBACK")
    assert find_in_database(folder) == expected
    if journal == "delete":
        assert (folder / "ctkDICOM.sql").read_bytes() == before
    assert len(files) == len(list((folder / "dicom").iterdir()))


def test_nothing_can_be_written_to_it(small: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    write_database(*small)
    monkeypatch.setattr(dicom_database, "_QUERY", "DELETE FROM Images")
    with pytest.raises(RadllmError, match="attempt to write a readonly database"):
        find_in_database(small[0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="makes files that it may not write to")
def test_a_read_only_medium(small: tuple[Path, list[Path]]) -> None:
    write_database(*small)
    execute(small[0], "PRAGMA journal_mode=wal")
    with tempfile.TemporaryDirectory() as parent:  # pytest's own is closed to other users
        folder = Path(parent)
        shutil.copy(small[0] / "ctkDICOM.sql", folder)
        folder.chmod(0o555)
        os.seteuid(65534)
        try:
            (refusal,) = find_in_database(folder).refusals
            assert "seg.dcm cannot be read" in refusal.reason  # it was not copied
        finally:
            os.seteuid(0)


def test_files_that_are_gone_are_refused(small: tuple[Path, list[Path]]) -> None:
    folder, (image, seg) = small
    write_database(folder, (image, seg))
    image.rename(folder / "moved.dcm")
    (refusal,) = find_in_database(folder).refusals
    assert "lacks 1 of 1 file:" in refusal.reason
    assert refusal.modality == "MG"
    seg.unlink()
    (refusal,) = find_in_database(folder).refusals
    assert "cannot be read (No such file or directory)" in refusal.reason


def test_a_series_without_any_instance_is_on_a_server(small: tuple[Path, list[Path]]) -> None:
    folder, files = small
    write_database(folder, files)
    execute(folder, "DELETE FROM Images")
    (refusal,) = find_in_database(folder).refusals
    assert "on a server only" in refusal.reason


def test_a_thousand_files_take_little_time(small: tuple[Path, list[Path]]) -> None:
    """Of the images, the database names all that is needed: they are not opened, but for one of a series."""
    folder, files = small
    write_database(folder, files)
    columns = "SeriesInstanceUID, StudyInstanceUID, Modality, InsertTimestamp"
    execute(
        folder,
        *(
            f"INSERT INTO Images VALUES ('9.{number}', 'dicom/none {number}', NULL, '8.{number // 100}', '', NULL)"
            for number in range(5000)
        ),
        *(f"INSERT INTO Series ({columns}) VALUES ('8.{number}', 'x', 'CT', '')" for number in range(50)),
    )
    found = find_in_database(folder)
    assert (len(found.candidates), found.refusals) == (1, [])
    assert {(each.modality, each.reason) for each in found.unsegmented} == {
        ("CT", "It has no segmentation: segment it in Slicer, or leave it.")
    }
    assert len(found.unsegmented) == 50
    assert selected(found, Filter(modality="MG")).unsegmented == []


# --- a folder -------------------------------------------------------------------------------------------------------


def test_a_folder_with_other_files(small: tuple[Path, list[Path]]) -> None:
    folder, _ = small
    (folder / "readme.txt").write_text("not an image")
    assert find_in_folder(folder).refusals == []
    (folder / "broken.dcm").write_bytes(b"\0" * 200)
    (folder / "short.dcm").write_bytes(b"\0" * 128 + b"DICM\2\0")
    found = find_in_folder(folder)
    assert [refusal.what for refusal in found.refusals] == ["broken.dcm", "short.dcm"]
    assert len(found.candidates) == 1
    with pytest.raises(RadllmError, match="no folder absent"):
        find_in_folder(folder / "absent")


def test_an_instance_in_two_series_is_one_lesion(small: tuple[Path, list[Path]]) -> None:
    folder, (_, seg) = small
    dataset = pydicom.dcmread(seg)
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.save_as(folder / "copy.dcm")
    found = find_in_folder(folder)
    assert (len(found.candidates), found.refusals) == (1, [])


def test_a_copy_of_the_image_in_a_series_of_its_own_is_not_meant(small: tuple[Path, list[Path]]) -> None:
    folder, (image, _) = small
    for name in ("first.dcm", "z last.dcm"):
        dataset = pydicom.dcmread(image)
        dataset.SeriesInstanceUID = generate_uid()
        dataset.save_as(image.with_name(name))
    (candidate,) = find_in_folder(folder).candidates
    assert candidate.image == (str(image),)


def test_a_number_that_two_segments_share_is_refused(small: tuple[Path, list[Path]]) -> None:
    folder, (_, seg) = small
    dataset = pydicom.dcmread(seg)
    dataset.SegmentSequence.append(copy.deepcopy(dataset.SegmentSequence[0]))
    dataset.SegmentSequence[1].SegmentLabel = "b"
    dataset.save_as(seg)
    found = find_in_folder(folder)
    assert [candidate.segment for candidate in found.candidates] == ["a"]
    assert ["'b'" in refusal.what and "has its number" in refusal.reason for refusal in found.refusals] == [True]


def test_a_segmentation_that_names_no_image_belongs_to_the_one_in_its_space(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_seg(tmp_path / "seg.dcm", images, {"a": BLOCK})
    dataset = pydicom.dcmread(file)
    del dataset.ReferencedSeriesSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    dataset.save_as(file)
    (candidate,) = find_in_folder(tmp_path).candidates
    assert len(candidate.image) == SHAPE[0]
    space = pydicom.dcmread(images[0]).FrameOfReferenceUID
    write_volume(tmp_path / "second", "CT", SHAPE, study_of(), FrameOfReferenceUID=space)
    (refusal,) = find_in_folder(tmp_path).refusals
    assert "refers to 2 image series" in refusal.reason


# --- choosing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ({}, 4),
        ({"modality": "mr"}, 2),
        ({"modality": "XA"}, 0),
        ({"description": "brust"}, 2),
        ({"description": "*AXIAL É"}, 2),
        ({"description": "axial?"}, 0),
        ({"first_date": "2024-03-01"}, 2),
        ({"first_date": "20240229", "last_date": "2024-02-29"}, 2),
        ({"last_date": "20240228"}, 0),
        ({"segment": "läs"}, 2),
        ({"segment": "*1"}, 2),
        ({"segment": "LÄSION 1", "modality": "MG"}, 1),
    ],
)
def test_a_filter(chosen_from: Found, words: dict[str, str], count: int) -> None:
    assert len(selected(chosen_from, Filter(**words)).candidates) == count


@pytest.fixture(scope="module")
def chosen_from(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("filter")
    masks = {"Läsion 1": BLOCK, "Zyste 2": BLOCK}
    picture = write_picture(folder / "a.dcm", "MG", SHAPE[1:], study_of())
    volume = write_volume(folder / "mr", "MR", SHAPE, study_of("Abdomen", "20240301"))
    write_seg(folder / "seg.dcm", picture, {name: mask[1] for name, mask in masks.items()})
    write_rtstruct(folder / "rt.dcm", volume, masks)
    return find_in_folder(folder)


def test_a_wrong_date_is_one_sentence() -> None:
    with pytest.raises(RadllmError, match="is no date"):
        Filter(first_date="yesterday")


def test_refusals_of_another_modality_are_left_out_with_it(small: tuple[Path, list[Path]]) -> None:
    folder, (image, seg) = small
    write_database(folder, (image, seg))
    image.unlink()
    found = find_in_database(folder)
    assert len(selected(found, Filter(modality="MG")).refusals) == 1
    assert selected(found, Filter(modality="CT")).refusals == []
