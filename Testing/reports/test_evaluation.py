"""The page of an evaluation: true to its scorecard, whole by itself, and nobody else's text becomes markup."""

from __future__ import annotations

import csv
import json
import sys
from html.parser import HTMLParser

import pytest

pytest.importorskip("torch")

from bs4 import BeautifulSoup

from radllm_backend.errors import RadllmError
from radllm_backend.learning.scorecard import Scorecard
from radllm_backend.models.prediction import RESEARCH_USE_ONLY
from radllm_backend.reports import evaluation as report
from radllm_backend.reports.evaluation import evaluation_html, write_evaluation
from Testing.support.evaluation_cases import (
    FUSION,
    GENERIC,
    LORA,
    SELECTED,
    around,
    cohort_of_pairs,
    outcomes_of,
    scorecard_of,
    sentences,
    with_models,
    words,
)

NASTY = "<script>alert(1)</script>&\"'<b>"
FILES = ("evaluation.json", "out_of_fold.csv", "evaluation.html")


@pytest.fixture(scope="module")
def cohort():
    return cohort_of_pairs()


@pytest.fixture(scope="module")
def outcomes(cohort, tmp_path_factory):
    return outcomes_of(cohort, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def card(outcomes, cohort):
    return scorecard_of(outcomes, cohort)


@pytest.fixture(scope="module")
def text(card):
    return evaluation_html(card)


@pytest.fixture(scope="module")
def soup(text):
    return BeautifulSoup(text, "html.parser")


# --- the files ------------------------------------------------------------------------------------------------------


def test_numbers_lesions_and_a_page_are_written(card, outcomes, cohort, tmp_path):
    write_evaluation(tmp_path / "new" / "folder", card, outcomes)
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert Scorecard.model_validate(json.loads((folder / "evaluation.json").read_text())) == card
    rows = list(csv.DictReader((folder / "out_of_fold.csv").open()))
    assert len(rows) == sum(len(outcome.rows) for outcome in outcomes)
    for name in FILES:
        assert "patient3" not in (folder / name).read_text(), f"{name} names a patient"


def test_the_same_scorecard_gives_the_same_bytes(card, outcomes, cohort, tmp_path):
    for name in ("one", "other"):
        write_evaluation(tmp_path / name, card, outcomes)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_folder_that_cannot_be_is_one_sentence(card, outcomes, cohort, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RadllmError, match="The evaluation cannot be written to out .*: choose another folder."):
        write_evaluation(tmp_path / "file" / "out", card, outcomes)


def test_without_matplotlib_the_numbers_are_written(card, outcomes, cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RadllmError, match="need matplotlib, which is not installed: run pip install matplotlib"):
        write_evaluation(tmp_path, card, outcomes)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES[:2])


# --- the page by itself ---------------------------------------------------------------------------------------------


class Balance(HTMLParser):
    """Complains of a tag that is not closed, or closed where another one is open."""

    VOID = ("meta", "br", "link", "img", "hr")

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        pass


def test_every_tag_is_closed_and_every_id_is_there_once(text, soup):
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    pointers = [tag["aria-labelledby"] for tag in soup.find_all(attrs={"aria-labelledby": True})]
    pointers += [tag["href"].removeprefix("#") for tag in soup.find_all(href=True)]
    assert len(pointers) > 20
    assert set(pointers) <= set(ids)


