"""The commands that learn and judge: ``radllm train``, ``adapt``, ``evaluate`` and ``adaptation-curve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from radllm_backend.cli.support import check_output_folder, command_line, describing
from radllm_backend.errors import RadllmError
from radllm_backend.language import distributed

TableArgument = Annotated[Path, typer.Argument(help="CSV that radllm extract --manifest wrote.")]
TargetOption = Annotated[str, typer.Option(help="Column that says benign or malignant.")]
GroupOption = Annotated[str, typer.Option(help="Column that names the patient.")]
BaseOption = Annotated[str, typer.Option(help="Base model: a name, a pulled hub name or a folder.")]
ModalityOption = Annotated[str | None, typer.Option(help="MG, US, CT or MR where the table does not say it.")]
FeaturesOption = Annotated[int, typer.Option(help="How many features mRMR takes.")]
ScaleFreeOption = Annotated[bool, typer.Option("--scale-free", help="Only features without a unit of length.")]
FourBitOption = Annotated[
    bool, typer.Option("--four-bit", help="Hold the base model in 4 bits a weight (CUDA and bitsandbytes).")
]
EpochsOption = Annotated[int, typer.Option(help="At most so many passes.")]
PatienceOption = Annotated[int, typer.Option(help="Epochs without a lower validation loss before stopping.")]
RateOption = Annotated[float, typer.Option(help="Highest learning rate of AdamW.")]
DecayOption = Annotated[float, typer.Option(help="AdamW's weight decay.")]
BatchOption = Annotated[int, typer.Option(help="Lesions a step.")]
ValidationOption = Annotated[float, typer.Option(help="Share of the training lesions for early stopping.")]
RankOption = Annotated[int, typer.Option(help="Rank of the adapter.")]
AlphaOption = Annotated[int, typer.Option(help="Scale of the adapter.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
DEFAULT_BASE = "smollm2-135m-instruct"


FoldsOption = Annotated[int, typer.Option(help="Folds of the cross-validation in the card; 0 for none.")]
MethodOption = Annotated[
    str,
    typer.Option(
        help="lora, fusion, fusion-averaged, fusion-lda, fusion-svm, fusion-forest, fusion-boosting, fusion-lora, "
        "weighted or frozen."
    ),
]
SelectionOption = Annotated[
    str, typer.Option(help="mrmr; filtered: without correlated features, the number chosen by inner folds; none.")
]
StyleOption = Annotated[str, typer.Option(help="How the prompt words a feature: numbers, findings or generic.")]
ShuffleOption = Annotated[
    bool, typer.Option("--shuffle-order", help="Train on features in another order each time (augmentation).")
]
DescriptionOption = Annotated[str, typer.Option(help="One sentence for the card: what lesions these are.")]
ByOption = Annotated[str | None, typer.Option(help="A descriptor: the card reports each of its values apart.")]
EvaluationsOption = Annotated[
    list[Path] | None, typer.Option("--evaluation", help="evaluation.json of other trials, for the card.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")]
SettingsOption = Annotated[str | None, typer.Option(help="A preset's name or a PyRadiomics parameter file.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the ``radllm`` command."""
    app.command()(train)
    app.command()(adapt)
    app.command()(evaluate)
    app.command("adaptation-curve")(adaptation_curve)


