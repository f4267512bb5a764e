"""The page of a batch: its counts and its distributions, and nobody else's text becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import html5lib
import pytest
from bs4 import BeautifulSoup

from radllm_backend.batch.candidates import Found, Refusal
from radllm_backend.batch.page import Page, summary_html, write_page
from radllm_backend.batch.results import Results, open_results
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Band
from Testing.batch.rows import SETTINGS, failed, filled_results, row
from Testing.support.report_cases import MODEL, prediction


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Results]:
    with filled_results(tmp_path) as results:
        yield results


def page(results: Results) -> Page:
    left_out = [Refusal(what="Series <i>7</i>", reason="It has no segmentation: segment it first.")]
    return Page.of(results, MODEL, SETTINGS, Found(candidates=[], refusals=left_out), "radllm batch --model test")


def test_the_summary_says_everything_and_text_stays_text(filled: Results, tmp_path: Path) -> None:
    write_page(tmp_path, page(filled))
    html = (tmp_path / "summary.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(html)
    assert not re.search(r"<script|https?://|\son\w+=|src=", html)
    soup = BeautifulSoup(html, "html.parser")
    words = " ".join(soup.get_text(" ").split())
    for text in (
        RESEARCH_USE_ONLY,
        "Classified 5",
        "of these likely malignant 5",
        "Failed 1",
        "Left out of the source 1",
        "few-pixels 5",
        "It is <b>gone</b>: put it back.",
        "Series <i>7</i>",
        "radllm batch --model test",
        MODEL.sha256,
        SETTINGS.sha256,
        "5 lesions; the upright line is the threshold, 42.0%",
    ):
        assert text in words
    assert len(soup.select("svg .fill")) == 1
    assert soup.select_one("svg desc").get_text().startswith("0.0% to 5.0%: 5;")


def test_bars_are_as_high_as_their_numbers_and_coloured_by_their_call(tmp_path: Path) -> None:
    band = Band(low=0.4, high=0.5, confidence=0.8)
    numbers = [*range(0, 4), 42, *range(90, 92)]
    with open_results(tmp_path / "results.sqlite") as results:
        results.add([row(one, prediction=prediction(band=band)) for one in numbers])
        results.add([row(200, modality="MG", probability=1.0)])
        shown = {one.modality: one for one in page(results).distributions()}
    assert [bar.side for bar in shown["US"].bars] == ["benign", "uncertain", "malignant"]
    assert [round(bar.height, 6) for bar in shown["US"].bars] == [80, 20, 40]
    assert [bar.x for bar in shown["MG"].bars] == [10 + 19 * 19]


def test_a_summary_of_nothing_but_failures(tmp_path: Path) -> None:
    with open_results(tmp_path / "results.sqlite") as results:
        results.add([failed(1)])
        html = summary_html(page(results))
    html5lib.HTMLParser(strict=True).parse(html)
    assert "<svg" not in html
