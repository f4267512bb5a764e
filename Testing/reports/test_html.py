"""The page of a prediction: what it says, that it needs nothing from outside, and that text stays text."""

from __future__ import annotations

import base64
import itertools
import re
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Caution
from radllm_backend.reports.content import MOST_ROWS
from radllm_backend.reports.html import report_html
from radllm_backend.reports.key_image import key_image
from Testing.support.report_cases import (
    EXTRACTION,
    HASHES,
    MODEL,
    PREDICTION,
    box_lesion,
    page,
    prediction,
    report_of,
    section,
    share,
    words,
)

# --- what the page says ---------------------------------------------------------------------------------------------


def test_result_comes_first_with_call_probability_and_how_good_the_model_is() -> None:
    soup = page(PREDICTION)
    headings = [(heading.name, words(heading)) for heading in soup.find_all(re.compile("h[1-6]"))]
    assert headings == [
        ("h1", "RadiomicsLLM report"),
        ("h2", "Result"),
        ("h2", "Cautions"),
        ("h2", "What moved this prediction"),
        ("h2", "What the model read"),
        ("h2", "Provenance"),
    ]
    assert soup.html is not None
    assert soup.html["lang"] == "en-GB"
    assert words(soup.select_one("header .notice")) == RESEARCH_USE_ONLY
    result = words(section(soup, "result"))
    assert "Likely malignant 73.4% probability of malignancy" in result
    assert "likely malignant from 42.0% on" in result
    assert "AUC of 0.81 (95% interval 0.70 to 0.89)." in result


def test_the_notice_is_ours_whatever_the_prediction_says() -> None:
    assert words(page(prediction(notice="Certified."))).count(RESEARCH_USE_ONLY) == 1


def test_a_model_that_was_not_cross_validated_says_so() -> None:
    result = words(section(page(prediction(model=MODEL.model_copy(update={"auc": None}))), "result"))
    assert "AUC" not in result
    assert "not cross-validated" in result


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(0, "0.0%"), (1e-9, "<0.1%"), (0.0005, "0.1%"), (0.5, "50.0%"), (0.9994, "99.9%"), (0.99999, ">99.9%")],
)
def test_probability_never_rounds_to_a_certainty(probability: float, shown: str) -> None:
    assert words(page(prediction(probability=probability)).select_one(".probability strong")) == shown


def test_cautions_are_a_list_or_a_sentence() -> None:
    cautions = section(page(PREDICTION), "cautions")
    assert [words(item) for item in cautions.find_all("li")] == ["The lesion has few pixels.", "Another thing."]
    none = section(page(prediction(cautions=[])), "cautions")
    assert words(none) == "Cautions No cautions."
    assert not none.find("li")


def test_features_are_sorted_by_effect_with_bars_to_the_side_they_speak_for() -> None:
    rows = section(page(PREDICTION), "features").select("tbody tr")
    assert [words(row.th) for row in rows] == ["Sphericity", "Energy", "Elongation", "Contrast"]
    assert [words(row.select_one("td.effect")) for row in rows] == ["+1.00", "−0.50", "−0.20", "0.00"]
    bars = [row.select_one("rect") for row in rows]
    assert [(float(bar["x"]), float(bar["width"])) for bar in bars if bar] == [(0, 100), (-50, 50), (-20, 20), (0, 0)]
    assert [bar["class"] for bar in bars[:2] if bar] == [["malignant"], ["benign"]]


def test_the_feature_table_can_be_read_without_the_bars() -> None:
    table = section(page(PREDICTION), "features").table
    assert table is not None
    columns = ["Feature", "Effect benign malignant", "Value", "Standardised", "Training percentile"]
    assert [words(cell) for cell in table.select("thead th[scope=col]")] == columns
    first = table.select_one("tbody tr")
    assert first is not None
    assert [words(cell) for cell in first.find_all(["th", "td"])] == ["Sphericity", "+1.00", "0.5", "−1.25", "12"]
    assert first.th is not None
    assert first.th["scope"] == "row"
    assert all(svg["aria-hidden"] == "true" for svg in table.find_all("svg"))


def test_a_prediction_without_effects_has_the_values_in_the_order_of_the_prompt() -> None:
    unexplained = [row.model_copy(update={"effect": None}) for row in PREDICTION.features]
    part = section(page(prediction(features=unexplained)), "features")
    assert [words(cell) for cell in part.select("tbody th")] == ["Elongation", "Sphericity", "Energy", "Contrast"]
    assert "not computed" in words(part)
    assert not part.find("svg")


def test_many_features_are_cut_to_the_strongest_with_a_word_about_the_rest() -> None:
    part = section(page(prediction(features=[share(f"F{n}", n / 10) for n in range(30)])), "features")
    assert [words(cell) for cell in part.select("tbody th")] == [f"F{n}" for n in range(29, 29 - MOST_ROWS, -1)]
    assert f"{30 - MOST_ROWS} more features that moved it less: see prediction.json." in words(part)


def test_the_prompt_is_shown_to_the_letter() -> None:
    quote = section(page(PREDICTION), "prompt").blockquote
    assert quote is not None
    assert quote.get_text() == PREDICTION.prompt


