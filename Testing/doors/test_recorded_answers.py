"""What the software answers is what it answered when `recorded` was last told to record it.

Everything comes through the doors that users have, the command line and a server's socket, so that these tests stay as
they are while files inside are moved, split and renamed.

On another processor, or with other packages, sums are rounded otherwise: measured features agree to 1e-9 there. What
the language model read in 32 bits, and so every probability, agrees to 1e-3. What is learned turns on single roundings
(a split of a tree, an epoch more), so that an evaluation is compared on the recorder's own arithmetic alone.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from Testing.doors.recorded import check, same_arithmetic, table_of, without
from Testing.support.command_line import radllm, succeed

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
TABLES = RESOURCES / "TrainingTables"
SAMPLES = ("oval", "spiculated")
ULTRASOUND = ("--modality", "US", "--spacing", "0.08")
DESCRIBED = {
    "benign": ("lesion_type=mass", "mass_shape=oval", "mass_margins=circumscribed", "breast_density=extremely dense"),
    "malignant": ("lesion_type=mass", "mass_shape=irregular", "mass_margins=spiculated", "subtlety=5"),
}
READ, MEASURED = 1e-3, 1e-9
"""How far numbers may be off elsewhere: those that the language model has a part in, and features."""
TOKEN = "0123456789abcdef" * 3
STANDARD_OR_OURS = "1.2.840."
"""What a UID begins with that is not made up anew each time: of the standard, and of the image in these tests."""
NAMING_VERSIONS = ("versions", "SoftwareVersions", "DeviceSerialNumber", "CodingSchemeVersion")
"""Of JSON and of DICOM: they change while the answers stay."""


def sample(name: str) -> tuple[Path, Path]:
    folder = RESOURCES / "SampleLesions"
    return folder / f"{name}.png", folder / f"{name}_mask.png"


def cut(name: str, path: Path, count: int, features: int | None = None) -> Path:
    """Rows of a training table, evenly spread, and of its measured features all or a few, evenly spread too."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    measured = [column for column, title in enumerate(heading) if title.startswith("original_")]
    kept = [measured[len(measured) * number // features] for number in range(features)] if features else measured
    columns = [column for column in range(len(heading)) if column not in measured or column in kept]
    chosen = [rows[len(rows) * number // count] for number in range(count)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([row[column] for column in columns] for row in [heading, *chosen])
    return path


def prediction_in(folder: Path) -> Any:
    return without(json.loads((folder / "prediction.json").read_text(encoding="utf-8")), *NAMING_VERSIONS)


def test_features_of_the_samples(tmp_path: Path) -> None:
    answers = {}
    for name in SAMPLES:
        table = tmp_path / f"{name}.csv"
        succeed("extract", *sample(name), *ULTRASOUND, "--settings", "breast-ultrasound", "-o", table)
        answers[name] = table_of(table)
    check("features", answers, elsewhere=MEASURED)


@pytest.mark.usefixtures("smollm2")
def test_predictions_of_the_samples(tmp_path: Path) -> None:
    answers = {}
    for name in SAMPLES:
        succeed("classify", *sample(name), *ULTRASOUND, "--model", "breast-us", "-o", tmp_path / name)
        answers[name] = prediction_in(tmp_path / name)
    check("breast-us", answers, elsewhere=READ)


@pytest.mark.usefixtures("smollm2")
def test_predictions_of_descriptions(tmp_path: Path) -> None:
    """The other model reads words only: it says what it wants of an image, and judges two descriptions."""
    refused = radllm("classify", *sample("oval"), *ULTRASOUND, "--model", "mammo-descriptors", "-o", tmp_path / "no")
    answers: dict[str, Any] = {"of an image": [refused.code, refused.error]}
    for name, words in DESCRIBED.items():
        succeed("describe", *words, "--model", "mammo-descriptors", "-o", tmp_path / name)
        answers[name] = prediction_in(tmp_path / name)
    check("mammo-descriptors", answers, elsewhere=READ)


@pytest.mark.usefixtures("smollm2")
def test_rows_of_the_training_tables(tmp_path: Path) -> None:
    """Both models are given each table; where one cannot read it, its refusal is the answer."""
    answers: dict[str, Any] = {}
    for table in ("breast-us", "breast-us-descriptors", "mammo-descriptors"):
        rows = cut(table, tmp_path / f"{table}.csv", 20)
        for model in ("breast-us", "mammo-descriptors"):
            output = tmp_path / f"{table} by {model}.csv"
            ended = radllm("predict", model, rows, "-o", output)
            answers[output.stem] = table_of(output) if ended.code == 0 else [ended.code, ended.error]
    check("tables", answers, elsewhere=READ)


# --- DICOM ----------------------------------------------------------------------------------------------------------


def ultrasound(path: Path) -> Path:
    """The spiculated sample as a scanner would have stored it, with the pixel size that it has."""
    from PIL import Image
    from pydicom.uid import UltrasoundImageStorage

    from Testing.support.dicom_writing import write_dicom

    about: dict[str, Any] = {
        "Modality": "US",
        "PixelSpacing": [0.08, 0.08],
        "PatientOrientation": None,
        "StudyInstanceUID": "1.2.840.1",
        "SeriesInstanceUID": "1.2.840.2",
    }
    pixels = np.array(Image.open(sample("spiculated")[0]).convert("L"))
    return write_dicom(path, pixels, sop_class=UltrasoundImageStorage, **about)


def plain(dataset: Any, seen: dict[str, str]) -> dict[str, Any]:
    """A DICOM file's elements but pixels, dates, times and versions; made-up UIDs are numbered as they come."""
    return {
        element.keyword: plain_value(element, seen)
        for element in dataset
        if element.VR not in ("DA", "TM", "DT", "OB", "OW") and element.keyword not in NAMING_VERSIONS
    }


def plain_value(element: Any, seen: dict[str, str]) -> Any:
    if element.VR == "SQ":
        return [plain(item, seen) for item in element.value]
    if element.VR == "UI":
        uid = str(element.value)
        known = uid.startswith(STANDARD_OR_OURS) or element.keyword == "TrackingUID"
        return uid if known else seen.setdefault(uid, f"UID {len(seen) + 1}")
    several = element.value if element.VM > 1 else [element.value]
    values = [value if isinstance(value, int | None) else number_or_text(element.VR, value) for value in several]
    return values if element.VM > 1 else values[0]


def number_or_text(kind: str, value: Any) -> float | str:
    """Of the text that names the program with its version, the program."""
    text = str(value)
    return float(value) if kind in ("DS", "FD", "FL") else re.sub(r"^(radllm-backend) [0-9].*", r"\1", text)


@pytest.mark.usefixtures("smollm2")
def test_the_dicom_export(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    import pydicom

    image = ultrasound(tmp_path / "image.dcm")
    output = tmp_path / "report"
    succeed("classify", image, sample("spiculated")[1], "--model", "breast-us", "--dicom", "-o", output)
    segmentation, report = (pydicom.dcmread(output / f"{name}.dcm") for name in ("segmentation", "report"))
    pixels, seen = segmentation.pixel_array, dict[str, str]()
    answers = {
        "pixels": [list(pixels.shape), int(pixels.sum()), hashlib.sha256(pixels.tobytes()).hexdigest()],
        "segmentation": plain(segmentation, seen),
        "report": plain(report, seen),
    }
    check("dicom", answers, elsewhere=READ)


# --- a server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """The port of ``radllm serve`` with both models."""
    command = [sys.executable, "-m", "radllm_backend", "serve", "--model", "breast-us", "--model", "mammo-descriptors"]
    environment = {**os.environ, "RADLLM_TOKEN": TOKEN, "XDG_RUNTIME_DIR": str(tmp_path)}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            yield int(json.loads(line)["url"].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(60)


def ask(port: int, method: str, path: str, body: Any = None) -> list[Any]:
    """Status and answer of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return [response.status, without(json.loads(response.read()), *NAMING_VERSIONS)]
    finally:
        connection.close()


def lesions_of(table: Path) -> list[dict[str, Any]]:
    """The measured features of each row, as a client sends them."""
    heading, *rows = table_of(table)
    return [
        {"values": {str(title): value for title, value in zip(heading, row, strict=True) if "original_" in str(title)}}
        for row in rows
    ]


@pytest.mark.usefixtures("smollm2")
def test_a_servers_answers(served: int, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    four = lesions_of(cut("breast-us", tmp_path / "rows.csv", 4))
    words = [{"values": {}, "descriptors": dict(word.split("=") for word in DESCRIBED["malignant"])}]
    unknown = [{"values": {"original_glcm_Charm": 1.0}}]
    explained = {"model": "breast-us", "lesions": four[:1], "confidence": 0.9}
    answers = {
        "GET /health": ask(served, "GET", "/health"),
        "GET /models": ask(served, "GET", "/models"),
        "POST /predict": ask(served, "POST", "/predict", {"model": "breast-us", "lesions": four}),
        "POST /predict of words": ask(served, "POST", "/predict", {"model": "mammo-descriptors", "lesions": words}),
        "POST /explain": ask(served, "POST", "/explain", explained),
        "POST /predict refused": ask(served, "POST", "/predict", {"model": "breast-us", "lesions": unknown}),
    }
    check("server", answers, elsewhere=READ)


# --- an evaluation --------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.usefixtures("lean")
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_an_evaluation(tiny_base: Path, tmp_path: Path, fresh_cache: Path) -> None:
    """Every family of models on the tiny base model; what they took and where is left out."""
    if not same_arithmetic("evaluation"):
        pytest.skip("what is learned turns on single roundings: recorded on another processor or with other packages")
    table, output = cut("breast-us", tmp_path / "lesions.csv", 32, features=8), tmp_path / "evaluation"
    columns = ("--target", "label", "--group", "patient", "--base-model", tiny_base)
    few = ("--folds", 2, "--inner-folds", 2, "--seeds", 1, "--features", 3, "--epochs", 1, "--learning-rate", 0.01)
    succeed("evaluate", table, *columns, *few, "-o", output)
    content = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    scorecard = without(content, *NAMING_VERSIONS, "hardware", "command", "started", "seconds")
    check("evaluation", {"scorecard": scorecard, "out_of_fold": table_of(output / "out_of_fold.csv")}, elsewhere=READ)
