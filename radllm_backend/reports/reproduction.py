"""The reproduced experiment beside the paper: numbers, a table for a terminal, and a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from radllm_backend.features.names import display_name
from radllm_backend.files import write_atomically
from radllm_backend.learning.reproduction import Reproduction, Stage, StageResult
from radllm_backend.learning.reproduction_data import FOLDERS
from radllm_backend.learning.scorecard import ModelResult
from radllm_backend.models.base_in_words import base_in_words
from radllm_backend.models.prediction import RESEARCH_USE_ONLY
from radllm_backend.records import Estimate
from radllm_backend.reports._page import page_template
from radllm_backend.reports.evaluation import write_evaluation

PAPER_TITLE = "Ra et al. 2025"
FIGURES: dict[str, Callable[[ModelResult], Estimate]] = {
    "Accuracy": lambda model: model.accuracy,
    "AUC": lambda model: model.auc,
    "Balanced accuracy": lambda model: model.balanced_accuracy,
    "Sensitivity": lambda model: model.sensitivity,
    "Specificity": lambda model: model.specificity,
}
"""What is shown of a model: accuracy first, because the paper reports it."""
_COLUMN = len("0.000 (0.000 to 0.000)")


def write_stage(output: Path, stage: Stage) -> None:
    """Write the evaluation of one data set into its folder; RadllmError where that cannot be."""
    write_evaluation(output / FOLDERS[stage.result.data_set], stage.scorecard, stage.outcomes)


def write_reproduction(output: Path, reproduction: Reproduction) -> None:
    """Write ``reproduction.json``, ``reproduction.txt`` and ``reproduction.html``; RadllmError where that cannot be."""
    write_atomically(output / "reproduction.json", reproduction.model_dump_json(indent=2) + "\n")
    write_atomically(output / "reproduction.txt", reproduction_text(reproduction))
    write_atomically(output / "reproduction.html", reproduction_html(reproduction))


def reproduction_text(reproduction: Reproduction) -> str:
    """Both tables, for a terminal."""
    tables = "\n".join(_text_table(stage) for stage in reproduction.stages)
    base = f"Base model: {base_in_words(reproduction.base_model)}."
    how = "Figures with 95% intervals from a bootstrap of patients; calls at a\nthreshold fixed on the training part."
    return f"{tables}\n{base}\n{how} {RESEARCH_USE_ONLY}\n"


def reproduction_html(reproduction: Reproduction) -> str:
    """One self-contained page: no network, no script."""
    return page_template("reproduction.html.jinja").render(
        run=reproduction,
        notice=RESEARCH_USE_ONLY,
        paper=PAPER_TITLE,
        figures=FIGURES,
        folders=FOLDERS,
        named=display_name,
        ordered=_ordered,
        verdict=_verdict,
    )


def _text_table(stage: StageResult) -> str:
    models = _ordered(stage)
    width = max(len(model.model) for model in models)
    heading = [" " * width, *(name.ljust(_COLUMN) for name in FIGURES)]
    rows = [
        [model.model.ljust(width), *(_with_interval(figure(model)).ljust(_COLUMN) for figure in FIGURES.values())]
        for model in models
    ]
    paper = [PAPER_TITLE.ljust(width), f"{stage.paper.accuracy:.3f}"]
    lines = [heading, rows[0], paper, *rows[1:]]
    table = "".join(f"  {'  '.join(line).rstrip()}\n" for line in lines)
    return f"{stage.data_set}: {_counts(stage)}\n{_verdict(stage)}\n{table}"


def _counts(stage: StageResult) -> str:
    return (
        f"{stage.training_lesions} lesions to learn from, {stage.test_lesions} to be judged on "
        f"(paper: {stage.paper.test_lesions}), {stage.left_out} left out, {stage.dropped} without all features."
    )


def _verdict(stage: StageResult) -> str:
    """Where the paper's accuracy lies, and what it takes to reach this run's without looking."""
    accuracy = stage.result.accuracy
    where = "within" if accuracy.low <= stage.paper.accuracy <= accuracy.high else "outside"
    return (
        f"{stage.model}: accuracy {_with_interval(accuracy)}; the paper's {stage.paper.accuracy:.3f} is {where} this "
        f"interval. Calling every lesion the same reaches {stage.commonest:.3f}."
    )


def _ordered(stage: StageResult) -> list[ModelResult]:
    """The model that stands beside the paper's, then the others, the highest AUC first."""
    others = [model for model in stage.models if model.model != stage.model]
    return [stage.result, *sorted(others, key=lambda model: -model.auc.value)]


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
