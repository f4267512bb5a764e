"""INbreast: its semicolons, its letters, its outlines, and the masks made of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radllm_backend.datasets.birads import LabelRule
from radllm_backend.datasets.inbreast import manifest
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_rows
from Testing.support.command_line import radllm, succeed
from Testing.support.dataset_trees import (
    COLUMNS,
    ROWS,
    inbreast_image,
    inbreast_images,
    mammogram,
    seed_of,
    write_header,
    write_inbreast,
    write_outlines,
)

LAYOUT = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotation-layouts"
SQUARE = [(20.0, 30.0), (59.0, 30.0), (59.0, 89.0), (20.0, 89.0)]


def one(number=20_000_001, **changes):
    """An image with a malignant mass."""
    return {**inbreast_image(number, "6c613a14", "CC", True), **changes}


def read(tmp_path, images, **options):
    return manifest(write_inbreast(tmp_path / "inbreast", images), tmp_path / "masks", **options)


def mask_of(row) -> np.ndarray:
    return np.asarray(Image.open(row["mask"])) > 0


def test_a_tree_as_published(tmp_path):
    found = read(tmp_path, inbreast_images(6))
    assert (len(found.rows), found.left_out) == (12, [])
    assert [row["birads"] for row in found.rows[:4]] == ["3", "3", "4c", "5"]
    assert [row["label"] for row in found.rows[:4]] == ["benign", "benign", "malignant", "malignant"]
    assert len({row["patient"] for row in found.rows}) == 6  # from the files' names: the table says 'removed'
    assert {row["view"] for row in found.rows} == {"CC", "MLO"}
    for row in found.rows:
        truth = mammogram(row["label"] == "malignant", seed_of(row["lesion"].partition("_")[0]))[1]
        inside = mask_of(row)
        assert inside.shape == truth.shape
        assert inside[truth].all()  # the outline is the convex hull


@pytest.mark.parametrize(
    ("birads", "label"),
    [("3", "benign"), ("4a", "malignant"), ("4B", "malignant"), ("4c ", "malignant"), ("6", "malignant")],
)
def test_letters_and_blanks_of_birads(tmp_path, birads, label):
    assert read(tmp_path, [one(birads=birads)]).rows[0]["label"] == label


def test_a_rule_may_name_the_letters(tmp_path):
    images = [one(20_000_000 + number, birads=birads) for number, birads in enumerate(["2", "4a", "4b", ""])]
    found = read(tmp_path, images, rule=LabelRule(benign={"2", "4a"}, malignant={"4"}))
    assert [row["label"] for row in found.rows] == ["benign", "benign", "malignant"]
    assert found.left_out == ["20000003_1: it has no BI-RADS category."]


def test_a_blank_density_is_not_given(tmp_path):
    found = read(tmp_path, [one(acr="   "), one(20_000_002, acr=" 3 ")], descriptors=True)
    assert [row["descriptor_breast_density"] for row in found.rows] == ["", "heterogeneously dense"]
    assert {row["descriptor_lesion_type"] for row in found.rows} == {"mass"}
    assert not any(name.startswith("descriptor_") for name in read(tmp_path, [one()]).rows[0])


def test_commas_serve_too(tmp_path):
    root = write_inbreast(tmp_path / "inbreast", inbreast_images(2))
    table = root / "INbreast.csv"
    table.write_text(table.read_text().replace(";", ","), encoding="utf-8-sig")  # as a spreadsheet program saves it
    assert len(manifest(root, tmp_path / "masks").rows) == 4


def test_an_outline_is_filled_with_its_edge(tmp_path):
    inside = mask_of(read(tmp_path, [one(rois=[("Mass", SQUARE)])]).rows[0])
    assert inside[30:90, 20:60].all()
    assert inside.sum() == 60 * 40


def test_an_outline_that_leaves_the_image_is_clipped(tmp_path):
    beyond = [(-30.0, -30.0), (40.0, -30.0), (40.0, 50.0), (-30.0, 50.0)]
    inside = mask_of(read(tmp_path, [one(rois=[("Mass", beyond)])]).rows[0])
    assert inside[:51, :41].all()
    assert inside.sum() == 51 * 41


def test_regions_that_outline_nothing_are_left_out(tmp_path):
    far = [(COLUMNS + 10.0, 5.0), (COLUMNS + 40.0, 5.0), (COLUMNS + 40.0, 50.0)]
    flat = [(5.0, 5.0), (50.0, 5.0), (70.0, 5.0)]
    rois = [("Mass", SQUARE[:1]), ("Mass", SQUARE[:2]), ("Mass", []), ("Mass", far), ("Mass", flat), ("Mass", SQUARE)]
    found = read(tmp_path, [one(rois=rois)])
    assert [row["lesion"] for row in found.rows] == ["20000001_6"]
    reasons = [
        "has 1 points, which outline nothing",
        "has 2 points",
        "has 0 points",
        "thinner than two",
        "thinner than",
    ]
    assert all(reason in line for reason, line in zip(reasons, found.left_out, strict=True))


def test_only_some_regions_and_in_either_number(tmp_path):
    images = [one(rois=[("Mass", SQUARE), ("Calcifications", SQUARE), ("Spiculated Region", SQUARE)])]
    assert len(read(tmp_path, images).rows) == 1
    assert len(read(tmp_path, images, findings=("calcification", "MASSES"[:4])).rows) == 2
    assert len(read(tmp_path, images, findings=()).rows) == 3
    with pytest.raises(RadllmError, match="no region 'Cyst': it has Calcifications, Mass, Spiculated Region"):
        read(tmp_path, images, findings=("Cyst",))


def test_an_image_without_an_outline_file_has_no_region(tmp_path):
    assert len(read(tmp_path, [one(), one(20_000_002, rois=[])]).rows) == 1


DOCTYPE = '<!DOCTYPE plist [<!ENTITY a "aaaa">]>'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no XML",
        b"<plist><dict><key>Images</key></dict></plist>",
        b"<plist><dict><key>Pictures</key><array/></dict></plist>",
        f'<?xml version="1.0"?>{DOCTYPE}<plist><string>&a;</string></plist>'.encode(),
        b"<plist><array><integer>1</integer></array></plist>",
    ],
)
def test_a_file_that_holds_no_outlines_is_refused(tmp_path, content):
    root = write_inbreast(tmp_path / "inbreast", [one()])
    (root / "AllXML" / "20000001.xml").write_bytes(content)
    with pytest.raises(RadllmError, match="20000001.xml holds no regions as OsiriX exports them"):
        manifest(root, tmp_path / "masks")


@pytest.mark.parametrize("text", ["580, 700", "(580)", "(nan, 3)", "(1e9, 3)", "(1, 2, 3)", "(1; 2)", ""])
def test_a_point_that_is_none_is_refused(tmp_path, text):
    root = write_inbreast(tmp_path / "inbreast", [one()])
    path = root / "AllXML" / "20000001.xml"
    write_outlines(path, [("Mass", SQUARE)])
    path.write_text(path.read_text().replace("(20.000000, 30.000000)", text))
    with pytest.raises(RadllmError, match="holds no regions"):
        manifest(root, tmp_path / "masks")


def test_damaged_and_missing_images_are_left_out(tmp_path):
    images = [one(20_000_000 + number) for number in range(3)]
    root = write_inbreast(tmp_path / "inbreast", images)
    first, second, third = sorted((root / "AllDICOMs").iterdir())
    first.unlink()
    second.write_bytes(b"")
    found = manifest(root, tmp_path / "masks")
    assert [row["image"] for row in found.rows] == [str(third)]
    assert found.left_out[0] == "20000000_1: its image is not in AllDICOMs: copy it there."
    assert "is damaged, or is no DICOM image" in found.left_out[1]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: shutil.rmtree(root / "AllDICOMs"), "There is no folder AllDICOMs in inbreast"),
        (lambda root: (root / "INbreast.csv").unlink(), "There is no table INbreast.csv in inbreast: check the path"),
        (lambda root: (root / "INbreast.csv").rename(root / "INbreast.xls"), "save INbreast.xls as INbreast.csv"),
        (lambda root: (root / "INbreast.csv").write_bytes(b"\xff\xfe\x00"), "is not a UTF-8 CSV file"),
        (lambda root: (root / "INbreast.csv").write_text("View;ACR\nCC;1\n"), "no column 'Laterality': it has View"),
        (lambda root: (root / "INbreast.csv").write_text(""), "is not a UTF-8 CSV file"),
        (lambda root: spoil_name(root / "INbreast.csv"), "no image's number in the 'File Name' of image 1"),
        (lambda root: shutil.rmtree(root / "AllXML"), "no region 'Mass': it has none"),
    ],
)
def test_another_layout_is_one_sentence_and_nothing_written(tmp_path, spoil, sentence):
    root = write_inbreast(tmp_path / "inbreast", [one()])
    spoil(root)
    finished = radllm("dataset", "inbreast", root, "-o", tmp_path / "m.csv")
    assert (finished.code, finished.output) == (1, "")
    assert sentence in finished.error
    assert len(finished.error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"inbreast"}


def spoil_name(table: Path) -> None:
    table.write_text(table.read_text().replace("20000001", "20000001.0"))


def test_the_command(tmp_path):
    root = write_inbreast(tmp_path / "inbreast", [one(), one(20_000_002, birads="2"), one(20_000_003, birads="1")])
    table = tmp_path / "m.csv"
    given = ["--benign", "2,3", "--malignant", "4,5,6", "--findings", "all", "--masks", tmp_path / "elsewhere"]
    finished = succeed("dataset", "inbreast", root, "-o", table, *given, "--descriptors")
    assert finished.output == f"2 lesions, 1 benign, 1 malignant: {table}\n"
    assert "1 × BI-RADS 1 is neither benign nor malignant by the label rule." in finished.error
    rows = read_rows(table, ("descriptor_breast_density",))
    assert all(Path(row["mask"]).parent == tmp_path / "elsewhere" for row in rows)


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="the annotation layouts are not here")
def test_the_layout_of_the_published_files(tmp_path):
    root = tmp_path / "inbreast"
    (root / "AllXML").mkdir(parents=True)
    shutil.copy(LAYOUT / "INbreast_SYNTHETIC.csv", root / "INbreast.csv")
    shutil.copy(LAYOUT / "90000001_SYNTHETIC.xml", root / "AllXML" / "90000001.xml")
    write_header(root / "AllDICOMs" / "90000001_6c613a14b80a8591_MG_R_CC_ANON.dcm", 3328, 2560)
    found = manifest(root, tmp_path / "masks", findings=(), descriptors=True)
    assert [row["label"] for row in found.rows] == ["malignant"] * len(found.rows)
    assert found.rows[0]["finding"] == "Mass"
    assert found.rows[0]["descriptor_breast_density"] == "scattered areas of fibroglandular density"
    assert found.rows[0]["patient"] == "6c613a14b80a8591"
    assert len(found.rows) + len(found.left_out) == 3
    assert any("points, which outline nothing" in line for line in found.left_out)
    assert mask_of(found.rows[0]).shape == (3328, 2560)
    assert (ROWS, COLUMNS) != (3328, 2560)