def test_provenance_has_every_hash_in_full_and_every_version() -> None:
    part = section(page(PREDICTION), "provenance")
    assert {code.get_text() for code in part.select("code")} == set(HASHES.values())
    text = words(part)
    for expected in (
        "test-model",
        MODEL.trained_on,
        "TestLM",
        "breast-ultrasound",
        "pyradiomics 3.1.4",
        "peft 0.21.2, torch 2.13.0",
        "US, 320 × 400 pixels of 0.08 × 0.08 mm",
        "7,674 pixels in a box of 97 × 120 at (131, 91), clear of the edge",
    ):
        assert expected in text
    assert all(cell["scope"] == "row" for cell in part.find_all("th"))


def test_provenance_says_what_is_not_known() -> None:
    assert "does not say how they were extracted" in words(section(page(prediction(extraction=None)), "provenance"))
    geometry = EXTRACTION.geometry.model_copy(update={"spacing_known": False, "touches_border": True})
    unknown = EXTRACTION.model_copy(update={"geometry": geometry, "modality": None})
    text = words(section(page(prediction(extraction=unknown)), "provenance"))
    assert "modality unknown, 320 × 400 pixels of unknown spacing" in text
    assert "reaches the edge of the image" in text


# --- drawings -------------------------------------------------------------------------------------------------------


@given(probability=st.floats(0, 1), threshold=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_bar_and_threshold_mark_stand_where_they_should(probability: float, threshold: float) -> None:
    bar = page(prediction(probability=probability, threshold=threshold)).select_one("svg.bar")
    assert bar is not None
    track, fill, mark = bar.select_one(".track"), bar.select_one(".fill"), bar.select_one(".threshold")
    assert track
    assert fill
    assert mark
    start, width = float(track["x"]), float(track["width"])
    assert float(fill["x"]) == start
    assert float(fill["width"]) / width == pytest.approx(probability, abs=1e-3)
    assert float(mark["x1"]) == float(mark["x2"])
    assert (float(mark["x1"]) - start) / width == pytest.approx(threshold, abs=1e-3)


def test_the_probability_bar_is_described_in_words() -> None:
    soup = page(PREDICTION)
    bar = soup.select_one("svg.bar")
    assert bar is not None
    assert bar["role"] == "img"
    spoken = " ".join(words(soup.find(id=name)) for name in str(bar["aria-labelledby"]).split())
    assert spoken == ("Probability of malignancy 73.4% on a scale from 0% to 100%; the threshold is at 42.0%.")


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(finite, finite, finite), max_size=5), logit=finite)
@settings(max_examples=50, deadline=None)
def test_no_finite_input_yields_a_number_that_is_none(rows: list[tuple[float, float, float]], logit: float) -> None:
    shares = [share(f"F{n}", row[0], value=row[1], standardised=row[2]) for n, row in enumerate(rows)]
    soup = page(prediction(features=shares, logit=logit))
    for bar in soup.select("td.effect rect"):
        assert -100 <= float(bar["x"]) <= 0
        assert 0 <= float(bar["width"]) <= 100
    assert not re.search(r"\b(nan|inf)\b", soup.get_text(), re.IGNORECASE)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_prediction_with_nan_cannot_be_made(number: float) -> None:
    with pytest.raises(ValidationError):
        prediction(probability=number)
    with pytest.raises(ValidationError):
        share("Sphericity", number)


# --- self-contained and safe ----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside_and_forbids_it() -> None:
    html = report_html(report_of(PREDICTION, box_lesion()))
    soup = BeautifulSoup(html, "html.parser")
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert isinstance(policy, Tag)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not soup.find_all(["script", "link", "iframe", "object", "embed", "form", "base"])
    sources = [
        tag[name] for tag in soup.find_all(True) for name in ("src", "href", "srcset", "action") if tag.has_attr(name)
    ]
    assert len(sources) == 1
    encoded = str(sources[0]).removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded, validate=True) == key_image(box_lesion()).png
    rest = html.replace(encoded, "")
    assert "http" not in rest.replace("http-equiv", "")
    assert not re.search(r"url\(|@import|\son\w+=|javascript:", rest, re.IGNORECASE)


EVIL = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"'&amp;{{ 7 * 7 }}"


@pytest.mark.parametrize(
    "changes",
    [
        {"cautions": [Caution(code=EVIL, text=EVIL)]},
        {"model": MODEL.model_copy(update={"name": EVIL})},
        {"model": MODEL.model_copy(update={"trained_on": EVIL})},
        {"model": MODEL.model_copy(update={"base_model": EVIL})},
        {"features": [share(EVIL, 1.0)]},
        {"prompt": EVIL},
        {"versions": {EVIL: "1"}},
        {"versions": {"torch": EVIL}},
        {"extraction": EXTRACTION.model_copy(update={"preset": EVIL})},
        {"extraction": EXTRACTION.model_copy(update={"modality": EVIL})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_text_from_elsewhere_stays_text(changes: dict[str, Any]) -> None:
    soup = page(prediction(**changes))
    assert EVIL in soup.get_text()
    assert not soup.find_all(["script", "img"])
    assert not [tag for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on")]


def test_colours_have_the_contrast_that_wcag_aa_asks_for() -> None:
    css = page(PREDICTION).style.get_text()  # type: ignore[union-attr]
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{([^}]+)\}", css)]
    assert len(schemes) == 2

    def luminance(colour: str) -> float:
        """Relative luminance, WCAG 2.2."""
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    pairs = [*itertools.product(("text", "quiet", "benign", "malignant"), ("page", "panel"))]
    pairs += [("caution", "caution-panel"), ("text", "caution-panel")]
    for scheme, (ink, paper) in itertools.product(schemes, pairs):
        dark, light = sorted((luminance(scheme[ink]), luminance(scheme[paper])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper, scheme)
