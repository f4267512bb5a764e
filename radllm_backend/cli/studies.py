"""The commands that learn and judge: ``radllm train``, ``adapt``, ``evaluate`` and ``adaptation-curve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radllm_backend.cli.flags import offering
from radllm_backend.cli.support import check_output_folder, command_line, describing
from radllm_backend.errors import RadllmError
from radllm_backend.language import distributed
from radllm_backend.learning.methods import bundled_methods
from radllm_backend.learning.options import DEFAULT_BASE, DEFAULT_METHOD, INHERITED, CrossValidation, TrainingOptions

if TYPE_CHECKING:
    from radllm_backend.models.model import Model

TableArgument = Annotated[Path, typer.Argument(help="CSV that radllm extract --manifest wrote.")]
TargetOption = Annotated[str, typer.Option(help="Column that says benign or malignant.")]
GroupOption = Annotated[str, typer.Option(help="Column that names the patient.")]
BaseOption = Annotated[str, typer.Option(help="Base model: a name, a pulled hub name or a folder.")]
ModalityOption = Annotated[str | None, typer.Option(help="MG, US, CT or MR where the table does not say it.")]
FourBitOption = Annotated[
    bool, typer.Option("--four-bit", help="Hold the base model in 4 bits a weight (CUDA and bitsandbytes).")
]
DescriptionOption = Annotated[str, typer.Option(help="One sentence for the card: what lesions these are.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")]
SettingsOption = Annotated[str | None, typer.Option(help="A preset's name or a PyRadiomics parameter file.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the ``radllm`` command."""
    app.command("train")(train_command)
    app.command("adapt")(adapt_command)
    app.command("evaluate")(evaluate_command)
    app.command("adaptation-curve")(adaptation_curve)


def _methods() -> str:
    *names, last = bundled_methods()
    return f"{', '.join(names)} or {last}."


@offering(TrainingOptions)
def train_command(
    table: TableArgument,
    target: TargetOption,
    group: GroupOption,
    output: OutputOption,
    method: Annotated[str, typer.Option(help=_methods())] = DEFAULT_METHOD,
    base_model: BaseOption = DEFAULT_BASE,
    four_bit: FourBitOption = False,
    settings: SettingsOption = None,
    modality: ModalityOption = None,
    description: DescriptionOption = "",
    by: Annotated[str | None, typer.Option(help="A descriptor: the card reports each of its values apart.")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="evaluation.json of other trials, for the card.")
    ] = None,
    **options: Any,
) -> None:
    """Train a model on a table of lesions; the same command after a crash goes on where it was."""
    from radllm_backend.learning.build import train

    with describing() as progress:
        model = train(
            table,
            target,
            group,
            output,
            method=method,
            base_model=base_model,
            four_bit=four_bit,
            settings=settings,
            modality=modality,
            description=description,
            by=by,
            evaluations=evaluation or (),
            progress=progress,
            **options,
        )
    _tell_of(model, output)


@offering(TrainingOptions, but=INHERITED)
def adapt_command(
    model: Annotated[str, typer.Argument(help="The model to continue: a shipped one's name or a folder.")],
    table: TableArgument,
    target: TargetOption,
    group: GroupOption,
    output: OutputOption,
    base_model: Annotated[str | None, typer.Option(help="Base model, if not found under the model's own name.")] = None,
    four_bit: FourBitOption = False,
    settings: SettingsOption = None,
    modality: ModalityOption = None,
    description: DescriptionOption = "",
    **options: Any,
) -> None:
    """Continue a model on lesions with another set of features: names it knows stay first, new ones join the prompt."""
    from radllm_backend.learning.build import adapt

    with describing() as progress:
        adapted = adapt(
            model,
            table,
            target,
            group,
            output,
            base_model=base_model,
            four_bit=four_bit,
            settings=settings,
            modality=modality,
            description=description,
            progress=progress,
            **options,
        )
    _tell_of(adapted, output)


def _tell_of(model: Model, output: Path) -> None:
    if not distributed.leave():
        return
    typer.echo(f"The model {model.name} lies in {output}; its card is {output / 'README.md'}.")
    for row in model.card.performance:
        low, high = row.auc_interval
        typer.echo(f"  AUC {row.auc:.3f} ({low:.3f} to {high:.3f})  {row.model}")


