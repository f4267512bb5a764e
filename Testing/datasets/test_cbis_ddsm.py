"""CBIS-DDSM: its swapped files, its stray newlines, its masks of another size, and its tables alone."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radllm_backend.datasets.cbis_ddsm import find_tables, manifest, tabulate
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_rows, read_table
from radllm_backend.imaging.lesion import Lesion
from Testing.support.command_line import radllm, succeed
from Testing.support.dataset_trees import (
    CALC_HEADING,
    COLUMNS,
    MASS_HEADING,
    ROWS,
    cbis_pictures,
    cbis_row,
    cbis_rows,
    write_cbis,
    write_cbis_tables,
    write_mammogram,
)

TABLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "cbis-ddsm"


def read(tmp_path, rows, **options):
    return manifest(write_cbis(tmp_path / "cbis", rows), tmp_path / "masks", **options)


def lesion_folder(root: Path, row) -> Path:
    return root / "CBIS-DDSM" / Path(row["ROI mask file path"]).parent


def pixels_of_mask(row) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(Lesion.from_files(row["image"], row["mask"]).mask) > 0


def test_mask_and_crop_are_told_apart_by_content(tmp_path):
    rows = cbis_rows(6)
    found = read(tmp_path, rows)
    assert (len(found.rows), found.left_out) == (12, [])
    assert len({Path(row["mask"]).name for row in found.rows}) == 2  # now the first file is the mask, now the second
    truth = {row["ROI mask file path"].split("/")[0]: cbis_pictures(row)[1] for row in rows}
    for row in found.rows:
        assert row["mask_kind"] == "published"
        assert (pixels_of_mask(row) == truth[row["lesion"]]).all()


def test_pathology_is_the_label_and_the_tables_are_the_split(tmp_path):
    rows = cbis_rows(6)
    found = read(tmp_path, rows).rows
    assert {row["pathology"] for row in rows} == {"BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT"}
    assert Counter(row["label"] for row in found) == {"benign": 6, "malignant": 6}
    assert Counter(row["split"] for row in found) == {"training": 8, "test": 4}
    assert {row["laterality"] for row in found} == {"L"}
    assert not any(name.startswith("descriptor_") for name in found[0])


def test_stray_newlines_in_the_paths_do_no_harm(tmp_path):
    root = write_cbis(tmp_path / "cbis", cbis_rows(2))
    assert b'000001.dcm\n"' in find_tables(root)[0].read_bytes()
    assert len(manifest(root, tmp_path / "masks").rows) == 4


def test_density_is_found_with_a_blank_or_an_underscore(tmp_path):
    rows = [*cbis_rows(2), *cbis_rows(2, "calcification")]
    assert ("breast_density" in MASS_HEADING, "breast density" in CALC_HEADING) == (True, True)
    found = read(tmp_path, rows, descriptors=True).rows
    assert {row["descriptor_breast_density"] for row in found} == {
        "scattered areas of fibroglandular density",
        "heterogeneously dense",
    }
    kinds = Counter(row["descriptor_lesion_type"] for row in found)
    assert kinds == {"mass": 4, "calcification": 4}
    for row in found:
        mass = row["descriptor_lesion_type"] == "mass"
        assert bool(row["descriptor_mass_shape"]) == mass
        assert bool(row["descriptor_calcification_type"]) != mass
        assert "descriptor_birads_assessment" not in row
    assessed = read(tmp_path, rows, descriptors=True, assessment=True).rows
    assert {row["descriptor_birads_assessment"] for row in assessed} == {"2", "4"}


def test_only_one_kind(tmp_path):
    rows = [*cbis_rows(2), *cbis_rows(2, "calcification")]
    assert {row["lesion"][:4] for row in read(tmp_path, rows, kinds=("calcification",)).rows} == {"Calc"}
    with pytest.raises(RadllmError, match="no lesion that can be used"):
        read(tmp_path / "masses", cbis_rows(2), kinds=("calcification",))


def write_mask(root: Path, row, picture: np.ndarray) -> None:
    """In place of the lesion's mask and crop."""
    folder = lesion_folder(root, row)
    shutil.rmtree(folder)
    write_mammogram(folder / "1-1.dcm", picture, spacing=None, SeriesInstanceUID=folder.name)


