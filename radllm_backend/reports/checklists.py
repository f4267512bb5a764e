"""What an evaluation can answer of METRICS and CLEAR, the checklists of radiomics research.

Items are named by their numbers and by topics in this project's words, which stand in ``checklists.yaml``. The
checklists themselves: Kocak et al., *METhodological RadiomICs Score (METRICS)*, Insights Imaging 15 (2024) 8, and Kocak
et al., *CheckList for EvaluAtion of Radiomics research (CLEAR)*, Insights Imaging 14 (2023) 75.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from radllm_backend.learning.scorecard import Scorecard
from radllm_backend.models.base_in_words import base_in_words

ItemAnswer = Callable[[Scorecard], str | None]
"""None where a run cannot answer after all."""
Answering = TypeVar("Answering", bound=ItemAnswer)


@dataclass(frozen=True)
class Item:
    """An item of a checklist; without an answer it is the authors' to answer."""

    number: int
    topic: str
    answer: str | None


@dataclass(frozen=True)
class Checklist:
    """All items of a checklist, in its order."""

    name: str
    source: str
    items: tuple[Item, ...]

    @property
    def answered(self) -> list[Item]:
        return [item for item in self.items if item.answer is not None]

    @property
    def open(self) -> list[Item]:
        return [item for item in self.items if item.answer is None]


def checklists(scorecard: Scorecard) -> list[Checklist]:
    """METRICS and CLEAR with the answers that follow from what a scorecard holds."""
    described = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return [Checklist(name, one["source"], tuple(_items(one["items"], scorecard))) for name, one in described.items()]


def _items(rows: Sequence[Mapping[str, str]], scorecard: Scorecard) -> Iterator[Item]:
    for number, row in enumerate(rows, 1):
        yield Item(number, row["topic"], _ANSWERS[row["answer"]](scorecard) if "answer" in row else None)


_ANSWERS: dict[str, ItemAnswer] = {}
"""By the names that ``checklists.yaml`` has for them."""


def _answers(function: Answering) -> Answering:
    """Register a function that answers an item."""
    _ANSWERS[function.__name__.removeprefix("_")] = function
    return function


@_answers
def _checklist_followed(scorecard: Scorecard) -> str:
    return "METRICS and CLEAR: this page answers what the run itself can answer, and lists what is left to its authors."


@_answers
def _division(scorecard: Scorecard) -> str:
    if scorecard.split is not None:
        return (
            f"A locked split, given by the column “{scorecard.split}”. "
            f"{_inner_folds(scorecard)} No test lesion is seen before it is scored."
        )
    seeds = f"{len(scorecard.seeds)} divisions" if len(scorecard.seeds) > 1 else "one division"
    return (
        f"{scorecard.folds} outer folds, stratified by label and grouped by patient ({seeds}, by seed). "
        f"{_inner_folds(scorecard)} A held-out lesion is not seen before it is scored."
    )


def _inner_folds(scorecard: Scorecard) -> str:
    return (
        "Everything that learns (selection, scaling, tuning, calibration, threshold, fusion) sees the training part "
        f"only, with {scorecard.inner_folds} inner folds."
    )


@_answers
def _reduction(scorecard: Scorecard) -> str:
    how = (
        "By mRMR on the training part of each fold, which weighs each feature's relevance against its correlation with "
        "those already taken; classical models drop the weaker ones of correlated features before"
    )
    if scorecard.stability:
        # Shares of folds add up to the mean number of features in a fold.
        sizes = [sum(stability.frequency.values()) for stability in scorecard.stability]
        return (
            f"{how}. {len(sizes)} of {len(scorecard.models)} models select; on average they kept {_span(sizes)} of "
            f"{scorecard.features} features."
        )
    if _is_single(scorecard):
        return f"{how}, in the models that say they select."
    return f"No model of this run selects: all {scorecard.features} features go in."


def _is_single(scorecard: Scorecard) -> bool:
    """Whether there was one training part only, so that nothing is known of the stability of a selection."""
    return scorecard.split is not None and len(scorecard.seeds) == 1


def _span(numbers: list[float]) -> str:
    low, high = f"{min(numbers):.0f}", f"{max(numbers):.0f}"
    return low if low == high else f"{low} to {high}"


@_answers
def _dimensions(scorecard: Scorecard) -> str:
    smaller = min(scorecard.malignant, scorecard.lesions - scorecard.malignant)
    return (
        f"{scorecard.features} features and {smaller} lesions in the smaller class: "
        f"{smaller / max(scorecard.features, 1):.1f} lesions a feature before selection. {_reduction(scorecard)}"
    )


@_answers
def _not_end_to_end(scorecard: Scorecard) -> str:
    return "Does not apply: no model here reads images, only feature values."


@_answers
def _measures(scorecard: Scorecard) -> str:
    return (
        "AUC from scores (no threshold needed); accuracy, balanced accuracy, sensitivity and specificity at a "
        "threshold fixed on the training part; Brier score and expected calibration error of the probabilities; "
        "net benefit. "
        f"{_balance(scorecard)}"
    )


