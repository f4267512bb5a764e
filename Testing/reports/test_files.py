"""The files of a prediction: all of them or none, and the same bytes for the same lesion."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from radllm_backend.datasets.phantoms import make_phantom
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.prediction import Prediction
from radllm_backend.records import KeyImage
from radllm_backend.reports import content as contents
from radllm_backend.reports import key_image as pictures
from radllm_backend.reports.files import EPOCH, FORMATS, ReportFormat, write_reports
from radllm_backend.reports.html import report_html
from radllm_backend.reports.key_image import key_image
from radllm_backend.reports.pdf import report_pdf
from Testing.support.report_cases import CARD, FEATURES, FULL, MADE, PREDICTION, box_lesion, prediction, report_of

FILES = {"prediction.json", "features.csv", "report.html", "report.pdf", "key-image.png"}


@pytest.fixture(autouse=True)
def at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EPOCH, str(int(MADE.timestamp())))


def test_the_files_are_written_and_can_be_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "case"
    write_reports(str(folder), PREDICTION, FEATURES, box_lesion())
    assert {path.name for path in folder.iterdir()} == FILES
    json_text = (folder / "prediction.json").read_bytes().decode()
    assert json_text.endswith("}\n")
    assert "\r" not in json_text
    assert Prediction.model_validate_json(json_text) == PREDICTION
    assert (folder / "report.html").read_bytes().decode() == report_html(report_of(PREDICTION, box_lesion()))
    assert (folder / "report.pdf").read_bytes() == report_pdf(report_of(PREDICTION, box_lesion()))


def test_the_features_open_in_a_spreadsheet(tmp_path: Path) -> None:
    write_reports(tmp_path, PREDICTION, FEATURES, formats=["csv"])
    content = (tmp_path / "features.csv").read_bytes()
    assert content.isascii()  # no byte order mark, and none is missed
    rows = list(csv.reader(content.decode().splitlines()))
    assert rows == [["feature", "value"], ["original_Sphericity", "0.5"], ["original_Energy", ""]]


def test_a_format_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = ReportFormat("report.txt", lambda case: case.prediction.call.encode())
    monkeypatch.setitem(FORMATS, "txt", added)
    write_reports(tmp_path, PREDICTION, FEATURES, box_lesion())
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "report.txt"}
    assert (tmp_path / "report.txt").read_text() == PREDICTION.call
    with pytest.raises(RadllmError, match="choose from json, csv, html, pdf, png, txt"):
        write_reports(tmp_path, PREDICTION, FEATURES, formats=["docx"])


def test_only_the_asked_formats_are_written(tmp_path: Path) -> None:
    write_reports(tmp_path / "all", FULL, FEATURES, box_lesion(), CARD, formats=FORMATS)
    assert {path.name for path in (tmp_path / "all").iterdir()} == FILES
    assert (tmp_path / "all" / "key-image.png").read_bytes() == key_image(box_lesion()).png
    assert (tmp_path / "all" / "report.pdf").read_bytes() == report_pdf(report_of(FULL, box_lesion(), CARD))
    write_reports(tmp_path / "some", PREDICTION, FEATURES, formats=["png", "csv"])
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["features.csv"]  # there is no picture of nothing
    with pytest.raises(RadllmError, match=r"^There is no report as 'docx': choose from json, csv, html, pdf, png\.$"):
        write_reports(tmp_path / "none", PREDICTION, FEATURES, formats=["csv", "docx"])
    assert not (tmp_path / "none").exists()


def test_the_same_lesion_gives_the_same_bytes(tmp_path: Path) -> None:
    phantom = make_phantom("spiculated")
    for name in ("first", "second"):
        image, mask = sitk.GetImageFromArray(phantom.image), sitk.GetImageFromArray(phantom.mask)
        lesion = Lesion.from_images(image, mask, modality="US")
        write_reports(tmp_path / name, FULL, FEATURES, lesion, CARD, formats=FORMATS)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_a_key_image_serves_for_a_lesion_that_is_not_at_hand(tmp_path: Path) -> None:
    drawn = KeyImage.model_validate_json(key_image(box_lesion()).model_dump_json())
    for name, shown in (("here", box_lesion()), ("drawn elsewhere", drawn)):
        write_reports(tmp_path / name, FULL, FEATURES, shown, CARD)
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "drawn elsewhere" / name).read_bytes(), name


@pytest.mark.parametrize(("formats", "times"), [(FORMATS, 1), (["html", "pdf"], 1), (["json", "csv"], 0)])
def test_page_and_pdf_share_their_content_and_their_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formats: Sequence[str], times: int
) -> None:
    made: list[str] = []
    for module, part in ((contents, "rows"), (pictures, "_largest_slice")):
        monkeypatch.setattr(module, part, counting(getattr(module, part), made))
    write_reports(tmp_path, FULL, FEATURES, box_lesion(), CARD, formats=formats)
    assert sorted(made) == sorted(["rows", "_largest_slice"] * times)


def counting(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """The same function, which tells when it is called."""

    def told(*given: Any) -> Any:
        calls.append(function.__name__)
        return function(*given)

    return told


def test_only_page_and_pdf_say_when_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reports(tmp_path / "then", FULL, FEATURES, box_lesion(), CARD, formats=FORMATS)
    monkeypatch.delenv(EPOCH)
    write_reports(tmp_path / "now", FULL, FEATURES, box_lesion(), CARD, formats=FORMATS)
    differing = {
        path.name
        for path in (tmp_path / "then").iterdir()
        if path.read_bytes() != (tmp_path / "now" / path.name).read_bytes()
    }
    assert differing == {"report.html", "report.pdf"}
    write_reports(tmp_path / "again", FULL, FEATURES, box_lesion(), CARD, made=MADE)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "then" / name).read_bytes(), name


@pytest.mark.parametrize("epoch", ["yesterday", "1e9", "9" * 30])
def test_a_malformed_time_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.setenv(EPOCH, epoch)
    with pytest.raises(RadllmError, match=f"^SOURCE_DATE_EPOCH is '{epoch}', and it has to be a number of seconds"):
        write_reports(tmp_path, PREDICTION, FEATURES)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "case"):
        with pytest.raises(
            RadllmError, match=r"^The report cannot be written to \w+ \(.+\): free some space or choose"
        ):
            write_reports(folder, PREDICTION, FEATURES)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are a Unix thing")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))  # the page is longer, the other two are not
    try:
        with pytest.raises(RadllmError, match="cannot be written to case"):
            write_reports(tmp_path / "new" / "case", PREDICTION, FEATURES, box_lesion())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_when_one_file_cannot_be_replaced_the_older_ones_stay(tmp_path: Path) -> None:
    write_reports(tmp_path, PREDICTION, FEATURES)
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    before = (tmp_path / "prediction.json").read_bytes()
    with pytest.raises(RadllmError, match=r"report\.html is a folder there"):
        write_reports(tmp_path, prediction(probability=0.9), FEATURES)
    assert (tmp_path / "prediction.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"key-image.png"}  # there was no lesion to show


def test_a_report_that_cannot_be_drawn_makes_no_folder(tmp_path: Path) -> None:
    lesion = box_lesion()
    broken = Lesion(lesion.image, lesion.mask * 0, "US", spacing_known=True)
    with pytest.raises(IndexError):
        write_reports(tmp_path / "case", PREDICTION, FEATURES, broken)
    assert not list(tmp_path.iterdir())
