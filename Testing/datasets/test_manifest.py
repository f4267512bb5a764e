"""A user's own manifest, checked before the images are read; BrEaST's; and an extraction that survives."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("radiomics")

from radllm_backend.datasets import manifest as manifests
from radllm_backend.datasets.breast_us import manifest
from radllm_backend.datasets.manifest import check_manifest, extract_manifest, extract_usable
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.table import read_rows
from Testing.support.command_line import radllm, succeed
from Testing.support.dataset_trees import breast_us_case, breast_us_cases, write_breast_us

BREAST_US = Path(__file__).resolve().parents[3] / "shared" / "data" / "breast-us"


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(tmp_path) -> list[dict[str, str]]:
    """Two lesions of one's own, with paths relative to the manifest."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "a_mask.png", "b.png", "b_mask.png"):
        (tmp_path / "images" / name).write_bytes(b"not looked into")
    labels = {"a": "benign", "b": "malignant"}
    return [
        {
            "lesion": name,
            "image": f"images/{name}.png",
            "mask": f"images/../images/{name}_mask.png",
            "mask_label": "1",
            "spacing_mm": "0.07;0.08",
            "modality": "MG",
            "label": label,
            "patient": f"patient {name}",
            "descriptor_mass_shape": "OVAL",
            "scanner": "",
        }
        for name, label in labels.items()
    ]


def test_a_good_one_is_written_with_absolute_paths_and_all_its_columns(rows, tmp_path):
    source = write(tmp_path / "mine.csv", rows)
    out = tmp_path / "out.csv"
    finished = succeed("dataset", "manifest", source, "-o", out)
    assert (finished.output, finished.error) == (f"2 lesions, 1 benign, 1 malignant: {out}\n", "")
    written = read_rows(out, ("image",))
    assert written[0]["mask"] == str(tmp_path / "images" / "a_mask.png")
    files = ("image", "mask")
    assert [{name: row[name] for name in row if name not in files} for row in written] == [
        {name: row[name] for name in row if name not in files} for row in rows
    ]


def test_neither_labels_nor_patients_are_needed(rows, tmp_path):
    bare = [{name: row[name] for name in ("image", "mask")} for row in rows]
    assert len(check_manifest(write(tmp_path / "mine.csv", bare))) == 2
    with pytest.raises(RadllmError, match="no column 'truth'"):
        check_manifest(tmp_path / "mine.csv", target="truth")
    with pytest.raises(RadllmError, match="no column 'subject'"):
        check_manifest(tmp_path / "mine.csv", group="subject")


def test_the_truth_may_have_another_name(rows, tmp_path):
    others = [{**row, "label": "Li-Fraumeni", "truth": str(number)} for number, row in enumerate(rows)]
    source = write(tmp_path / "mine.csv", others)
    assert len(check_manifest(source, target="truth")) == 2
    with pytest.raises(RadllmError, match="'Li-Fraumeni' as 'label' in line 2"):
        check_manifest(source)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": "images/c.png"}, "Line 3 of mine.csv: its image 'images/c.png' is not there"),
        ({"mask": ""}, "Line 3 of mine.csv: its mask '' is not there"),
        ({"mask_label": "-1"}, "mask_label is '-1'"),
        ({"mask_label": "¹"}, "mask_label is '¹'"),
        ({"spacing_mm": "wide"}, "The spacing 'wide' is not one"),
        ({"modality": "XR"}, "the modality 'XR' is not known: use one of MG, US, CT, MR"),
        ({"label": "perhaps"}, "'perhaps' as 'label' in line 3: use benign and malignant, or 0 and 1"),
        ({"label": ""}, "an empty 'label' in line 3"),
        ({"label": "benign"}, "have the same 'label'"),
        ({"patient": ""}, "an empty 'patient' in line 3"),
        ({"lesion": "a"}, "Line 2 of mine.csv (and 1 more): the lesion 'a' has no name of its own"),
        ({"lesion": ""}, "Line 3 of mine.csv: the lesion '' has no name of its own"),
        ({"descriptor_mass_shape": "blob"}, "'descriptor_mass_shape' cannot be 'blob'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(rows, tmp_path, change, sentence):
    source = write(tmp_path / "mine.csv", [rows[0], {**rows[1], **change}])
    finished = radllm("dataset", "manifest", source, "-o", tmp_path / "out.csv")
    assert (finished.code, finished.output) == (1, "")
    assert sentence in finished.error
    assert len(finished.error.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("Spacing mm", "a column 'Spacing mm': call it 'spacing_mm'"),
        ("Modality", "a column 'Modality': call it 'modality'"),
        ("original_glcm_MCC", "'original_glcm_MCC', which radllm extract writes: leave it out"),
        ("extraction", "'extraction', which radllm extract writes"),
        ("descriptor_colour", "no descriptor 'colour'"),
    ],
)
def test_a_column_that_would_be_misread_is_refused(rows, tmp_path, column, sentence):
    bare = [{"image": row["image"], "mask": row["mask"], column: "MG"} for row in rows]
    with pytest.raises(RadllmError, match="mine.csv") as raised:
        check_manifest(write(tmp_path / "mine.csv", bare))
    assert sentence in str(raised.value)