@offering(TrainingOptions, "features", "scale_free", "epochs", "patience", "learning_rate", "batch_size", "seed")
def adaptation_curve(
    source: Annotated[Path, typer.Argument(help="Table to train on first.")],
    target_table: Annotated[Path, typer.Argument(help="Table to adapt to with a few labelled lesions.")],
    target: TargetOption,
    group: GroupOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the curve.")],
    base_model: BaseOption = DEFAULT_BASE,
    sizes: Annotated[str, typer.Option(help="Numbers of labelled lesions, separated by commas.")] = "10,20,50,100",
    repeats: Annotated[int, typer.Option(help="How often the target is divided anew.")] = 5,
    source_modality: ModalityOption = None,
    target_modality: ModalityOption = None,
    **options: Any,
) -> None:
    """What adapting to a new data set is worth: AUC over the number of its lesions that are labelled."""
    from radllm_backend.learning.adaptation import Cohort, Experiment, run_experiment
    from radllm_backend.learning.options import parse_options
    from radllm_backend.learning.plan import LabelledTable, find_base
    from radllm_backend.reports.adaptation import write_adaptation
    from radllm_backend.reports.evaluation_plots import check_drawing

    check_output_folder(output)
    check_drawing()  # before the hours rather than after them

    def cohort(path: Path, modality: str | None) -> Cohort:
        labelled = LabelledTable.of(path, target, group, modality)
        return Cohort.from_table(labelled, scale_free=options["scale_free"])

    experiment = Experiment(
        source=cohort(source, source_modality),
        target=cohort(target_table, target_modality),
        base=find_base(base_model),
        options=parse_options(TrainingOptions, options),
        work=output / "work",
        command=command_line(),
        sizes=_sizes(sizes),
        repeats=repeats,
    )
    with describing() as progress:
        curve = run_experiment(experiment, progress)
    if not distributed.leave():
        return
    write_adaptation(output, curve)
    for point in curve.points:
        auc = point.auc
        typer.echo(f"  {point.size:4} lesions  AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})  {point.model}")
    typer.echo(f"Figure: {output / 'adaptation.svg'}")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise RadllmError(f"--sizes is '{text[:40]}': use whole numbers such as 10,20,50,100.")
    return sizes


@offering(TrainingOptions, but=["folds"])
@offering(CrossValidation)
def evaluate_command(
    table: TableArgument,
    target: TargetOption,
    group: GroupOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    base_model: BaseOption = DEFAULT_BASE,
    four_bit: FourBitOption = False,
    modality: ModalityOption = None,
    language: Annotated[bool, typer.Option(help="Also the frozen language model and its fusions.")] = True,
    lora: Annotated[bool, typer.Option(help="Also the models that train an adapter: slow on a CPU.")] = True,
    ablations: Annotated[bool, typer.Option("--ablations", help="Also the ablations: slower still.")] = False,
    costly: Annotated[bool, typer.Option(help="Of the ablations also those that train once more.")] = True,
    families: Annotated[
        str, typer.Option(help="Only these beside the classical models: frozen,lora,fusion,ablation. Empty: all.")
    ] = "",
    split: Annotated[str | None, typer.Option(help="Column that says train or test, instead of folds.")] = None,
    **options: Any,
) -> None:
    """Compare models on a table of lesions by nested cross-validation; the same command goes on where it was."""
    from radllm_backend.reports.evaluate import evaluate

    check_output_folder(output)
    with describing() as progress:
        scorecard = evaluate(
            table,
            target,
            group,
            output,
            base_model=base_model,
            four_bit=four_bit,
            modality=modality,
            language=language,
            lora=lora,
            ablations=ablations,
            costly=costly,
            families=[word.strip() for word in families.split(",") if word.strip()],
            split=split,
            command=command_line(),
            progress=progress,
            **options,
        )
    if not distributed.leave():
        return
    for model in sorted(scorecard.models, key=lambda one: -one.auc.value):
        typer.echo(f"  AUC {model.auc.value:.3f} ({model.auc.low:.3f} to {model.auc.high:.3f})  {model.model}")
    typer.echo(f"Report: {output / 'evaluation.html'}")