def train(
    table: TableArgument,
    target: TargetOption,
    group: GroupOption,
    output: OutputOption,
    method: MethodOption = "lora",
    base_model: BaseOption = DEFAULT_BASE,
    four_bit: FourBitOption = False,
    settings: SettingsOption = None,
    modality: ModalityOption = None,
    description: DescriptionOption = "",
    by: ByOption = None,
    evaluation: EvaluationsOption = None,
    features: FeaturesOption = 8,
    selection: SelectionOption = "mrmr",
    style: StyleOption = "numbers",
    shuffle_order: ShuffleOption = False,
    scale_free: ScaleFreeOption = False,
    epochs: EpochsOption = 4,
    patience: PatienceOption = 2,
    learning_rate: RateOption = 5e-4,
    weight_decay: DecayOption = 0.01,
    batch_size: BatchOption = 8,
    validation: ValidationOption = 0.2,
    rank: RankOption = 16,
    alpha: AlphaOption = 32,
    seed: SeedOption = 0,
    folds: FoldsOption = 5,
) -> None:
    """Train a model on a table of lesions; the same command after a crash goes on where it was."""
    from radllm_backend.features.extraction import load_settings
    from radllm_backend.features.table import read_table
    from radllm_backend.learning.fit import parse_options
    from radllm_backend.learning.plan import TrainingPlan

    base = _locate(base_model, four_bit)
    plan = TrainingPlan(
        table=read_table(table),
        table_path=table,
        target=target,
        group=group,
        base=base,
        options=parse_options(
            features=features,
            selection=selection,
            style=style,
            shuffle_order=shuffle_order,
            scale_free=scale_free,
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            validation=validation,
            rank=rank,
            alpha=alpha,
            seed=seed,
            folds=folds,
        ),
        output=output,
        method=method,
        settings=load_settings(settings) if settings else None,
        modality=modality,
        description=description,
        by=by,
        evaluations=tuple(evaluation or ()),
    )
    _build(plan)


def adapt(
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
    features: FeaturesOption = 8,
    scale_free: ScaleFreeOption = False,
    epochs: EpochsOption = 4,
    patience: PatienceOption = 2,
    learning_rate: RateOption = 5e-4,
    batch_size: BatchOption = 8,
    seed: SeedOption = 0,
    folds: FoldsOption = 5,
) -> None:
    """Continue a model on lesions with another set of features: names it knows stay first, new ones join the prompt."""
    from radllm_backend.features.extraction import load_settings
    from radllm_backend.features.table import read_table
    from radllm_backend.learning.fit import parse_options
    from radllm_backend.learning.plan import TrainingPlan, continued, inherited, method_of

    origin = continued(model)
    base = _locate(base_model or origin.card.base.name, four_bit)
    plan = TrainingPlan(
        table=read_table(table),
        table_path=table,
        target=target,
        group=group,
        base=base,
        options=parse_options(
            features=features,
            **inherited(origin),
            scale_free=scale_free,
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            folds=folds,
        ),
        output=output,
        method=method_of(origin),
        settings=load_settings(settings) if settings else None,
        modality=modality,
        description=description,
        origin=origin,
    )
    _build(plan)


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
    features: FeaturesOption = 8,
    scale_free: ScaleFreeOption = False,
    epochs: EpochsOption = 4,
    patience: PatienceOption = 2,
    learning_rate: RateOption = 5e-4,
    batch_size: BatchOption = 8,
    seed: SeedOption = 0,
) -> None:
    """What adapting to a new data set is worth: AUC over the number of its lesions that are labelled."""
    from radllm_backend.features.table import read_table
    from radllm_backend.learning.adaptation import Cohort, Experiment, run_experiment
    from radllm_backend.learning.fit import parse_options
    from radllm_backend.reports.adaptation import write_adaptation
    from radllm_backend.reports.evaluation_plots import check_drawing

    check_output_folder(output)
    check_drawing()  # before the hours rather than after them

    def data(path: Path, modality: str | None) -> Cohort:
        return Cohort.from_table(read_table(path), target, group, modality=modality, scale_free=scale_free)

    experiment = Experiment(
        source=data(source, source_modality),
        target=data(target_table, target_modality),
        base=_locate(base_model),
        options=parse_options(
            features=features,
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
        ),
        work=output / "work",
        command=command_line(),
        sizes=_sizes(sizes),
        repeats=repeats,
    )
    with describing() as report:
        curve = run_experiment(experiment, report)
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


