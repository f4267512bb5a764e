"""The PDF of a prediction: sound, complete, readable and short, whatever characters the texts hold."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from Testing.support.report_cases import (
    CARD,
    CROWDED,
    FULL,
    HASHES,
    HEADINGS,
    MODEL,
    PREDICTION,
    box_lesion,
    prediction,
    report_of,
    share,
)

pikepdf = pytest.importorskip("pikepdf", reason="needs pikepdf")
pdfium = pytest.importorskip("pypdfium2", reason="needs pypdfium2")

from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Caution, DescriptorShare
from radllm_backend.reports.content import MOST_ROWS
from radllm_backend.reports.pdf import report_pdf
from radllm_backend.reports.pdf_page import latin


@pytest.fixture(scope="module")
def full() -> bytes:
    return report_pdf(report_of(FULL, box_lesion(), CARD))


def texts(pdf: bytes) -> list[str]:
    """Of every page, with single blanks."""
    return [" ".join(page.get_textpage().get_text_range().split()) for page in pdfium.PdfDocument(pdf)]


def text(pdf: bytes) -> str:
    return " ".join(texts(pdf))


def pictures(pdf: bytes) -> list[Image.Image]:
    return [page.render(scale=1).to_pil().convert("RGB") for page in pdfium.PdfDocument(pdf)]


def test_it_is_a_sound_pdf_with_title_language_outline_and_no_time_but_its_own(full: bytes) -> None:
    with pikepdf.open(io.BytesIO(full)) as pdf:
        assert not pdf.check_pdf_syntax()
        assert not pdf.get_warnings()
        assert str(pdf.docinfo["/Title"]) == "RadiomicsLLM report"
        assert str(pdf.Root.Lang) == "en-GB"
        assert str(pdf.docinfo["/CreationDate"]) == "D:20261125173000Z"
        assert "/ModDate" not in pdf.docinfo
        with pdf.open_outline() as outline:
            assert [item.title for item in outline.root] == HEADINGS
    assert re.findall(rb"D:\d{14}", full) == [b"D:20261125173000"]


def test_it_says_what_the_page_says(full: bytes) -> None:
    said = text(full)
    for expected in (
        "Likely malignant 73.4% probability of malignancy (55.1% to 77.9% with other outlines)",
        "threshold 42.0%",
        "uncertain 40.0% to 60.0%",
        "reached an AUC of 0.81 (95% interval 0.70 to 0.89)",
        *(caution.text.replace("−", "-") for caution in FULL.cautions),
        "95% of them lie within 0.034 of their exact values",
        "Sphericity: with 9.5 instead of 2.5, all else the same, the call would be likely benign (20.0%).",
        "Elongation: a value at the other end of the training lesions would not change the call",
        "Irregular shape: sphericity lower than 95% of the training lesions",
        "93 benign 1.07",
        "98% of the training lesions lie nearer to their middle",
        "176 lesions (69 malignant, 107 benign) of 170 patients",
        "0.798 (0.690 to 0.880)",
        "Expected calibration error 0.088 (0.043 to 0.138)",
        "random seed 7",
        "2026-11-25 17:30:00 UTC",
        "-0.50",
        *HASHES.values(),
        "6" * 64,
        "7" * 64,
    ):
        assert expected in said, expected
    assert said.replace(" ", "").count(FULL.prompt.replace(" ", "")) == 1


def test_no_character_is_lost_or_replaced(full: bytes) -> None:
    said = text(full)
    assert "?" not in said
    assert "\ufffd" not in said
    assert "Pawlowska et al., CC BY 4.0." in said  # the PDF's fonts have no barred l
    assert "320 × 400 pixels" in said


def test_every_page_says_that_it_is_for_research_and_which_one_it_is(full: bytes) -> None:
    pages = texts(full)
    assert len(pages) == 2
    for number, page in enumerate(pages, 1):
        assert f"RadiomicsLLM report. {RESEARCH_USE_ONLY} {number} / 2" in page
    assert pages[0].count(RESEARCH_USE_ONLY) == 2


def test_even_a_crowded_one_has_two_pages() -> None:
    assert len(texts(report_pdf(report_of(CROWDED, box_lesion(), CARD)))) == 2


def test_the_pages_are_drawn_within_their_margins(full: bytes) -> None:
    for picture in pictures(full):
        ink = np.asarray(picture).min(axis=2) < 200
        assert 0.02 < ink.mean() < 0.5
        rows, columns = np.nonzero(ink)
        points = 72 / 25.4
        assert columns.min() >= 14.5 * points
        assert columns.max() <= 195.5 * points
        assert rows.min() >= 11 * points
        assert rows.max() <= 290 * points
    colours = {tuple(colour) for picture in pictures(full) for colour in np.asarray(picture).reshape(-1, 3)}
    assert {(31, 106, 165), (180, 69, 31), (255, 255, 255)} <= colours


def test_it_needs_neither_lesion_nor_card_nor_explanation() -> None:
    unexplained = prediction(features=[share("Energy", None)], cautions=[], extraction=None)
    said = text(report_pdf(report_of(unexplained)))
    for expected in ("No cautions.", "not computed", MODEL.trained_on, "does not say how they were extracted"):
        assert expected in said
    for absent in ("How well", "Nearest", "In words", "Training lesions", "Rules"):
        assert absent not in said
    assert len(texts(report_pdf(report_of(PREDICTION)))) == 1


def test_findings_are_in_words_and_what_is_left_out_is_counted() -> None:
    many = prediction(
        features=[share(f"F{number}", number / 10) for number in range(30)],
        descriptors=[DescriptorShare(descriptor="mass_shape", name="Mass Shape", value="irregular", effect=9.0)],
    )
    said = text(report_pdf(report_of(many)))
    assert "Mass Shape +9.00 irregular" in said
    assert f"{31 - MOST_ROWS} more features that moved it less: see prediction.json." in said


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "x" * 5000},
        {"cautions": [Caution(code="a", text="long " * 400)]},
        {"model": MODEL.model_copy(update={"name": "n" * 300, "trained_on": "中文 " * 100})},
        {"features": [share("Very " * 60, 1.0, value=-1e300)]},
        {"versions": {"\x00\u202e{nb}": "\n\n"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_texts_of_any_length_and_alphabet_are_laid_out(changes: dict[str, Any]) -> None:
    pages = pictures(report_pdf(report_of(prediction(**changes))))
    for picture in pages:
        assert np.asarray(picture)[:, -30:].min() == 255  # nothing runs over the right edge


def test_what_latin_cannot_write() -> None:
    assert latin("−1 – “a” … 3 ≤ 4 × 5 µm\u00a0é") == '-1 - "a" ... 3 <= 4 × 5 µm\u00a0é'
    assert latin("Łódź, Dvořák, ﬁ") == "Lódz, Dvorák, fi"
    assert latin("中\x00\u202e") == "[U+4E2D][U+0000][U+202E]"


def test_a_wide_lesion_has_its_picture_above_the_caption() -> None:
    lesion = box_lesion((0.4, 0.1))
    wide = Lesion(lesion.image, lesion.mask, "US", spacing_known=True)
    assert "Yellow: outline of the lesion" in text(report_pdf(report_of(PREDICTION, wide)))