def test_the_page_needs_nothing_but_itself(text, soup):
    assert not soup.find_all(["script", "link", "img", "iframe", "object", "image", "base", "form"])
    assert not soup.find_all(src=True)
    assert all(tag["href"].startswith("#") for tag in soup.find_all(href=True))
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert not [name for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on")]
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_it_is_made_of(soup):
    assert soup.html["lang"] == "en"
    assert [words(tag) for tag in soup.find_all(["h1", "h2"])] == [
        "RadiomicsLLM evaluation",
        "Result",
        "What was evaluated",
        "Every model",
        "Curves",
        "Ablations",
        "Which features were selected",
        "What inner folds chose",
        "Checklists",
        "To repeat it",
    ]
    assert words(soup.select_one("header .notice")) == RESEARCH_USE_ONLY
    drawings = soup.find_all("svg")
    assert len(drawings) == 5
    assert all(one["role"] == "img" and len(one["aria-label"]) > 40 for one in drawings)


def test_tables_have_as_many_cells_as_headings(soup):
    for table in soup.select("table:has(thead)"):
        columns = len(table.select("thead th"))
        for row in table.select("tbody tr"):
            assert sum(int(cell.get("colspan", 1)) for cell in row.find_all(["th", "td"])) == columns, words(row)


def test_text_of_others_is_text(card):
    strange = card.model_copy(
        update={
            **dict.fromkeys(("table", "target", "group", "command", "hardware", "base_model", "modality"), NASTY),
            "versions": {NASTY: NASTY},
            "best_baseline": NASTY,
            "models": [
                model.model_copy(update={"model": NASTY if model.family == "classical" else NASTY + model.model})
                for model in card.models
                if model.model != SELECTED
            ],
            "stability": [card.stability[0].model_copy(update={"model": NASTY, "frequency": {NASTY: 1.0}})],
        }
    )
    text = evaluation_html(strange)
    Balance().feed(text)
    soup = BeautifulSoup(text, "html.parser")
    assert not soup.find_all(["script", "b"], string=lambda inside: inside and "alert" in inside)
    assert words(soup).count("<script>alert(1)</script>") > 20
    assert any("<script>alert(1)" in one["aria-label"] for one in soup.find_all("svg"))


# --- what it says ---------------------------------------------------------------------------------------------------


def test_every_model_is_there_with_its_figures(soup, card):
    tables = soup.select("table.models")[:2]
    for model in card.models:
        figures = (
            [model.auc, model.auc_delong],
            [model.accuracy, model.balanced_accuracy, model.sensitivity, model.specificity, model.brier, model.ece],
        )
        for table, estimates in zip(tables, figures, strict=True):
            (row,) = (tag for tag in table.select("tbody tr") if tag.th.contents[0] == model.model)
            for one in estimates:
                assert f"{one.value:.3f} {one.low:.3f} to {one.high:.3f}" in words(row)


def test_who_ran_on_fewer_seeds_and_who_is_the_baseline_is_marked(soup, card):
    tags = {words(tag.parent).removesuffix(words(tag)).strip(): words(tag) for tag in soup.select("table .tag")}
    assert tags == {LORA: "1 of 2 seeds", card.best_baseline: "best classical baseline"}
    assert "3, 1; not every model ran on all of them" in words(soup)


def test_lesions_of_one_patient_are_a_caution_for_delong(card, soup):
    assert "64 of 32 patients: 32 malignant, 32 benign" in words(soup)
    assert "DeLong’s method takes lesions of one patient for independent" in words(soup)
    alone = BeautifulSoup(evaluation_html(card.model_copy(update={"patients": 64})), "html.parser")
    assert "for independent" not in words(alone)


def test_a_fusion_that_wins_beyond_doubt(card):
    won = with_models(
        card,
        classical={"auc": around(0.8), "difference": None},
        fusion={"auc": around(0.86), "difference": around(0.06, 0.03), "p_holm": 0.004},
        lora={"auc": around(0.7), "difference": around(-0.1), "p_holm": 0.001},
    )
    said = sentences(won)
    assert f"“{FUSION}”, which has a language model, did best: its AUC is 0.060 above" in said
    assert f"“{card.best_baseline}” (95% interval of the difference +0.030 to +0.090, which excludes zero)." in said
    assert "also after the correction for the number of models compared (p 0.004)." in said
    assert f"“{LORA}”, AUC 0.700 (95% interval 0.680 to 0.720), is the language model with LoRA alone: 0.100 b" in said
    assert "the language model did worse than the classical model." in said


def test_a_win_that_does_not_withstand_correction_is_none(card):
    changes = {"auc": around(0.86), "difference": around(0.06, 0.03), "p_holm": 0.2}
    said = sentences(with_models(card, classical={"auc": around(0.8)}, fusion=changes))
    assert "does not withstand the correction for the number of models compared (p 0.200)" in said
    assert "this run does not show that the language model helps" in said


def test_a_classical_model_that_wins_is_said_to_win(card):
    changes = {"auc": around(0.78), "difference": around(-0.02, 0.05), "p_holm": 1.0}
    said = sentences(with_models(card, classical={"auc": around(0.8)}, fusion=changes))
    assert f"“{card.best_baseline}”, a classical model, did best: its AUC is 0.020 above" in said
    assert "+0.070, which includes zero). " in said
    assert "this run does not tell the two apart" in said


def test_without_a_language_model_there_is_nothing_to_compare(card):
    classical = [model for model in card.models if model.family == "classical"]
    said = sentences(card.model_copy(update={"models": classical, "base_model": None, "base_sha256": None}))
    assert "did best. No language model took part in this run." in said


def test_an_ablation_that_is_better_than_all_is_said(card):
    assert f"An ablation, “{GENERIC}”, has a higher AUC than all" in sentences(
        with_models(card, ablation={"auc": around(0.97)})
    )
    assert "An ablation" not in sentences(card)


def test_an_ablation_is_compared_on_the_seeds_that_both_ran_on(card):
    """The parent ran on the first seed only: what the ablation reached on the second says nothing here."""
    uneven = with_models(
        card,
        lora={"auc_by_seed": [0.6], "auc": around(0.6)},
        ablation={"auc_by_seed": [0.55, 0.95], "auc": around(0.75)},
    )
    section = BeautifulSoup(evaluation_html(uneven), "html.parser").find(attrs={"aria-labelledby": "ablations"})
    assert "generic feature names LoRA head −0.050 0.750 0.730 to 0.770 0.600" in words(section)
    orphan = card.model_copy(update={"models": [model for model in card.models if model.family != "lora"]})
    section = BeautifulSoup(evaluation_html(orphan), "html.parser").find(attrs={"aria-labelledby": "ablations"})
    assert "generic feature names LoRA head not in this run" in words(section)


def test_what_was_selected_is_shown_where_something_was(card, soup):
    assert [one.model for one in card.stability] == [SELECTED]
    section = words(soup.find(attrs={"aria-labelledby": "selection"}))
    assert f"How often “{SELECTED}” selected a feature" in section
    assert f"{card.stability[0].index:.3f}".replace("-", "−") in section
    nothing = evaluation_html(card.model_copy(update={"stability": []}))
    assert "Which features were selected" not in nothing


def test_what_inner_folds_chose_is_counted():
    tallied = report._tallied
    assert tallied([1.0, 1.0, 0.1]) == "1 (2×), 0.1 (1×)"
    assert tallied([8, 8]) == "8"
    assert tallied(["scale", "scale", "auto"]) == "scale (2×), auto (1×)"
    assert tallied([0.1, 0.2, 0.3, 0.4, 1000.0]) == "0.3 (0.1 to 1e+03)"
    assert tallied(list("aabcde")).endswith(", …")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (3.96, "4.0 s"), (42.4, "42 s"), (720, "12 min"), (5340, "89 min"), (12600, "3.5 h")],
)
def test_times_are_read_at_a_glance(seconds, shown):
    assert report._duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0004, "0.000"),
        (-0.0004, "0.000"),
        (0.0006, "+0.001"),
        (-0.004, "−0.004"),
        (0.0123, "+0.012"),
        (-0.5, "−0.500"),
    ],
)
def test_a_difference_has_a_sign_unless_it_is_nothing(number, shown):
    assert report._signed(number) == shown


# --- shuffled labels ------------------------------------------------------------------------------------------------


def test_shuffled_labels_are_a_test_for_leaks_and_no_result(card):
    null = with_models(
        card.model_copy(update={"shuffled_labels": True}),
        **{family: {"auc": around(0.5, 0.1)} for family in ("classical", "frozen", "lora", "fusion", "ablation")},
    )
    said = sentences(null)
    assert "The AUC interval contains 0.5 for 6 of 6 models. Nothing leaks that this test can find." in said
    assert "did best" not in said
    assert "The labels were shuffled" in evaluation_html(null)
    leaking = with_models(null, fusion={"auc": around(0.8)})
    assert "for 5 of 6 models" in sentences(leaking)
    assert f"Not for “{FUSION}”, AUC 0.800" in sentences(leaking)
