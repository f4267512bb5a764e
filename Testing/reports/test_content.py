"""What a report has beside the prediction itself: why, among which lesions, and how good the model is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.models.prediction import Counterfactual, DescriptorShare, Stability
from radllm_backend.reports.content import signed, significant
from radllm_backend.reports.html import report_html
from Testing.support.report_cases import (
    CARD,
    CROWDED,
    FULL,
    HASHES,
    HEADINGS,
    NAMES,
    box_lesion,
    page,
    prediction,
    report_of,
    section,
    share,
    words,
)


def test_the_parts_come_in_their_order() -> None:
    headings = [words(heading) for heading in page(FULL, box_lesion(), CARD).find_all("h2")]
    assert headings == HEADINGS


def test_the_page_is_valid_html_for_a_strict_parser() -> None:
    html5lib = pytest.importorskip("html5lib", reason="needs html5lib")
    for report in (report_html(report_of(FULL, box_lesion(), CARD)), report_html(report_of(FULL))):
        html5lib.HTMLParser(strict=True).parse(report)
        soup = page(FULL, box_lesion(), CARD)
        names = [tag["id"] for tag in soup.find_all(id=True)]
        assert len(names) == len(set(names))
        described = [name for tag in soup.select("[aria-labelledby]") for name in str(tag["aria-labelledby"]).split()]
        assert set(described) <= set(names)


def test_the_page_prints_on_two_sheets(tmp_path: Path) -> None:
    pdfium = pytest.importorskip("pypdfium2", reason="needs pypdfium2")
    from Testing.support.take_screenshots import browse, find_browser

    if find_browser() is None:
        pytest.skip("needs Chromium")
    (tmp_path / "report.html").write_text(report_html(report_of(CROWDED, box_lesion(), CARD)), encoding="utf-8")
    browse(tmp_path / "report.html", tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert len(pdfium.PdfDocument(tmp_path / "page.pdf")) == 2


# --- why --------------------------------------------------------------------------------------------------------------


def test_the_error_of_the_effects_is_stated() -> None:
    assert "95% of them lie within 0.034 of their exact values." in words(section(page(FULL), "features"))
    exact = FULL.model_copy(update={"additive": FULL.additive.model_copy(update={"error": 0.0})})
    assert "The effects add up to that difference; they are exact." in words(section(page(exact), "features"))


def test_what_would_change_the_call_is_a_sentence_each() -> None:
    assert [words(item) for item in section(page(FULL), "alternatives").find_all("li")] == [
        "Sphericity: with 9.5 instead of 2.5, all else the same, the call would be likely benign (20.0%).",
        "Elongation: a value at the other end of the training lesions would not change the call, all else the same.",
    ]


def test_terms_of_a_descriptor_that_would_change_the_call() -> None:
    shape = DescriptorShare(descriptor="mass_shape", name="Mass Shape", value="irregular", effect=1.0)
    other = {"feature": "mass_shape", "name": "Mass Shape"}
    described = prediction(
        descriptors=[shape],
        counterfactuals=[
            Counterfactual(**other, value="oval", probability=0.3, call="likely benign"),
            Counterfactual(**other),
        ],
    )
    assert [words(item) for item in section(page(described), "alternatives").find_all("li")] == [
        "Mass Shape: with “oval” instead of “irregular”, all else the same, the call would be likely benign (30.0%).",
        "Mass Shape: the commonest other term would not change the call, all else the same.",
    ]


def test_findings_are_in_a_radiologists_words() -> None:
    found = [words(item) for item in section(page(FULL), "words").find_all("li")]
    assert "Irregular shape: sphericity lower than 95% of the training lesions" in found
    assert len(found) == 4


def test_how_far_the_probability_moves_stands_next_to_it() -> None:
    result = section(page(FULL), "result")
    assert "73.4% probability of malignancy (55.1% to 77.9% with other outlines)" in words(result)
    assert "With 2 slightly different outlines the probability is 55.1% to 77.9%, and the call changes: " in words(
        result
    )
    assert "likely malignant or uncertain." in words(result)
    stable = Stability(low=0.7, high=0.74, calls=["likely malignant"], variants=FULL.stability.variants)
    steady = words(section(page(prediction(stability=stable)), "result"))
    assert "the probability is 70.0% to 74.0%, and the call stays likely malignant." in steady


# --- among the training lesions ---------------------------------------------------------------------------------------


def test_nearest_training_lesions_and_typicality() -> None:
    part = section(page(FULL), "neighbours")
    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in part.select("tbody tr")]
    assert rows == [["93", "benign", "1.07"], ["170", "malignant", "1.55"]]
    assert "unusual lesion: 98% of the training lesions lie nearer to their middle" in words(part)
    assert "(Mahalanobis distance 6.00)" in words(part)


def test_a_strip_shows_both_classes_and_the_lesion() -> None:
    rows = section(page(FULL, card=CARD), "features").select("tbody tr")
    drawings = [row.select_one("td.strip svg") for row in rows]
    assert len(drawings) == len(NAMES)
    first = drawings[0]
    assert first["aria-label"] == "2.5; half of the benign 2.5 to 7.5, half of the malignant 3.5 to 8.5"
    assert [lane["class"] for lane in first.find_all("g")] == [["benign"], ["malignant"]]
    assert [bool(drawing.select(".beyond")) for drawing in drawings] == [name in NAMES[3:5] for name in NAMES]
    assert not section(page(FULL), "features").select(".strip")


def test_features_of_an_older_model_have_no_strip() -> None:
    older = [row.model_copy(update={"by_class": None}) for row in CARD.features]
    part = section(page(FULL, card=CARD.model_copy(update={"features": older})), "features")
    assert not part.select(".strip")


# --- the model --------------------------------------------------------------------------------------------------------


def test_performance_stands_with_its_population() -> None:
    part = section(page(FULL, card=CARD), "model")
    assert "cross-validated on 176 lesions (69 malignant, 107 benign) of 170 patients. Breast ultrasound" in words(part)
    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in part.select("tbody tr")]
    assert rows[1] == ["logistic regression, the same features", "0.798 (0.690 to 0.880)"]


def test_the_calibration_curve_is_drawn_and_spoken() -> None:
    part = section(page(FULL, card=CARD), "model")
    points = [(float(dot["cx"]), float(dot["cy"])) for dot in part.find_all("circle")]
    assert points == [(50.0, 158.0), (98.0, 86.0), (178.0, 30.0)]
    assert "10.0% and 5.0% of 60; 40.0% and 50.0% of 60; 90.0% and 85.0% of 56." in words(part.desc)
    assert "Expected calibration error 0.088 (0.043 to 0.138)." in words(part.figcaption)
    without = CARD.model_copy(update={"calibration_check": None, "performance": []})
    part = section(page(FULL, card=without), "model")
    assert not part.find("svg")
    assert "Trained on 176 lesions" in words(part)


def test_provenance_has_the_models_files_its_table_its_seed_and_the_time() -> None:
    part = section(page(FULL, card=CARD), "provenance")
    assert {code.get_text() for code in part.select("code")} == {*HASHES.values(), "6" * 64, "7" * 64}
    assert "Its adapter adapter.safetensors" in words(part)
    assert "random seed 7, 176 lesions" in words(part)
    assert "Report made 2026-11-25 17:30:00 UTC" in words(part)


def test_the_rule_of_each_caution_is_given_once() -> None:
    text = words(section(page(FULL, card=CARD), "cautions"))
    assert text.endswith(
        "Rules: the mask reaches the edge of the image; a value is smaller or larger than in every training lesion."
    )
    assert "Rule" not in words(section(page(FULL), "cautions"))


def test_text_of_a_card_stays_text() -> None:
    evil = "<script>alert(1)</script>"
    training = CARD.training.model_copy(update={"description": evil})
    performance = [CARD.performance[0].model_copy(update={"model": evil})]
    soup = page(
        prediction(features=[share(evil, 1.0)]),
        card=CARD.model_copy(update={"training": training, "performance": performance}),
    )
    assert soup.get_text().count(evil) == 3
    assert not soup.find("script")


# --- numbers ----------------------------------------------------------------------------------------------------------


def read(shown: str) -> float:
    return float(shown.replace("−", "-"))


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0, "0.00"),
        (0.0049, "0.00"),
        (-0.0049, "0.00"),
        (0.0051, "+0.01"),
        (-0.0051, "−0.01"),
        (0.01, "+0.01"),
        (0.03, "+0.03"),
        (-0.04, "−0.04"),
        (0.049, "+0.05"),
        (1.0, "+1.00"),
        (-12.346, "−12.35"),
        (9999.0, "+9999.00"),
        (10000.0, "+1e+04"),
        (-123456.0, "−1.23e+05"),
    ],
)
def test_an_effect_has_two_decimals_and_a_sign_unless_it_is_nothing(number: float, shown: str) -> None:
    assert signed(number) == shown


@given(st.floats(-9999, 9999))
def test_what_is_shown_of_an_effect_is_the_nearest_hundredth(number: float) -> None:
    assert abs(read(signed(number)) - number) <= 0.005 + 1e-9


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0, "0"),
        (7.0, "7"),
        (-7.0, "−7"),
        (999999.0, "999999"),
        (1e6, "1e+06"),
        (0.04, "0.04"),
        (-0.000123456, "−0.0001235"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (123456.7, "1.235e+05"),
    ],
)
def test_a_value_has_four_significant_digits(number: float, shown: str) -> None:
    assert significant(number) == shown


def test_a_value_may_have_other_digits() -> None:
    assert [significant(2 / 3, digits) for digits in (2, 3, 6)] == ["0.67", "0.667", "0.666667"]


def test_small_effects_are_told_apart_on_the_page() -> None:
    effects = {"Energy": 0.04, "Contrast": -0.03, "Kurtosis": 0.012, "Variance": 0.0}
    shares = [share(name, effect) for name, effect in effects.items()]
    cells = section(page(prediction(features=shares)), "features").select("tbody td.effect")
    assert [words(cell) for cell in cells] == ["+0.04", "−0.03", "+0.01", "0.00"]
