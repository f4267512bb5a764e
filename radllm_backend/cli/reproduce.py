"""The command ``radllm reproduce``: a published experiment, for those who hold its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from radllm_backend.cli.flags import offering
from radllm_backend.cli.studies import BaseOption
from radllm_backend.cli.support import check_output_folder, command_line, describing
from radllm_backend.learning.options import DEFAULT_BASE, TrainingOptions

reproduce_app = typer.Typer(help="A published experiment, for those who hold its data.")


def register(app: typer.Typer) -> None:
    """Add these commands to the ``radllm`` command."""
    app.add_typer(reproduce_app, name="reproduce")


@reproduce_app.callback()
def _reproduce() -> None:
    """A published experiment, for those who hold its data."""


@reproduce_app.command()
@offering(
    TrainingOptions,
    *("features", "epochs", "learning_rate", "batch_size", "seed"),
    epochs=10,
    learning_rate=1e-4,
)
def ra2025(
    vindr: Annotated[Path, typer.Option(help="VinDr-Mammo: the folder with finding_annotations.csv and images.")],
    inbreast: Annotated[Path, typer.Option(help="INbreast: the folder with INbreast.csv, AllDICOMs and AllXML.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables and reports.")],
    base_model: BaseOption = DEFAULT_BASE,
    mask: Annotated[
        Literal["grown", "box"], typer.Option(help="VinDr-Mammo's lesions: the bright part of a box, or the box.")
    ] = "grown",
    all_findings: Annotated[
        bool, typer.Option("--all-findings", help="Every boxed finding and outlined region, not masses only.")
    ] = False,
    inbreast_benign: Annotated[
        str, typer.Option(help="BI-RADS categories of INbreast that count as benign (VinDr-Mammo boxes none below 3).")
    ] = "3",
    inner_folds: Annotated[int, typer.Option(help="Inner folds, which choose the baselines' settings.")] = 5,
    **options: Any,
) -> None:
    """Ra et al. 2025: VinDr-Mammo, then INbreast after adaptation; the same command goes on where it was."""
    from radllm_backend.datasets.birads import PAPER_RULE, LabelRule
    from radllm_backend.language.base_models import locate
    from radllm_backend.learning.options import parse_options
    from radllm_backend.learning.reproduction import Protocol, reproduce
    from radllm_backend.learning.reproduction_data import Sources
    from radllm_backend.reports.reproduction import reproduction_text, write_reproduction, write_stage

    check_output_folder(output)
    # To the end: the best epoch on the lesions kept apart is taken.
    fitting = parse_options(TrainingOptions, {**options, "patience": options["epochs"], "folds": 0})
    rule = LabelRule(benign=inbreast_benign.split(","), malignant=PAPER_RULE.malignant)
    protocol = Protocol(
        sources=Sources(vindr, inbreast, mask, all_findings, rule),
        base=locate(base_model),
        options=fitting,
        work=output,
        command=command_line(),
        inner_folds=inner_folds,
    )
    with describing() as progress:
        reproduction = reproduce(protocol, progress, lambda stage: write_stage(output, stage))
    write_reproduction(output, reproduction)
    typer.echo(reproduction_text(reproduction))
    typer.echo(f"Report: {output / 'reproduction.html'}")