def test_a_mask_of_another_size_is_scaled_where_it_shows_the_same(tmp_path):
    row = cbis_row(1, "CC", True)
    root = write_cbis(tmp_path / "cbis", [row])
    truth = cbis_pictures(row)[1]
    small = Image.fromarray(truth).resize((COLUMNS // 2, ROWS // 2), Image.Resampling.NEAREST)
    write_mask(root, row, np.asarray(small).astype(np.uint8) * 255)
    found = manifest(root, tmp_path / "masks").rows[0]
    assert found["mask_kind"] == "scaled"
    assert Path(found["mask"]) == tmp_path / "masks" / "Mass-Training_P_00001_LEFT_CC_1.png"
    inside = pixels_of_mask(found)
    assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > 0.95


@pytest.mark.parametrize(
    "picture",
    [
        np.pad(np.full((40, 40), 255, np.uint8), ((0, ROWS), (0, 0))),  # another shape
        np.zeros((ROWS, COLUMNS), np.uint8),
        np.full((ROWS, COLUMNS), 255, np.uint8),
        np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS) % 4096,  # a picture, no mask
        np.eye(ROWS, COLUMNS, dtype=np.uint8)[:, :1] * np.full((1, COLUMNS), 255, np.uint8),  # one line of pixels
    ],
    ids=["another shape", "empty", "full", "picture", "line"],
)
def test_what_is_no_mask_is_left_out(tmp_path, picture):
    rows = [cbis_row(1, "CC", True), cbis_row(2, "CC", False)]
    root = write_cbis(tmp_path / "cbis", rows)
    write_mask(root, rows[0], picture)
    found = manifest(root, tmp_path / "masks")
    assert len(found.rows) == 1
    rows_found, columns_found = picture.shape
    assert found.left_out == [
        f"Mass-Training_P_00001_LEFT_CC_1: no mask in the shape of its image of {ROWS} x {COLUMNS} pixels is there, "
        f"but 1-1.dcm of {rows_found} x {columns_found}."
    ]


def test_several_lesions_of_an_image_have_their_own_masks(tmp_path):
    rows = [cbis_row(1, "CC", True), cbis_row(1, "CC", True, number=2)]
    found = read(tmp_path, rows).rows
    assert found[0]["image"] == found[1]["image"]
    for row, published in zip(found, rows, strict=True):
        assert (pixels_of_mask(row) == cbis_pictures(published)[1]).all()


def test_of_two_masks_the_series_of_the_table_counts(tmp_path):
    row = cbis_row(1, "CC", True)
    root = write_cbis(tmp_path / "cbis", [row])
    other = np.roll(cbis_pictures(row)[1], 15, axis=1).astype(np.uint8) * 255
    folder = lesion_folder(root, row)
    write_mammogram(folder.with_name("another") / "1-1.dcm", other, spacing=None, SeriesInstanceUID="1.2.3.4")
    assert Path(manifest(root, tmp_path / "masks").rows[0]["mask"]).parent == folder
    write_mammogram(folder / "1-3.dcm", other, spacing=None, SeriesInstanceUID=folder.name)
    with pytest.raises(RadllmError, match="3 files could be its mask"):
        manifest(root, tmp_path / "masks")


def test_damaged_and_missing_files_are_left_out(tmp_path):
    rows = [cbis_row(number, "CC", number % 2 == 1) for number in range(1, 6)]
    root = write_cbis(tmp_path / "cbis", rows)
    images = [root / "CBIS-DDSM" / Path(row["image file path"]).parent / "1-1.dcm" for row in rows]
    images[0].unlink()
    images[1].write_bytes(b"DICM")
    shutil.rmtree(lesion_folder(root, rows[2]))
    for path in lesion_folder(root, rows[3]).iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    found = manifest(root, tmp_path / "masks")
    assert [row["patient"] for row in found.rows] == ["P_00005"]
    reasons = ["is not there: download it", "is damaged", "is there, but nothing", "damaged|cut|incomplete"]
    for reason, line in zip(reasons, found.left_out, strict=True):
        assert any(word in line for word in reason.split("|")), line


def test_images_may_lie_beside_the_tables(tmp_path):
    root = write_cbis(tmp_path / "cbis", cbis_rows(2))
    for folder in (root / "CBIS-DDSM").iterdir():
        folder.rename(root / folder.name)
    (root / "CBIS-DDSM").rmdir()
    assert len(manifest(root, tmp_path / "masks").rows) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pathology": "UNPROVEN"}, "'UNPROVEN' as pathology of Mass-Training_P_00001_LEFT_CC_1: use one of BENIGN"),
        ({"ROI mask file path": "Mass-Training_../../etc/3.dcm"}, "as a lesion's folder"),
        ({"mass shape": "BLOB"}, "'descriptor_mass_shape' cannot be 'BLOB'"),
        ({"breast_density": "9"}, "'descriptor_breast_density' cannot be '9'"),
    ],
)
def test_a_table_with_another_word_is_refused(tmp_path, change, sentence):
    tables = write_cbis_tables(tmp_path, [{**cbis_row(1, "CC", True), **change}])
    with pytest.raises(RadllmError, match="mass_case_description_train_set.csv") as raised:
        tabulate(tables)
    assert sentence in str(raised.value)


