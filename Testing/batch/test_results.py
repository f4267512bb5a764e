"""The file of a batch's results: each lesion once, nothing lost, every bad file in a sentence; exports and summary."""

from __future__ import annotations

import csv
import re
import sqlite3
from pathlib import Path
from typing import Any

import html5lib
import pytest
from bs4 import BeautifulSoup

from radllm_backend.batch import results as batch_results
from radllm_backend.batch.candidates import Candidate, Found, Refusal
from radllm_backend.batch.page import Page, summary_html, write_page
from radllm_backend.batch.results import Counts, Results, Row, open_results, reading_of, title_of
from radllm_backend.batch.tables import write_exports
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.table import read_table
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Band
from Testing.support.batch_cases import candidate
from Testing.support.report_cases import FEATURES, HASHES, MODEL, prediction

SETTINGS = load_settings("breast-ultrasound")
OF_RUN = (SETTINGS.sha256, HASHES["model"])
VALUES = FEATURES.model_copy(
    update={"values": {"original_shape2D_Sphericity": 0.5, "original_firstorder_Energy": None}}
)


def row(number: int, **changes: Any) -> Row:
    """A lesion that is done."""
    chosen = candidate(number)
    found = prediction(probability=number % 100 / 100)
    words = {name: getattr(chosen, name) for name in ("kind", "modality", "series_description", "segment", "number")}
    given = {
        "key": chosen.key,
        "settings_sha256": SETTINGS.sha256,
        "model_sha256": HASHES["model"],
        "lesion": title_of(chosen),
        "series": chosen.series,
        "source": chosen.source,
        "status": "done",
        "probability": found.probability,
        "call": found.call,
        "cautions": ("few-pixels", "b"),
        "prediction": found,
        "features": VALUES,
        "seconds": 0.25,
    }
    return Row(**{**words, **given, **changes})


