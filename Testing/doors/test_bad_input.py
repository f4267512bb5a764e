"""Everything that can be wrong: one sentence, a non-zero exit, no traceback, nothing written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from Testing.support.command_line import radllm

pytest.importorskip("torch")
pytest.importorskip("radiomics")


@pytest.fixture(scope="session")
def spoiled(
    phantom_folder: Path, phantom_table: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of files, each wrong in its own way, beside good ones."""
    folder = tmp_path_factory.mktemp("spoiled")
    shutil.copy(phantom_folder / "0.png", folder / "image.png")
    shutil.copy(phantom_folder / "0_mask.png", folder / "mask.png")
    shutil.copy(phantom_table, folder / "table.csv")
    _masks(folder)
    _images(folder)
    _tables(folder)
    for name in ("pickled", "changed", "no-card"):
        shutil.copytree(tiny_model, folder / name)
    (folder / "pickled" / "head.pkl").write_bytes(b"\x80\x04.")
    (folder / "changed" / "README.md").write_text("Better than it is.")
    (folder / "no-card" / "model.json").unlink()
    (folder / "settings.yaml").write_text("featureClass: {colour: []}")
    return folder


def _masks(folder: Path) -> None:
    whole = np.asarray(Image.open(folder / "mask.png"))
    Image.fromarray(np.zeros_like(whole)).save(folder / "empty.png")
    one = np.zeros_like(whole)
    one[50, 50] = 255
    Image.fromarray(one).save(folder / "one.png")
    line = np.zeros_like(whole)
    line[50, 20:60] = 255
    Image.fromarray(line).save(folder / "line.png")
    two = (whole > 0).astype(np.uint8)
    two[:5, :5] = 2
    Image.fromarray(two).save(folder / "two.png")
    Image.fromarray(whole[:-10]).save(folder / "small.png")
    Image.fromarray(whole).save(folder / "lossy.jpg")
    volume = sitk.GetImageFromArray(np.ones((4, 160, 200), np.uint8))
    sitk.WriteImage(volume, str(folder / "volume.nrrd"))
    half = sitk.GetImageFromArray((whole > 0) * np.float32(0.5))
    sitk.WriteImage(half, str(folder / "half.nrrd"))
    segments = sitk.GetImageFromArray((whole > 0).astype(np.uint8))
    for key, value in {"ID": "Segment_1", "Name": "Lesion", "LabelValue": "1", "Layer": "0"}.items():
        segments.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(segments, str(folder / "lesion.seg.nrrd"))


def _images(folder: Path) -> None:
    pixels = np.asarray(Image.open(folder / "image.png")).astype(np.float32)
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        bad = pixels.copy()
        bad[3, 3] = value
        sitk.WriteImage(sitk.GetImageFromArray(bad), str(folder / f"{name}.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.full_like(pixels, 7)), str(folder / "flat.nrrd"))
    four = sitk.JoinSeries([sitk.JoinSeries([sitk.GetImageFromArray(pixels)] * 2)] * 2)
    sitk.WriteImage(four, str(folder / "four.nrrd"))
    (folder / "text.png").write_text("This is no image.")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "report.docx").write_bytes(b"PK")
    (folder / "cut.png").write_bytes((folder / "image.png").read_bytes()[:2000])
    (folder / "empty-folder").mkdir()


def _tables(folder: Path) -> None:
    lines = (folder / "table.csv").read_text().splitlines()
    heading, first = lines[0].split(","), lines[1]
    tables = {
        "no-rows": lines[:1],
        "ragged": [*lines[:2], "1,2,3"],
        "words": [lines[0], first.replace(",0.", ",a lot of ", 1)],
        "twice": [lines[0].replace(heading[4], heading[3]), *lines[1:]],
        "no-features": ["lesion,label,patient", "1,benign,a", "2,malignant,b"],
        "one-class": [line for line in lines if ",malignant," not in line],
        "other-label": [line.replace(",malignant,", ",perhaps,") for line in lines],
        "no-patient": [line.replace(",patient4,", ",,") for line in lines],
        "few": lines[:7],
        "other-preset": [
            line.replace('""preset"":""breast-ultrasound""', '""preset"":""mammography""') for line in lines
        ],
        "broken-provenance": [line.replace('""voxels"":', '""voxel"":') for line in lines],
        "infinite": [lines[0], first.replace(",0.", ",inf", 1)],
    }
    for name, content in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(content) + "\n")
    (folder / "binary.csv").write_bytes(bytes(range(256)))
    (folder / "lacking.csv").write_text("original_glcm_MCC\n0.5\n")
    (folder / "manifest.csv").write_text("image,mask\nimage.png,empty.png\n")
    (folder / "no-mask.csv").write_text("image,label\nimage.png,benign\n")


