"""An evaluation of six models, two of them real, and what the tests of its page say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup

from radllm_backend.features.cohort import Lesions
from radllm_backend.learning import scorecard as scorecards
from radllm_backend.learning.compared_models import compared_models
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from radllm_backend.learning.scorecard import Outcome, Scorecard, summarise
from radllm_backend.learning.study import Study, evaluate_models
from radllm_backend.records import Estimate, say_nothing
from radllm_backend.reports.evaluation import evaluation_html
from Testing.support.cohorts import lesions

CLASSICAL = "logistic regression (L2), all features"
SELECTED = "logistic regression (L2), selected features"
FROZEN, LORA, FUSION = "frozen language model, logistic regression", "LoRA head", "fusion, concatenated, SVM"
GENERIC = f"{LORA}: generic feature names"


def cohort_of_pairs() -> Lesions:
    """Two lesions a patient."""
    return lesions(count=64, signal_strength=1.2, each=2)


def outcomes_of(cohort: Lesions, work: Path) -> list[Outcome]:
    """Two classical models as evaluated, and models of the other families that are made from these."""
    study = Study(
        lesions=cohort,
        modality="US",
        base=None,
        options=TrainingOptions(),
        work=work,
        division=CrossValidation(folds=2, inner_folds=2),
        seeds=(3, 1),
    )
    real = evaluate_models(
        study,
        [one for one in compared_models(language=False) if one.name in (CLASSICAL, SELECTED)],
        say_nothing,
    )
    return [
        *real,
        *made_from(real, cohort, FROZEN, "frozen", -0.3),
        *made_from(real, cohort, LORA, "lora", -0.5, seeds=(3,)),
        *made_from(real, cohort, FUSION, "fusion", 0.4),
        *made_from(real, cohort, GENERIC, "ablation", -0.8),
    ]


def made_from(
    real: list[Outcome], cohort: Lesions, name: str, family: str, surplus: float, seeds: tuple[int, ...] = (3, 1)
) -> list[Outcome]:
    """The outcomes of the first model under another name: a little nearer to the truth, or further from it."""
    made = []
    for one in real:
        if one.model == CLASSICAL and one.seed in seeds:
            scores = np.array(one.scores) / np.std(one.scores) + surplus * (2 * cohort.labels[one.rows] - 1)
            changes = {"scores": scores.tolist(), "probabilities": (1 / (1 + np.exp(-scores))).tolist()}
            made.append(one.model_copy(update={"model": name, "family": family, **changes}))
    return made


DESCRIPTION: dict[str, Any] = {
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


def scorecard_of(outcomes: list[Outcome], cohort: Lesions) -> Scorecard:
    """Summed up in few rounds, which is quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorecards, "BOOTSTRAP_ROUNDS", 200)
        return summarise(outcomes, cohort, **DESCRIPTION)


def words(tag: Any) -> str:
    return " ".join(tag.get_text(" ").split())


def sentences(card: Scorecard) -> str:
    """What the page says first."""
    return words(BeautifulSoup(evaluation_html(card), "html.parser").select_one("section.words")).split("Area under")[0]


def with_models(card: Scorecard, **changes: dict[str, Any]) -> Scorecard:
    """The scorecard with other fields of the models named by their family."""
    models = [model.model_copy(update=changes.get(model.family, {})) for model in card.models]
    return card.model_copy(update={"models": models})


def around(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)
