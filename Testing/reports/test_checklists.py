"""The checklists of an evaluation's page: every item answered from the run, or left to its authors."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from bs4 import BeautifulSoup

from radllm_backend.learning.scorecard import Scorecard
from radllm_backend.reports.checklists import checklists
from radllm_backend.reports.evaluation import evaluation_html
from Testing.support.evaluation_cases import (
    cohort_of_pairs,
    outcomes_of,
    scorecard_of,
    words,
)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    cohort = cohort_of_pairs()
    return scorecard_of(outcomes_of(cohort, tmp_path_factory.mktemp("work")), cohort)


@pytest.fixture(scope="module")
def soup(card):
    return BeautifulSoup(evaluation_html(card), "html.parser")


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
    assert "m2-135m-instruct (4-bit (Q4_1) weights, expanded to fp32). Software: numpy 2.4, torch 2.9." in clear[34]
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