# --- BrEaST ---------------------------------------------------------------------------------------------------------


def test_breast_us_has_descriptors_only_where_they_are_wanted(tmp_path):
    root = write_breast_us(tmp_path / "breast-us", breast_us_cases(2))
    table = tmp_path / "m.csv"
    succeed("dataset", "breast-us", root, "-o", table)
    assert not any(name.startswith("descriptor_") for name in read_rows(table, ())[0])
    succeed("dataset", "breast-us", root, "-o", table, "--descriptors")
    second = read_rows(table, ())[1]
    assert {name: cell for name, cell in second.items() if name.startswith("descriptor_")} == {
        "descriptor_mass_shape": "irregular",
        "descriptor_mass_margins": "not circumscribed and indistinct and angular",
        "descriptor_echogenicity": "complex cystic and solid",
        "descriptor_posterior_features": "combined pattern",
        "descriptor_halo": "present",
        "descriptor_ultrasound_calcifications": "in a mass",
        "descriptor_skin_thickening": "absent",
        "descriptor_tissue_composition": "homogeneous fibroglandular and lactating",
    }
    succeed("dataset", "breast-us", root, "-o", table, "--assessment")
    assert read_rows(table, ())[1]["descriptor_birads_assessment"] == "4c"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Shape": "blob"}, "Case 3 of cases.csv: 'descriptor_mass_shape' cannot be 'blob'"),
        ({"Pixel_size": "small"}, "'small' as Pixel_size of case 3"),
        ({"Image_filename": "elsewhere.png"}, "which is not in the folder images"),
    ],
)
def test_breast_us_with_something_wrong(tmp_path, change, sentence):
    root = write_breast_us(tmp_path / "breast-us", [breast_us_case(1, True), breast_us_case(3, False)])
    table = root / "cases.csv"
    write(table, [breast_us_case(1, True), {**breast_us_case(3, False), **change}])
    finished = radllm("dataset", "breast-us", root, "-o", tmp_path / "m.csv", "--descriptors")
    assert finished.code == 1
    assert sentence in finished.error


def test_an_image_without_a_lesion_is_no_lesion(tmp_path):
    normal = {**breast_us_case(2, False), "Classification": "normal", "Mask_tumor_filename": ""}
    assert len(manifest(write_breast_us(tmp_path / "breast-us", [breast_us_case(1, True), normal]))) == 1


@pytest.mark.skipif(not BREAST_US.is_dir(), reason="the images of BrEaST are not here")
def test_every_descriptor_of_breast_us_fits_its_vocabulary():
    found = manifest(BREAST_US, descriptors=True, assessment=True)
    assert len(found) == 176
    assert Counter(row["descriptor_tissue_composition"] for row in found)[""] == 40
    unknown = ("descriptor_tissue_composition",)
    assert all(cell for row in found for name, cell in row.items() if name not in unknown)


# --- extraction -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A manifest of four lesions, the third with a mask that marks nothing."""
    root = write_breast_us(tmp_path_factory.mktemp("tree"), breast_us_cases(4))
    (root / "images" / "case003_tumor.png").write_bytes(b"no picture")
    return write(root / "m.csv", manifest(root))


def test_an_extraction_that_keeps_goes_past_what_it_cannot_read(tree, tmp_path):
    settings = load_settings("breast-ultrasound")
    with pytest.raises(RadllmError, match="Line 4 of m.csv: case003_tumor.png"):
        extract_manifest(tree, settings)
    seen = []
    extracted, left_out = extract_usable(tree, settings, tmp_path / "kept", lambda *done: seen.append(done))
    assert [others["lesion"] for others, _ in extracted] == ["case001", "case002", "case004"]
    assert len(left_out) == 1
    assert left_out[0].startswith("case003: case003_tumor.png")
    assert seen == [("Extracting features", done / 4) for done in (1, 2, 3, 4)]


def test_what_was_extracted_is_not_extracted_again(tree, tmp_path, monkeypatch):
    settings = load_settings("breast-ultrasound")
    first, _ = extract_usable(tree, settings, tmp_path, None)
    damaged = sorted(tmp_path.iterdir())[0]
    damaged.write_text("{}")
    extracted = []
    original = manifests.extract
    monkeypatch.setattr(manifests, "extract", lambda *given: extracted.append(1) or original(*given))
    again, _ = extract_usable(tree, settings, tmp_path, None)
    assert again == first
    assert len(extracted) == 1  # the damaged one
    extract_usable(tree, load_settings("mammography"), tmp_path, None)
    assert len(extracted) == 4  # other settings


def test_a_changed_mask_is_extracted_again(tmp_path):
    from PIL import Image, ImageOps

    root = write_breast_us(tmp_path / "tree", breast_us_cases(1))
    table = write(root / "m.csv", manifest(root))
    settings = load_settings("breast-ultrasound")
    ((_, before),) = extract_usable(table, settings, tmp_path / "kept")[0]
    mask = root / "images" / "case001_tumor.png"
    ImageOps.mirror(Image.open(mask)).save(mask)
    ((_, after),) = extract_usable(table, settings, tmp_path / "kept")[0]
    assert before != after
