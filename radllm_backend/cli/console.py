"""What the command line shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from radllm_backend.cli.doctor import Finding
from radllm_backend.models.prediction import DescriptorShare, FeatureShare, Prediction, Stability, percent

_STRONGEST = 5


def progress_bar() -> Progress:
    """A progress bar on standard error, out of the way of what is printed; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def show_prediction(prediction: Prediction, report: Path, segment: str = "") -> None:
    """The call, its probability, the features that mattered, every caution, and where the report lies."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if segment:
        console.print(f"{segment}:")
    console.print(
        f"{prediction.call.capitalize()}: probability of malignancy {prediction.probability:.1%} "
        f"(threshold {prediction.threshold:.1%}{_uncertain(prediction)})"
    )
    if prediction.band:
        console.print(prediction.rule())
    if prediction.stability:
        console.print(_stable(prediction.stability))
    table = Table(
        "Feature", "Value", "Standardised", "Effect on the log-odds", title="What moved it", title_justify="left"
    )
    for share in prediction.strongest()[:_STRONGEST]:
        cells = (share.value, "") if isinstance(share, DescriptorShare) else _value_cells(share)
        table.add_row(share.name, *cells, f"{share.effect or 0:+.3f}")
    console.print(table)
    for caution in prediction.cautions:
        console.print(f"Caution: {caution.text}")
    console.print(f"Model {prediction.model.name} {prediction.model.sha256[:12]}. {prediction.notice}")
    console.print(f"Report: {report}")


def _value_cells(share: FeatureShare) -> tuple[str, str]:
    return f"{share.value:.4g}", f"{share.standardised:+.2f}"


def _uncertain(prediction: Prediction) -> str:
    return f", uncertain from {prediction.band}" if prediction.band else ""


def _stable(stability: Stability) -> str:
    """The range under other outlines, and which of them could not be measured."""
    lost = "; ".join(variant.name for variant in stability.variants if variant.probability is None)
    calls = " or ".join(stability.calls)
    found = f"Outlined slightly otherwise: {percent(stability.low)} to {percent(stability.high)}, {calls}"
    return f"{found} (not measurable: {lost})" if lost else found


def show_findings(findings: Sequence[Finding]) -> None:
    """The doctor's findings, one a line."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for finding in findings:
        mark = "ok     " if finding.works else "MISSING" if finding.required else "note   "
        advice = f"  ->  {finding.advice}" if finding.advice else ""
        console.print(f"{mark} {finding.subject}: {finding.detail}{advice}")