CLASSIFY = "classify {image} {mask} --model MODEL --base-model BASE -o OUT"


def classify(image: str = "image.png", mask: str = "mask.png", more: str = "", model: str = "MODEL") -> str:
    return f"classify IN/{image} IN/{mask} --model {model} --base-model BASE -o OUT {more}"


def train(table: str, more: str = "--folds 2") -> str:
    return f"train IN/{table} --target label --group patient --base-model BASE -o OUT {more}"


CASES = {
    "missing image": (classify("nowhere.png"), "nowhere.png"),
    "a descriptor that is not read": (classify(more="--descriptor mass_shape=oval"), "does not read mass_shape"),
    "missing mask": (classify(mask="nowhere.png"), "nowhere.png"),
    "text as image": (classify("text.png"), "text.png"),
    "cut image": (classify("cut.png"), "cut.png"),
    "empty DICOM": (classify("empty.dcm"), "empty.dcm"),
    "a document": (classify("report.docx"), "report.docx"),
    "empty folder": (classify("empty-folder"), "empty-folder"),
    "NaN image": (classify("nan.nrrd"), "nan.nrrd"),
    "infinite image": (classify("infinite.nrrd"), "infinite.nrrd"),
    "constant image": (classify("flat.nrrd"), "flat.nrrd"),
    "4D image": (classify("four.nrrd"), "four.nrrd"),
    "empty mask": (classify(mask="empty.png"), "empty.png"),
    "one-voxel mask": (classify(mask="one.png"), "one.png"),
    "line mask": (classify(mask="line.png"), "line.png"),
    "two labels": (classify(mask="two.png"), "1, 2|1 and 2"),
    "absent label": (classify(mask="two.png", more="--label 9"), "9"),
    "other size": (classify(mask="small.png"), "190"),
    "lossy mask": (classify(mask="lossy.jpg"), "lossy.jpg"),
    "3D mask on 2D image": (classify(mask="volume.nrrd"), "3D"),
    "fractional mask": (classify(mask="half.nrrd"), "half.nrrd"),
    "absent segment": (classify(mask="lesion.seg.nrrd", more="--segment Cyst"), "Cyst"),
    "bad spacing": (classify(more="--spacing wide"), "wide"),
    "negative spacing": (classify(more="--spacing=-1"), "-1"),
    "unknown modality": (classify(more="--modality XR"), "XR"),
    "unknown model": (classify(model="nothing"), "nothing"),
    "model without card": (classify(model="IN/no-card"), "model.json"),
    "model with pickle": (classify(model="IN/pickled"), "head.pkl"),
    "changed model": (classify(model="IN/changed"), "README.md"),
    "unknown base model": (
        "classify IN/image.png IN/mask.png --model MODEL --base-model nowhere/else -o OUT",
        "radllm models pull nowhere/else",
    ),
    "output in nowhere": ("classify IN/image.png IN/mask.png --model MODEL -o OUT/deep/down", "does not exist"),
    "output is a file": ("classify IN/image.png IN/mask.png --model MODEL -o IN/mask.png", "is a file"),
    "no such table": ("predict MODEL IN/nowhere.csv --base-model BASE -o OUT", "nowhere.csv"),
    "table without rows": ("predict MODEL IN/no-rows.csv --base-model BASE -o OUT", "no-rows.csv"),
    "ragged table": ("predict MODEL IN/ragged.csv --base-model BASE -o OUT", "line 3"),
    "words in a table": ("predict MODEL IN/words.csv --base-model BASE -o OUT", "a lot of"),
    "infinity in a table": ("predict MODEL IN/infinite.csv --base-model BASE -o OUT", "line 2"),
    "column twice": ("predict MODEL IN/twice.csv --base-model BASE -o OUT", "two columns"),
    "no feature column": ("predict MODEL IN/no-features.csv --base-model BASE -o OUT", "no column with a PyRadiomics"),
    "lacking features": ("predict MODEL IN/lacking.csv --base-model BASE -o OUT", "lacks"),
    "binary table": ("predict MODEL IN/binary.csv --base-model BASE -o OUT", "binary.csv"),
    "broken provenance": ("predict MODEL IN/broken-provenance.csv --base-model BASE -o OUT", "line 2"),
    "output is a folder": ("predict MODEL IN/table.csv --base-model BASE -o IN/empty-folder", "is a folder"),
    "output is the table": ("predict MODEL IN/table.csv --base-model BASE -o IN/table.csv", "what is to be read"),
    "output is the image": ("extract IN/image.png IN/mask.png --settings mammography -o IN/image.png", "to be read"),
    "output is the manifest": (
        "extract --manifest IN/manifest.csv --settings mammography -o IN/manifest.csv",
        "what is to be read",
    ),
    "one class": (train("one-class.csv"), "both classes"),
    "other label": (train("other-label.csv"), "perhaps"),
    "no target column": ("train IN/table.csv --target truth --group patient --base-model BASE -o OUT", "truth"),
    "empty patient": (train("no-patient.csv"), "empty 'patient' in line 6"),
    "too few lesions": (train("few.csv"), "at least"),
    "other preset": (train("other-preset.csv"), "not extracted with the settings"),
    "one fold": (train("table.csv", "--folds 1"), "at least 2 folds"),
    "no epochs": (train("table.csv", "--epochs 0"), "epochs"),
    "unknown descriptor": (train("table.csv", "--by mass_shape"), "no descriptor 'mass_shape'"),
    "too many features": (train("table.csv", "--features 150"), "usable features"),
    "model folder in use": ("train IN/table.csv --target label --group patient --base-model BASE -o IN", "exists"),
    "unknown preset": ("extract IN/image.png IN/mask.png --settings us -o OUT", "breast-ultrasound"),
    "bad settings": ("extract IN/image.png IN/mask.png --settings IN/settings.yaml -o OUT", "refuses these settings"),
    "preset for 3D": ("extract IN/image.png IN/mask.png --settings ct -o OUT", "2D"),
    "bad manifest row": ("extract --manifest IN/manifest.csv --settings mammography -o OUT", "Line 2 of manifest.csv"),
    "manifest without masks": ("extract --manifest IN/no-mask.csv --settings mammography -o OUT", "no column 'mask'"),
    "nothing to extract": ("extract --settings mammography -o OUT", "--manifest"),
    "a data set elsewhere": ("dataset breast-us IN/empty-folder -o OUT", "cases.csv"),
    "unknown option": ("classify IN/image.png IN/mask.png --colour -o OUT", "--colour"),
    "no output": ("classify IN/image.png IN/mask.png", "--output"),
    "unknown command": ("clasify", "clasify"),
    "base model never heard of": ("models pull gpt", "gpt"),
    "verify what is not there": ("models verify IN/empty-folder", "config.json"),
    "remove a folder": ("models remove IN/empty-folder", "never deletes"),
}


