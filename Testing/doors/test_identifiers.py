"""Whose lesion it is stays where it was: marked values in a header and a path are sought in all that comes out."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("highdicom")

import SimpleITK as sitk
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from radllm_backend import Lesion, Model, extract
from radllm_backend.reports.files import FORMATS, write_reports
from radllm_backend.server.client import Client
from Testing.support.command_line import succeed
from Testing.support.dicom_writing import write_dicom

MARK = "MARKED"
DATE = "19510203"
"""Nobody else's date of birth."""
SIDE = 64
TEXTS = {"AE", "LO", "LT", "PN", "SH", "ST", "UT"}
# What decides how the pixels are read cannot be marked.
READ = {"SpecificCharacterSet", "TransferSyntaxUID", "Modality", "PhotometricInterpretation", "ImageType"}
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def marked_texts() -> dict[str, str]:
    """Every text that groups 0008, 0010, 0018, 0020, 0032, 0040 and 4008 of the standard can hold."""
    groups = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0040, 0x4008)
    found = {}
    for tag in (element for element in pydicom.datadict.DicomDictionary if element >> 16 in groups):
        keyword = keyword_for_tag(tag)
        if keyword and keyword not in READ and dictionary_VR(tag) in TEXTS:
            found[keyword] = f"{MARK}^{keyword}"[:16]
    return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mammogram with its mask, in a folder and with file names that name the patient too."""
    folder = tmp_path_factory.mktemp(f"{MARK}-folder")
    stored = np.random.default_rng(0).integers(0, 250, (SIDE, SIDE)).astype(np.uint16)
    texts = marked_texts()
    assert len(texts) > 150
    assert {"PatientName", "PatientID", "OtherPatientNames", "PatientAddress", "StudyDescription"} <= texts.keys()
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = f"{MARK}-other", "TEXT"
    elements = {
        **texts,
        **dict.fromkeys(DATES, DATE),
        "OtherPatientIDsSequence": [other],
        "StudyInstanceUID": "1.2.840.1",
        "ImagerPixelSpacing": [0.07, 0.07],
        "PatientSex": "F",
        "PatientOrientation": ["A", "F"],
    }
    image = write_dicom(folder / f"{MARK}.dcm", stored, **elements)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 12:44] = 1
    segment = sitk.GetImageFromArray(mask)
    segment.SetSpacing((0.07, 0.07))
    for key, value in {"ID": "Segment_1", "Name": MARK, "LabelValue": "1", "Layer": "0"}.items():
        segment.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(segment, str(folder / f"{MARK}.seg.nrrd"))
    return image, folder / f"{MARK}.seg.nrrd"


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each file as it is, and what is packed inside it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".pdf":
            pdf = pytest.importorskip("pypdfium2").PdfDocument(path)
            yield path.name, "".join(page.get_textpage().get_text_bounded() for page in pdf).encode()
            yield path.name, str(pdf.get_metadata_dict()).encode()


def assert_nobody(name: str, content: bytes) -> None:
    for mark in (MARK, MARK.lower(), DATE, "1951-02-03"):
        for form in (mark.encode(), mark.encode("utf-16-le"), mark.encode("utf-16-be")):
            assert form not in content, f"{mark} in {name}"


def test_no_export_and_no_log_names_the_patient(case, tiny_model, tiny_base, fresh_cache, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    given = ["--model", tiny_model, "--base-model", tiny_base, "--resample", "--dicom"]
    finished = succeed("classify", *case, *given, "--stability", "-o", tmp_path / "out")
    names = {name for name, _ in everything_in(tmp_path / "out")}
    assert names == {
        "prediction.json", "features.csv", "report.html", "report.pdf", "key-image.png",
        "segmentation.dcm", "report.dcm",
    }  # fmt: skip
    for name, content in everything_in(tmp_path / "out"):
        assert_nobody(name, content)
    for stream in (finished.output, finished.error, caplog.text):
        assert_nobody("what was printed", stream.encode())
    named = succeed("classify", *case, *given, "--identifiers", "-o", tmp_path / "named")
    assert pydicom.dcmread(tmp_path / "named" / "report.dcm").PatientName == f"{MARK}^PatientNa"
    assert_nobody("what was printed", (named.output + named.error).encode())
    for name in ("prediction.json", "features.csv"):
        assert_nobody(name, (tmp_path / "named" / name).read_bytes())


def test_nor_does_any_other_format(case, tiny_model, tiny_base, fresh_cache, tmp_path):
    model = Model.load(tiny_model, tiny_base)
    lesion = Lesion.from_files(*case, resample=True)
    features = extract(lesion, model.settings)
    write_reports(tmp_path / "out", model.predict(features), features, lesion, model.card, formats=FORMATS)
    assert len(list((tmp_path / "out").iterdir())) == len(FORMATS)
    for name, content in everything_in(tmp_path / "out"):
        assert_nobody(name, content)


def test_nothing_that_crosses_the_socket_names_the_patient(case, tiny_server, tiny_model, monkeypatch):
    pytest.importorskip("uvicorn")
    sent: list[bytes] = []
    send = http.client.HTTPConnection.send

    def recorded(connection, data):
        sent.append(bytes(data))
        return send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", recorded)
    features = extract(Lesion.from_files(*case, resample=True), Model.load(tiny_model).settings)
    client = Client(tiny_server.ready.url, token_file=tiny_server.ready.token_file)
    prediction = client.model("tiny").predict(features)
    assert sum(map(len, sent)) > 1000
    assert any(b"original_shape2D_Sphericity" in part for part in sent)
    assert_nobody("the request", b"".join(sent))
    assert_nobody("the answer", prediction.model_dump_json().encode())
