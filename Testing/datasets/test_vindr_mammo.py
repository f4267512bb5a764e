"""VinDr-Mammo: its table's oddities, its boxes, and the masks made of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radllm_backend.datasets.birads import LabelRule, category
from radllm_backend.datasets.vindr_mammo import manifest
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_rows
from Testing.support.command_line import radllm, succeed
from Testing.support.dataset_trees import (
    COLUMNS,
    ROWS,
    box_around,
    mammogram,
    seed_of,
    vindr_row,
    vindr_rows,
    write_header,
    write_mammogram,
    write_vindr,
)

LAYOUT = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotation-layouts"


def one(**changes: str) -> dict[str, str]:
    """A malignant mass in the test part."""
    return {**vindr_row(1, "L", "CC", True, "test"), **changes}


def read(tmp_path, rows, **options):
    return manifest(write_vindr(tmp_path / "vindr", rows), tmp_path / "masks", **options)


def mask_of(row) -> np.ndarray:
    return np.asarray(Image.open(row["mask"])) > 0


def edges(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, and, not within, right and bottom."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def box(left: object, top: object, right: object, bottom: object) -> dict[str, str]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), map(str, (left, top, right, bottom)), strict=True))


def test_a_tree_as_published(tmp_path):
    found = read(tmp_path, vindr_rows(6))
    assert found.left_out == []  # images without a finding are no lesions
    assert len(found.rows) == 12
    assert {row["label"] for row in found.rows if row["birads"] == "BI-RADS 3"} == {"benign"}
    assert {row["label"] for row in found.rows if row["birads"] != "BI-RADS 3"} == {"malignant"}
    assert [row["split"] for row in found.rows] == ["training"] * 8 + ["test"] * 4
    assert len({row["patient"] for row in found.rows}) == 6
    assert not any(name.startswith("descriptor_") for name in found.rows[0])
    for row in found.rows:
        assert Path(row["image"]).is_file()
        assert mask_of(row).shape == (ROWS, COLUMNS)


def test_a_grown_mask_is_the_lesion_and_the_box_is_the_box(tmp_path):
    row = one()
    truth = mammogram(True, seed_of(row["image_id"]))[1]
    grown = read(tmp_path, [row]).rows[0]
    inside = mask_of(grown)
    assert grown["mask_kind"] == "grown"
    assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > 0.7
    left, top, right, bottom = map(int, box_around(truth))
    boxed = read(tmp_path, [row], mask="box").rows[0]
    assert (boxed["mask_kind"], edges(mask_of(boxed))) == ("box", (left, top, right, bottom))
    assert mask_of(boxed).sum() == (right - left) * (bottom - top)


@pytest.mark.parametrize("speck", [0, 6], ids=["nothing", "a speck"])
def test_where_nothing_to_speak_of_stands_out_the_box_is_the_mask(tmp_path, speck):
    row = one(**box(20, 30, 80, 90))
    root = write_vindr(tmp_path / "vindr", [row])
    pixels = np.full((ROWS, COLUMNS), 700, np.uint16)
    pixels[60 : 60 + speck, 50 : 50 + speck] = 4000  # a tenth of the box would be 360 pixels
    write_mammogram(root / "images" / row["study_id"] / f"{row['image_id']}.dicom", pixels)
    found = manifest(root, tmp_path / "masks").rows[0]
    assert (found["mask_kind"], edges(mask_of(found))) == ("box", (20, 30, 80, 90))


def test_a_mask_is_made_once_and_anew_where_the_box_moved(tmp_path):
    first = Path(read(tmp_path, [one()]).rows[0]["mask"])
    made = first.stat().st_mtime_ns
    read(tmp_path, [one()])
    assert first.stat().st_mtime_ns == made
    moved = read(tmp_path, [one(**box(5, 5, 60, 60))], mask="box").rows[0]
    assert edges(mask_of(moved)) == (5, 5, 60, 60)


def test_boxes_that_leave_the_image_are_clipped(tmp_path):
    row = one(**box(-3.25, 20, COLUMNS + 40.5, ROWS + 1))
    found = read(tmp_path, [row], mask="box").rows[0]
    assert edges(mask_of(found)) == (0, 20, COLUMNS, ROWS)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (box(-50, 10, -3, 60), "its box lies outside the image"),
        (box(10, ROWS, 60, ROWS + 50), "its box lies outside the image"),
        (box(10, 20, 60, 21.2), "thinner than two pixels"),
        (box(60, 20, 10, 50), "thinner than two pixels"),
        (box("", "", "", ""), "it has no box in pixels"),
        (box("nan", 1, 60, 60), "it has no box in pixels"),
        (box("left", 1, 60, 60), "it has no box in pixels"),
    ],
)
def test_a_box_that_marks_nothing_is_left_out_and_said_so(tmp_path, where, reason):
    found = read(tmp_path, [vindr_row(0, "L", "CC", False), one(**where)])
    assert len(found.rows) == 1
    assert len(found.left_out) == 1
    assert reason in found.left_out[0]


def test_several_findings_of_an_image_are_several_lesions(tmp_path):
    rows = [
        one(finding_birads="BI-RADS 5", **box(10, 10, 60, 60)),
        one(finding_birads="BI-RADS 3", **box(70, 70, 99, 99)),
    ]
    found = read(tmp_path, rows, mask="box").rows
    assert [row["lesion"] for row in found] == [f"{rows[0]['image_id']}_1", f"{rows[0]['image_id']}_2"]
    assert [row["label"] for row in found] == ["malignant", "benign"]
    assert [edges(mask_of(row)) for row in found] == [(10, 10, 60, 60), (70, 70, 99, 99)]
    assert found[0]["image"] == found[1]["image"]


def test_a_list_in_a_string_is_read_as_a_list(tmp_path):
    found = read(tmp_path, [one(finding_categories="['Suspicious Calcification', 'Mass']")], descriptors=True).rows[0]
    assert found["finding"] == "Suspicious Calcification; Mass"
    assert found["descriptor_lesion_type"] == "mass and calcification"
    assert found["descriptor_breast_density"] == "scattered areas of fibroglandular density"
    other = read(tmp_path, [one(finding_categories="['Skin Thickening']")], descriptors=True).rows[0]
    assert other["descriptor_lesion_type"] == ""


@pytest.mark.parametrize("text", ["Mass", "[]", "['Mass'", "[1]", "__import__('os').getcwd()", "('Mass',)", "[" * 3000])
def test_any_other_text_is_refused(tmp_path, text):
    with pytest.raises(RadllmError, match="as finding_categories of image") as raised:
        read(tmp_path, [one(finding_categories=text)])
    assert one()["image_id"] in str(raised.value)


def test_only_some_categories(tmp_path):
    rows = [one(), vindr_row(0, "L", "CC", False) | {"finding_categories": "['Asymmetry', 'Mass']"}]
    rows.append(vindr_row(2, "L", "CC", False) | {"finding_categories": "['Nipple Retraction']"})
    assert len(read(tmp_path, rows).rows) == 3
    assert len(read(tmp_path, rows, categories=("Mass",)).rows) == 2
    with pytest.raises(RadllmError, match="has no finding 'Masses': it has Asymmetry, Mass, Nipple Retraction"):
        read(tmp_path, rows, categories=("Masses",))


def test_a_finding_without_birads_is_left_out(tmp_path):
    found = read(tmp_path, [vindr_row(0, "L", "CC", False), one(finding_birads="")])
    assert len(found.rows) == 1
    assert found.left_out == [f"{one()['image_id']}_1: it has no BI-RADS category."]


def test_another_rule_gives_other_labels(tmp_path):
    rows = [vindr_row(number, "L", "CC", True) | {"finding_birads": f"BI-RADS {number}"} for number in range(2, 6)]
    rule = LabelRule(benign={"2", "BI-RADS 3"}, malignant={"5"})
    found = read(tmp_path, rows, rule=rule)
    assert [row["label"] for row in found.rows] == ["benign", "benign", "malignant"]
    assert "BI-RADS 4 is neither benign nor malignant by the label rule" in found.left_out[0]
    assert len(read(tmp_path, rows).rows) == 3  # the paper's rule leaves 2 out


def test_a_letter_belongs_to_its_number_unless_the_rule_names_it():
    assert [LabelRule({"3"}, {"4"}).label(text) for text in ("4A", "BI-RADS 4c", " 3 ")] == [
        "malignant",
        "malignant",
        "benign",
    ]
    split = LabelRule({"3", "4a"}, {"4b", "4c", "5"})
    assert [split.label(text) for text in ("4a", "4b")] == ["benign", "malignant"]
    assert [category(text) for text in ("BI-RADS 5", "birads 4B", "", "  ")] == ["5", "4b", "", ""]


@pytest.mark.parametrize(
    ("benign", "malignant", "sentence"),
    [
        ("3,4", "4,5", "calls BI-RADS 4 benign and malignant"),
        ("", "4", "leaves benign or malignant empty"),
        ("3", "seven", "'seven'"),
    ],
)
def test_a_rule_that_is_none_is_refused(tmp_path, benign, malignant, sentence):
    finished = radllm(
        "dataset", "vindr-mammo", tmp_path, "-o", tmp_path / "m.csv", "--benign", benign, "--malignant", malignant
    )
    assert finished.code == 1
    assert sentence in finished.error
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_missing_images_are_left_out(tmp_path):
    rows = [vindr_row(number, "L", view, number % 2 == 1) for number in range(4) for view in ("CC", "MLO")]
    root = write_vindr(tmp_path / "vindr", rows)
    files = [root / "images" / row["study_id"] / f"{row['image_id']}.dicom" for row in rows]
    files[0].unlink()
    files[1].write_bytes(b"not found")
    files[2].write_bytes(files[2].read_bytes()[:150])  # the preamble and little else
    files[3].write_bytes(files[3].read_bytes()[:-5000])  # a download that broke off
    found = manifest(root, tmp_path / "masks")
    assert [row["image"] for row in found.rows] == [str(file) for file in files[4:]]
    reasons = ["is not there: download it", "is damaged", "is damaged", files[3].name]
    assert all(reason in line for reason, line in zip(reasons, found.left_out, strict=True))


def test_an_image_id_cannot_lead_elsewhere(tmp_path):
    with pytest.raises(RadllmError, match="as an image_id"):
        read(tmp_path, [one(image_id="../../secret")])


def test_a_row_says_which_box_of_which_image_is_wrong(tmp_path):
    with pytest.raises(RadllmError, match=f"{one()['image_id']}_1: .*cannot be '7'"):
        read(tmp_path, [one(finding_birads="BI-RADS 7")])


def test_the_command_says_what_it_left_out_and_lists_it(tmp_path):
    rows = [*vindr_rows(2), one(finding_birads="", **box(1, 1, 9, 9)), one(finding_birads="", **box(1, 1, 8, 8))]
    root = write_vindr(tmp_path / "vindr", rows)
    table = tmp_path / "mammo.csv"
    finished = succeed("dataset", "vindr-mammo", root, "-o", table, "--mask", "box", "--findings", "Mass")
    assert finished.output == f"4 lesions, 2 benign, 2 malignant: {table}\n"
    listed = tmp_path / "mammo-left-out.txt"
    assert finished.error.splitlines() == [f"2 left out, listed in {listed}:", "  2 × it has no BI-RADS category."]
    assert len(listed.read_text().splitlines()) == 2
    for row in read_rows(table, ("image", "mask")):
        assert row["mask_kind"] == "box"
        assert Path(row["mask"]).parent == tmp_path / "mammo-masks"
        assert Path(row["image"]).is_absolute()
    succeed("dataset", "vindr-mammo", write_vindr(root, vindr_rows(2)), "-o", table)
    assert not listed.exists()  # nothing is left out any more


def test_where_nothing_can_be_used_nothing_is_written(tmp_path):
    root = write_vindr(tmp_path / "vindr", vindr_rows(2))
    shutil.rmtree(root / "images")
    finished = radllm("dataset", "vindr-mammo", root, "-o", tmp_path / "m.csv")
    assert finished.code == 1
    assert "vindr holds no lesion that can be used" in finished.error
    assert {path.name for path in tmp_path.iterdir()} == {"vindr"}


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="the annotation layouts are not here")
def test_the_layout_of_the_published_table(tmp_path):
    root = tmp_path / "vindr"
    root.mkdir()
    shutil.copy(LAYOUT / "vindr_finding_annotations_SYNTHETIC.csv", root / "finding_annotations.csv")
    rows = read_rows(root / "finding_annotations.csv", ("image_id",))
    for row in rows:
        path = root / "images" / row["study_id"] / f"{row['image_id']}.dicom"
        write_header(path, int(row["height"]), int(row["width"]))
    found = manifest(root, tmp_path / "masks", mask="box")
    findings = [row for row in rows if row["finding_categories"] != "['No Finding']"]
    assert len(found.rows) + len(found.left_out) == len(findings)
    assert all("no BI-RADS category" in line for line in found.left_out)
    assert len(found.left_out) == sum(not row["finding_birads"] for row in findings) > 0
    first = found.rows[0]  # xmin is -3.25
    assert edges(mask_of(first)) == (0, 2481, 1417, 2782)
    assert {row["label"] for row in found.rows} == {"benign", "malignant"}