def _build(plan: Any) -> None:
    from radllm_backend.learning.build import train as train_bundle

    with describing() as report:
        bundle = train_bundle(plan, report)
    if not distributed.leave():
        return
    typer.echo(f"The model {bundle.card.name} lies in {plan.output}; its card is {plan.output / 'README.md'}.")
    for row in bundle.card.performance:
        low, high = row.auc_interval
        typer.echo(f"  AUC {row.auc:.3f} ({low:.3f} to {high:.3f})  {row.model}")


def evaluate(
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
    folds: Annotated[int, typer.Option(help="Outer folds.")] = 5,
    inner_folds: Annotated[int, typer.Option(help="Inner folds, which choose what is left open.")] = 5,
    seeds: Annotated[int, typer.Option(help="How often the lesions are divided anew.")] = 3,
    trained_seeds: Annotated[int, typer.Option(help="For how many of these an adapter is trained.")] = 1,
    split: Annotated[str | None, typer.Option(help="Column that says train or test, instead of folds.")] = None,
    shuffle_labels: Annotated[
        bool,
        typer.Option(
            "--shuffle-labels", help="Deal the labels out at random, anew with each seed: AUCs should be near 0.5."
        ),
    ] = False,
    features: FeaturesOption = 8,
    selection: SelectionOption = "mrmr",
    style: StyleOption = "numbers",
    shuffle_order: ShuffleOption = False,
    scale_free: ScaleFreeOption = False,
    epochs: EpochsOption = 4,
    patience: PatienceOption = 2,
    learning_rate: RateOption = 5e-4,
    batch_size: BatchOption = 8,
    seed: SeedOption = 0,
) -> None:
    """Compare models on a table of lesions by nested cross-validation; the same command goes on where it was."""
    from radllm_backend.features.table import read_table
    from radllm_backend.learning.compared_models import compared_models
    from radllm_backend.learning.fit import parse_options
    from radllm_backend.learning.table_study import EvaluationPlan, evaluate_table
    from radllm_backend.reports.evaluation import write_evaluation
    from radllm_backend.reports.evaluation_plots import check_drawing

    check_output_folder(output)
    check_drawing()  # before the hours rather than after them
    base = _locate(base_model, four_bit) if language else None
    _at_least_one(folds=folds, inner_folds=inner_folds, seeds=seeds, trained_seeds=trained_seeds)
    given = {
        "features": features,
        "selection": selection,
        "style": style,
        "shuffle_order": shuffle_order,
        "scale_free": scale_free,
        "epochs": epochs,
        "patience": patience,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
    }
    plan = EvaluationPlan(
        table=read_table(table),
        table_path=table,
        target=target,
        group=group,
        base=base,
        options=parse_options(**given),
        work=output / "work",
        command=command_line(),
        modality=modality,
        folds=folds,
        inner_folds=inner_folds,
        seeds=seeds,
        trained_seeds=trained_seeds,
        split=split,
        shuffle_labels=shuffle_labels,
    )
    named: Any = tuple(word.strip() for word in families.split(",") if word.strip())
    chosen = compared_models(language, lora, ablations, named, costly)
    with describing() as report:
        scorecard, outcomes = evaluate_table(plan, chosen, report)
    if not distributed.leave():
        return
    write_evaluation(output, scorecard, outcomes)
    for model in sorted(scorecard.models, key=lambda one: -one.auc.value):
        typer.echo(f"  AUC {model.auc.value:.3f} ({model.auc.low:.3f} to {model.auc.high:.3f})  {model.model}")
    typer.echo(f"Report: {output / 'evaluation.html'}")


def _locate(base_model: str, four_bit: bool = False) -> Any:
    from radllm_backend.language.base_models import in_four_bits, locate

    return in_four_bits(locate(base_model)) if four_bit else locate(base_model)


def _at_least_one(**given: int) -> None:
    for name, value in given.items():
        if value < 1:
            raise RadllmError(f"--{name.replace('_', '-')} is {value}: use 1 or more.")