def failed(number: int, reason: str = "It is gone: put it back.", **changes: Any) -> Row:
    nothing = dict.fromkeys(("probability", "call", "prediction", "features"))
    return row(number, status="failed", reason=reason, cautions=(), **{**nothing, **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def problem(file: Path) -> str:
    """What opening it says: one sentence."""
    with pytest.raises(RadllmError) as caught, open_results(file):
        pass
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were(file: Path) -> None:
    rows = sorted([row(1), failed(2), row(3)], key=lambda one: one.key)
    with open_results(file) as results:
        results.add(rows)
    with open_results(file) as results:
        assert list(results.rows(*OF_RUN)) == rows
        assert results.counts(*OF_RUN) == Counts(done=2, failed=1)


def test_a_lesion_has_one_row_for_each_model_and_settings(file: Path) -> None:
    with open_results(file) as results:
        results.add([failed(1), row(2)])
        results.add([row(1)])
        results.add([row(1, settings_sha256="d" * 64), row(1, model_sha256="e" * 64)])
        assert results.counts(*OF_RUN) == Counts(done=2, failed=0)
        assert results.counts("d" * 64, OF_RUN[1]) == Counts(done=1, failed=0)
    assert sqlite3.connect(file).execute("SELECT COUNT(*) FROM results").fetchone() == (4,)


def test_what_is_settled(file: Path) -> None:
    with open_results(file) as results:
        results.add([row(1), failed(2)])
        given = [(number, retry) for number in (1, 2, 3) for retry in (False, True)]
        settled = [results.is_settled(candidate(number), *OF_RUN, retry=retry) for number, retry in given]
        assert settled == [True, True, True, False, False, False]
        assert not results.is_settled(candidate(1), "d" * 64, OF_RUN[1], retry=False)


def test_another_spacing_in_a_manifest_is_another_lesion_in_its_place(file: Path) -> None:
    old = Candidate(kind="mask", image=("/a/i.png",), segmentation="/a/m.png", series="s", source="m", spacing="0.1")
    new = old.model_copy(update={"spacing": "0.2"})
    with open_results(file) as results:
        results.add([row(1, key=old.key, reading=reading_of(old))])
        assert results.is_settled(old, *OF_RUN, retry=False)
        assert not results.is_settled(new, *OF_RUN, retry=False)
        results.add([row(1, key=new.key, reading=reading_of(new))])
        assert results.counts(*OF_RUN).done == 1


def test_titles_name_no_folder() -> None:
    masks = Candidate(kind="mask", image=("/a/i.png",), segmentation="/a/m.png", series="s", source="m", number=3)
    assert title_of(masks) == "m.png: 3"
    assert title_of(candidate(1)) == "Generated: lesion"


def test_rows_of_a_failed_transaction_are_not_there(file: Path) -> None:
    with open_results(file) as results:
        results.add([row(1)])
        results._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(RadllmError, match="disk of .* is full: free some space, and give the same command again"):
            results.add([row(number) for number in range(2, 40)])
        results._connection.execute("PRAGMA max_page_count = 100000")
        assert results.counts(*OF_RUN).done == 1
        results.add([row(2)])
        assert results.counts(*OF_RUN).done == 2


# --- files that cannot be opened ------------------------------------------------------------------------------------


def test_a_file_of_another_version(file: Path) -> None:
    with open_results(file):
        pass
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "is of version 99 and this radllm writes version 1" in problem(file)


def test_somebody_elses_file(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE recipes (cake)")
    connection.close()
    assert "is not a file of radllm batch" in problem(file)


@pytest.mark.parametrize("spoil", ["text", "middle"])
def test_a_damaged_file(file: Path, spoil: str) -> None:
    with open_results(file) as results:
        results.add([row(number) for number in range(40)])
    content = file.read_bytes()
    file.write_bytes(b"no database " * 99 if spoil == "text" else content[:4096] + b"\xff" * 12000 + content[16096:])
    assert problem(file).endswith("is damaged: move it away, or give another output folder.")


def test_a_second_batch_waits_for_the_first(file: Path) -> None:
    with open_results(file):
        assert problem(file).startswith("Another radllm batch writes ")
    with open_results(file):
        pass


def test_a_file_that_another_program_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_results, "_PATIENCE", 0.1)
    with open_results(file) as results:
        other = sqlite3.connect(file)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RadllmError, match="Another program holds .*: close it there"):
            results.add([row(1)])
        other.close()
        results.add([row(1)])


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").mkdir()
    assert "cannot be" in problem(tmp_path / "results.sqlite")


# --- exports and summary --------------------------------------------------------------------------------------------


@pytest.fixture
def filled(file: Path):
    with open_results(file) as results:
        results.add([row(number) for number in range(5)])
        results.add([failed(5, "It is <b>gone</b>: put it back."), row(9, settings_sha256="d" * 64)])
        yield results


def test_the_csv_is_a_feature_table_with_a_line_for_each_lesion(filled: Results, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_exports(tmp_path, filled, *OF_RUN)
    table = read_table(tmp_path / "results.csv")
    assert len(table) == 6
    assert table.features == tuple(VALUES.values)
    assert sorted(table.columns["status"]) == ["done"] * 5 + ["failed"]
    assert table.lesions()[0] == "Generated: lesion"
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    rows = {one.key: one for one in filled.rows(*OF_RUN)}
    for line in lines:
        one = rows[line["key"]]
        assert line["reason"] == one.reason
        assert (float(line["probability"]) if line["probability"] else None) == one.probability
        assert line["cautions"] == ";".join(one.cautions)
    assert not list(tmp_path.glob(".*.partial"))


def test_the_parquet_file_says_the_same(filled: Results, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_exports(tmp_path, filled, *OF_RUN)
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.num_rows == 6
    rows = list(filled.rows(*OF_RUN))
    assert table["probability"].to_pylist() == [one.probability for one in rows]
    assert table["key"].to_pylist() == [one.key for one in rows]
    spheric = [one.features.values["original_shape2D_Sphericity"] if one.features else None for one in rows]
    assert table["original_shape2D_Sphericity"].to_pylist() == spheric


def test_an_export_that_cannot_be_written_leaves_nothing(filled: Results, tmp_path: Path) -> None:
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(RadllmError, match="results.csv cannot be written"):
        write_exports(tmp_path, filled, *OF_RUN)
    assert not list(tmp_path.glob(".*.partial"))


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


def test_bars_are_as_high_as_their_numbers_and_coloured_by_their_call(file: Path) -> None:
    band = Band(low=0.4, high=0.5, confidence=0.8)
    numbers = [*range(0, 4), 42, *range(90, 92)]
    with open_results(file) as results:
        results.add([row(one, prediction=prediction(band=band)) for one in numbers])
        results.add([row(200, modality="MG", probability=1.0)])
        shown = {one.modality: one for one in page(results).distributions()}
    assert [bar.side for bar in shown["US"].bars] == ["benign", "uncertain", "malignant"]
    assert [round(bar.height, 6) for bar in shown["US"].bars] == [80, 20, 40]
    assert [bar.x for bar in shown["MG"].bars] == [10 + 19 * 19]


def test_a_summary_of_nothing_but_failures(file: Path) -> None:
    with open_results(file) as results:
        results.add([failed(1)])
        html = summary_html(page(results))
    html5lib.HTMLParser(strict=True).parse(html)
    assert "<svg" not in html