def test_a_folder_without_tables(tmp_path):
    for given in ([], ["--tables-only"]):
        finished = radllm("dataset", "cbis-ddsm", tmp_path, "-o", tmp_path / "out.csv", *given)
        assert finished.code == 1
        assert "has no table *_case_description_*_set.csv: download the tables there" in finished.error
    assert list(tmp_path.iterdir()) == []


def test_tables_alone_are_a_table_of_descriptors(tmp_path):
    write_cbis_tables(tmp_path, [*cbis_rows(4), *cbis_rows(4, "calcification")])
    out = tmp_path / "out.csv"
    finished = succeed("dataset", "cbis-ddsm", tmp_path, "-o", out, "--tables-only")
    assert finished.output == f"16 lesions, 8 benign, 8 malignant: {out}\n"
    table = read_table(out)
    assert table.features == ()
    assert "birads_assessment" not in table.descriptors
    assert {"mass_shape", "mass_margins", "calcification_type", "breast_density", "subtlety"} <= set(table.descriptors)
    masses = ["--tables-only", "--kind", "mass", "--assessment"]
    assert succeed("dataset", "cbis-ddsm", tmp_path, "-o", out, *masses).output.startswith("8 lesions")
    assert "birads_assessment" in read_table(out).descriptors
    (tmp_path / "calc_case_description_train_set.csv").unlink()
    (tmp_path / "calc_case_description_test_set.csv").unlink()
    finished = radllm("dataset", "cbis-ddsm", tmp_path, "-o", out, "--tables-only", "--kind", "calcification")
    assert "The tables name no calcification" in finished.error


@pytest.mark.skipif(not TABLES.is_dir(), reason="the tables of CBIS-DDSM are not here")
def test_the_published_training_tables():
    rows = tabulate(find_tables(TABLES), assessment=True)
    assert Counter(row["descriptor_lesion_type"] for row in rows) == {"mass": 1318, "calcification": 1546}
    assert {row["split"] for row in rows} == {"training"}
    assert len({row["lesion"] for row in rows}) == len(rows)
    for path in find_tables(TABLES):
        malignant = sum(row["pathology"] == "MALIGNANT" for row in read_rows(path, ("pathology",)))
        kind = {"mass": "mass", "calc": "calcification"}[path.name[:4]]
        of_kind = [row for row in rows if row["descriptor_lesion_type"] == kind]
        assert sum(row["label"] == "malignant" for row in of_kind) == malignant > 400
