"""The page of an evaluation: true to its scorecard, whole by itself, and nobody else's text becomes markup."""

from __future__ import annotations

import csv
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("torch")

from bs4 import BeautifulSoup

from radllm_backend.errors import RadllmError
from radllm_backend.learning import scorecard as scorecards
from radllm_backend.learning.compared_models import compared_models
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from radllm_backend.learning.scorecard import Scorecard, summarise
from radllm_backend.learning.study import Study, evaluate_models
from radllm_backend.models.prediction import RESEARCH_USE_ONLY
from radllm_backend.records import Estimate
from radllm_backend.reports import evaluation as report
from radllm_backend.reports.checklists import checklists
from radllm_backend.reports.evaluation import evaluation_html, write_evaluation
from Testing.support.cohorts import lesions

CLASSICAL = "logistic regression (L2), all features"
SELECTED = "logistic regression (L2), selected features"
FROZEN, LORA, FUSION = "frozen language model, logistic regression", "LoRA head", "fusion, concatenated, SVM"
GENERIC = f"{LORA}: generic feature names"
NASTY = "<script>alert(1)</script>&\"'<b>"
FILES = ("evaluation.json", "out_of_fold.csv", "evaluation.html")


def quiet(what: str, done: float) -> None:
    pass


@pytest.fixture(scope="module")
def cohort():
    """Two lesions a patient."""
    return lesions(count=64, signal_strength=1.2, each=2)


@pytest.fixture(scope="module")
def outcomes(cohort, tmp_path_factory):
    """Two classical models as evaluated, and models of the other families that are made from these."""
    study = Study(
        lesions=cohort,
        modality="US",
        base=None,
        options=TrainingOptions(),
        work=tmp_path_factory.mktemp("work"),
        division=CrossValidation(folds=2, inner_folds=2),
        seeds=(3, 1),
    )
    real = evaluate_models(
        study, [one for one in compared_models(language=False) if one.name in (CLASSICAL, SELECTED)], quiet
    )
    return [
        *real,
        *made_from(real, cohort, FROZEN, "frozen", -0.3),
        *made_from(real, cohort, LORA, "lora", -0.5, seeds=(3,)),
        *made_from(real, cohort, FUSION, "fusion", 0.4),
        *made_from(real, cohort, GENERIC, "ablation", -0.8),
    ]


def made_from(real, cohort, name, family, surplus, seeds=(3, 1)):
    """The outcomes of the first model under another name: a little nearer to the truth, or further from it."""
    made = []
    for one in real:
        if one.model == CLASSICAL and one.seed in seeds:
            scores = np.array(one.scores) / np.std(one.scores) + surplus * (2 * cohort.labels[one.rows] - 1)
            changes = {"scores": scores.tolist(), "probabilities": (1 / (1 + np.exp(-scores))).tolist()}
            made.append(one.model_copy(update={"model": name, "family": family, **changes}))
    return made


DESCRIPTION = {
    "table": "lesions.csv",
    "table_sha256": "0123456789abcdef" * 4,
    "target": "pathology",
    "group": "who",
    "modality": "US",
    "folds": 2,
    "inner_folds": 2,
    "seeds": [3, 1],
    "split": None,
    "shuffled_labels": False,
    "base_model": "smollm2-135m-instruct",
    "base_sha256": "f" * 64,
    "versions": {"torch": "2.9", "numpy": "2.4"},
    "hardware": "two cores",
    "command": "radllm evaluate lesions.csv --target pathology",
    "started": "2026-01-31",
}


@pytest.fixture(scope="module")
def card(outcomes, cohort):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorecards, "BOOTSTRAP_ROUNDS", 200)
        return summarise(outcomes, cohort, **DESCRIPTION)


@pytest.fixture(scope="module")
def text(card):
    return evaluation_html(card)


@pytest.fixture(scope="module")
def soup(text):
    return BeautifulSoup(text, "html.parser")


def words(tag) -> str:
    return " ".join(tag.get_text(" ").split())


def sentences(card: Scorecard) -> str:
    """What the page says first."""
    return words(BeautifulSoup(evaluation_html(card), "html.parser").select_one("section.words")).split("Area under")[0]


def with_models(card: Scorecard, **changes) -> Scorecard:
    """The scorecard with other fields of the models named by their family."""
    models = [model.model_copy(update=changes.get(model.family, {})) for model in card.models]
    return card.model_copy(update={"models": models})


def around(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


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
    ("number", "shown"), [(0.0004, "0.000"), (-0.0004, "0.000"), (0.0123, "+0.012"), (-0.5, "−0.500")]
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


# --- checklists -----------------------------------------------------------------------------------------------------


def answers(card: Scorecard, name: str) -> dict[int, str]:
    (found,) = (one for one in checklists(card) if one.name == name)
    return {item.number: item.answer for item in found.answered}


def test_every_item_is_answered_or_left_to_the_authors(card, soup):
    for checklist, count in zip(checklists(card), (30, 58), strict=True):
        assert [item.number for item in checklist.items] == list(range(1, count + 1))
        assert len({item.topic for item in checklist.items}) == count
        assert len(checklist.answered) + len(checklist.open) == count
        for item in checklist.items:
            assert words(soup).count(f"{item.number} {item.topic}") >= 1
    assert set(answers(card, "METRICS")) == {1, 15, 16, 17, 18, 20, 21, 22, 25, 26, 27, 29}
    assert set(answers(card, "CLEAR")) == {7, 15, 27, 29, 30, 32, 33, 34, 35, 37, 38, 39, 40, 41, 46, 47, 56}


def test_answers_follow_from_the_run(card):
    metrics, clear = answers(card, "METRICS"), answers(card, "CLEAR")
    assert "2 outer folds, stratified by label and grouped by patient (2 divisions, by seed)" in metrics[18]
    assert "1 of 6 models select; on average they kept" in metrics[15]
    assert "32 of 64 lesions (50%) are malignant" in metrics[20]
    assert "2 classical models on the same folds. The other 5 models are compared with the best" in metrics[25]
    assert metrics[27].startswith("None in this run")
    assert clear[27] == "6 for each lesion."
    assert "the language model is smollm2-135m-instruct. Software: numpy 2.4, torch 2.9." in clear[34]
    assert f"stability of the selection: {card.stability[0].index:.2f} (" in clear[46]


def test_a_locked_split_has_other_answers(card):
    split = card.model_copy(update={"split": "part", "seeds": [3], "stability": []})
    metrics, clear = answers(split, "METRICS"), answers(split, "CLEAR")
    assert metrics[26] == "By a locked split."
    assert metrics[27] == "Only if the column “part” separates institutions, which this run cannot know."
    assert clear[15].startswith("A locked split, given by the column “part”. Everything that learns")
    assert metrics[15].endswith("in the models that say they select.")
    assert clear[46] == "A single training part does not tell how stable a selection is."
    assert "a locked split, the column “part”, with 2 inner folds" in evaluation_html(split)


def test_without_selection_it_says_so(card):
    all_of_them = card.model_copy(update={"stability": []})
    assert answers(all_of_them, "METRICS")[15] == "No model of this run selects: all 6 features go in."
    assert answers(all_of_them, "CLEAR")[46] == "No model of this run selects features."


def test_the_radiologists_findings_are_other_predictors(card):
    described = card.model_copy(update={"descriptors": 2})
    assert answers(described, "CLEAR")[17].startswith("2 categorical findings of the radiologist, in closed")
    assert answers(described, "CLEAR")[27] == "6 for each lesion, and 2 categorical findings of the radiologist."
    assert "6 radiomics features (US) and 2 categorical findings" in evaluation_html(described)