@_answers
def _uncertainty(scorecard: Scorecard) -> str:
    seeds = len(scorecard.seeds)
    repeated = f" The spread over {seeds} seeds is in evaluation.json." if seeds > 1 else ""
    return (
        "95% intervals for every figure from a bootstrap of whole patients, and DeLong intervals for the AUC; "
        f"calibration curves have 95% Wilson intervals.{repeated}"
    )


@_answers
def _calibration(scorecard: Scorecard) -> str:
    return (
        "Probabilities are calibrated inside the training part; calibration curves, Brier score and expected "
        "calibration error are of held-out lesions."
    )


@_answers
def _simple_models(scorecard: Scorecard) -> str:
    classical = [model for model in scorecard.models if model.family == "classical"]
    compared = sum(model.difference is not None for model in scorecard.models)
    return (
        f"{len(classical)} classical models on the same folds. The other {compared} models are compared with the best "
        f"of these, {scorecard.best_baseline}, with paired intervals and corrected p-values."
    )


@_answers
def _internal(scorecard: Scorecard) -> str:
    if scorecard.split is not None:
        return "By a locked split."
    return f"By cross-validation with {scorecard.folds} outer folds."


@_answers
def _external(scorecard: Scorecard) -> str:
    if scorecard.split is not None:
        return f"Only if the column “{scorecard.split}” separates institutions, which this run cannot know."
    return "None in this run: all lesions come from one table, and its folds mix whatever centres it holds."


@_answers
def _kind_of_test(scorecard: Scorecard) -> str:
    return f"Internal: {_internal(scorecard)[0].lower()}{_internal(scorecard)[1:]} External: {_external(scorecard)}"


@_answers
def _code(scorecard: Scorecard) -> str:
    return (
        "RadiomicsLLM is open source (Apache-2.0); the command, the seeds and the versions of its packages are at the "
        "end of this page."
    )


@_answers
def _number_of_features(scorecard: Scorecard) -> str:
    findings = f", and {_findings(scorecard)}" if scorecard.descriptors else ""
    return f"{scorecard.features} for each lesion{findings}."


def _findings(scorecard: Scorecard) -> str:
    return f"{scorecard.descriptors} categorical finding{'s' if scorecard.descriptors > 1 else ''} of the radiologist"


@_answers
def _balance(scorecard: Scorecard) -> str:
    share = scorecard.malignant / scorecard.lesions
    return (
        f"{scorecard.malignant} of {scorecard.lesions} lesions ({share:.0%}) are malignant: calling every lesion "
        f"{'malignant' if share > 0.5 else 'benign'} would be right in {max(share, 1 - share):.1%}."
    )


@_answers
def _other_predictors(scorecard: Scorecard) -> str | None:
    if not scorecard.descriptors:
        return None
    return f"{_findings(scorecard)}, in closed vocabularies; how they were read is for you to add."


@_answers
def _missing(scorecard: Scorecard) -> str:
    return (
        "By the training part only. Classical models leave out a feature that more than a fifth of its lesions lack, "
        "and take its median for the others; language models read the features that all of its lesions have, and take "
        "the mean where a held-out lesion lacks one."
    )


@_answers
def _scaling(scorecard: Scorecard) -> str:
    return "Standardised with the mean and the standard deviation of the training part of each fold."


@_answers
def _algorithms(scorecard: Scorecard) -> str:
    models = f"{len(scorecard.models)} models, listed above with their intervals"
    base = f"; the language model is {base_in_words(scorecard.base_model)}" if scorecard.base_model else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(scorecard.versions.items()))
    return f"{models}{base}. Software: {versions or 'not recorded'}."


@_answers
def _tuning(scorecard: Scorecard) -> str:
    return (
        f"Hyperparameters and the number of features by {scorecard.inner_folds} inner folds of each training part; "
        "what they chose is listed above."
    )


@_answers
def _final_model(scorecard: Scorecard) -> str:
    return (
        "This run selects no final model. “Best” is said after the fact, from the held-out lesions: it favours the "
        "best baseline, and within a family of models the one that is shown."
    )


@_answers
def _comparison(scorecard: Scorecard) -> str:
    return (
        "Differences in AUC with 95% intervals from a paired bootstrap of patients; two-sided DeLong tests on the "
        "first seed, corrected by Holm's method; level 0.05."
    )


@_answers
def _feature_statistics(scorecard: Scorecard) -> str:
    if not scorecard.stability:
        single = "A single training part does not tell how stable a selection is."
        return single if _is_single(scorecard) else "No model of this run selects features."
    indices = [stability.index for stability in scorecard.stability]
    span = f"{min(indices):.2f}" if len(indices) == 1 else f"{min(indices):.2f} to {max(indices):.2f}"
    return (
        f"How often each feature was selected is shown above; stability of the selection: {span} "
        "(1 is always the same, 0 is chance). Distributions by class and reproducibility are for you to add."
    )


@_answers
def _performance(scorecard: Scorecard) -> str:
    return f"In the tables and curves above, all of it on held-out lesions. {_balance(scorecard)}"