@pytest.mark.parametrize(("command", "words"), CASES.values(), ids=CASES.keys())
def test_bad_input(command, words, spoiled, tiny_model, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    before = sorted(spoiled.rglob("*"))
    places = {"IN": spoiled, "OUT": tmp_path / "out", "MODEL": tiny_model, "BASE": tiny_base}
    arguments = [
        re.sub(r"\b(IN|OUT|MODEL|BASE)\b", lambda found: str(places[found[0]]), word) for word in command.split()
    ]
    finished = radllm(*arguments)
    assert finished.code not in (0, None)
    assert finished.output == ""
    lines = finished.error.splitlines()
    assert len(lines) == 1, finished.error
    assert re.fullmatch(r"radllm: .{20,}[.!?]", lines[0]), lines[0]
    assert "Traceback" not in lines[0]
    assert re.search(words, lines[0]), lines[0]
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "out.training"}
    assert sorted(spoiled.rglob("*")) == before


def test_what_the_card_cannot_report_by_is_refused_before_the_hours(spoiled, tiny_base, tmp_path):
    table = (spoiled / "table.csv", "--target", "label", "--group", "patient", "--base-model", tiny_base)
    assert radllm("train", *table, "--by", "mass_shape", "-o", tmp_path / "model").code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_training_leaves_no_model_and_no_work_without_a_result(spoiled, tiny_base, tmp_path):
    radllm(*["train"], spoiled / "few.csv", "--target", "label", "--group", "patient",
           "--base-model", tiny_base, "-o", tmp_path / "model")  # fmt: skip
    assert not (tmp_path / "model").exists()


def test_ctrl_c_is_one_sentence(monkeypatch):
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("radllm_backend.cli.doctor.examine", stopped)
    finished = radllm("doctor")
    assert (finished.code, finished.output, finished.error) == (130, "", "radllm: Stopped.\n")


def test_there_are_more_than_thirty():
    assert len(CASES) >= 30
