"""The commands for one lesion: ``radllm classify``, ``describe``, ``verify`` and ``extract``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radllm_backend.cli.support import check_output_file, check_output_folder, describing
from radllm_backend.errors import RadllmError, counted

if TYPE_CHECKING:
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.bundle import ModelCard
    from radllm_backend.models.prediction import Prediction
    from radllm_backend.reports.dicom_sources import SourceFiles

ImageArgument = Annotated[Path, typer.Argument(help="Image: DICOM file or folder, NRRD, NIfTI, PNG, TIFF or JPEG.")]
MaskArgument = Annotated[Path, typer.Argument(help="Mask: NRRD, .seg.nrrd, NIfTI, PNG or TIFF on the image's grid.")]
LabelOption = Annotated[int | None, typer.Option(help="The lesion's value in a mask with several labels.")]
SegmentOption = Annotated[str | None, typer.Option(help="The lesion's segment in a .seg.nrrd, by name or ID.")]
SpacingOption = Annotated[str | None, typer.Option(help="Millimetres per pixel where the image has none: 0.07 or x;y.")]
ImageModalityOption = Annotated[str | None, typer.Option(help="MG, US, CT or MR where the image does not say it.")]
ResampleOption = Annotated[bool, typer.Option("--resample", help="Bring a mask on another grid to the image's.")]
SeriesOption = Annotated[str | None, typer.Option(help="Series instance UID in a folder with several.")]
ModelOption = Annotated[str, typer.Option(help="A shipped model's name or the folder of a trained one.")]
LocatedBaseOption = Annotated[str | None, typer.Option(help="Base model: a name, a pulled hub name or a folder.")]
DescriptorOption = Annotated[
    list[str] | None, typer.Option("--descriptor", help="What the radiologist sees: mass_shape=oval; repeatable.")
]
ConfidenceOption = Annotated[float, typer.Option(help="Of the uncertain band, 0.5 to 0.99: the higher, the wider.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the ``radllm`` command."""
    app.command()(classify)
    app.command()(describe)
    app.command("verify")(verify_prediction)
    app.command("extract")(extract_command)


def classify(
    image: ImageArgument,
    mask: MaskArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    model: ModelOption = "breast-us",
    label: LabelOption = None,
    segment: SegmentOption = None,
    spacing: SpacingOption = None,
    modality: ImageModalityOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every label or segment, each in a folder of its own.")] = False,
    resample: ResampleOption = False,
    series: SeriesOption = None,
    base_model: LocatedBaseOption = None,
    descriptor: DescriptorOption = None,
    confidence: ConfidenceOption = 0.8,
    stable: Annotated[
        bool, typer.Option("--stability", help="Also the range of the probability under slightly other outlines.")
    ] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Also segmentation.dcm and report.dcm, for an image from DICOM.")
    ] = False,
    identifiers: Annotated[
        bool, typer.Option("--identifiers", help="These two say whose they are: for the archive the image is in.")
    ] = False,
) -> None:
    """Classify a segmented lesion: prediction.json, features.csv, report.html, report.pdf and key-image.png."""
    from radllm_backend.cli.console import show_prediction
    from radllm_backend.features.descriptors import parse_descriptors
    from radllm_backend.features.extraction import extract
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.conformal import check_confidence
    from radllm_backend.models.model import Model
    from radllm_backend.models.outline_stability import stability
    from radllm_backend.reports.files import write_reports

    check_output_folder(output)
    check_confidence(confidence)
    descriptors = parse_descriptors(descriptor or [])
    source = _dicom_source(image, series) if dicom else None
    chosen = Model.load(model, base_model)
    _refuse_unread(descriptors, chosen.card)
    reading = _reading(spacing, modality, resample, series)
    picture = source.image if source else image
    if every:
        lesions = Lesion.all_from_files(picture, mask, **reading)
        folders = [output / f"lesion-{number}" for number in range(1, len(lesions) + 1)]
    else:
        lesions = [Lesion.from_files(picture, mask, label=label, segment=segment, **reading)]
        folders = [output]
    extracted = [extract(lesion, chosen.settings) for lesion in lesions]
    features = [row.model_copy(update={"descriptors": descriptors}) for row in extracted]
    predictions = [chosen.predict(row, confidence=confidence) for row in features]
    if stable:
        predictions = [
            prediction.model_copy(update={"stability": stability(lesion, chosen, prediction)})
            for lesion, prediction in zip(lesions, predictions, strict=True)
        ]
    for folder, prediction, row, lesion in zip(folders, predictions, features, lesions, strict=True):
        write_reports(folder, prediction, row, lesion, chosen.card)
        if source:
            _write_dicom(folder, source, lesion, prediction, identifiers)
        show_prediction(prediction, folder / "report.html", lesion.segment if every else "")


def _dicom_source(image: Path, series: str | None) -> SourceFiles:
    """What SEG and SR refer to; an error at once where the image is not DICOM, or highdicom is missing."""
    import radllm_backend.reports.dicom  # noqa: F401
    from radllm_backend.reports.dicom_sources import SourceFiles

    return SourceFiles.of_image(image, series)


def _write_dicom(folder: Path, source: SourceFiles, lesion: Lesion, prediction: Prediction, identifiers: bool) -> None:
    from radllm_backend.reports.dicom import write_dicom

    write_dicom(folder, source, lesion, prediction, identifiers=identifiers)


def describe(
    descriptors: Annotated[list[str], typer.Argument(help="mass_shape=oval mass_margins=circumscribed ...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    model: Annotated[str, typer.Option(help="A shipped model's name or the folder of a trained one.")] = (
        "mammo-descriptors"
    ),
    base_model: LocatedBaseOption = None,
    confidence: ConfidenceOption = 0.8,
) -> None:
    """Classify a lesion by the radiologist's descriptors alone: prediction.json, features.csv and both reports."""
    from radllm_backend.cli.console import show_prediction
    from radllm_backend.features.descriptors import parse_descriptors
    from radllm_backend.models.conformal import check_confidence
    from radllm_backend.models.model import Model
    from radllm_backend.records import Features
    from radllm_backend.reports.files import write_reports

    check_output_folder(output)
    check_confidence(confidence)
    features = Features(values={}, descriptors=parse_descriptors(descriptors))
    chosen = Model.load(model, base_model)
    _refuse_unread(features.descriptors, chosen.card)
    prediction = chosen.predict(features, confidence=confidence)
    write_reports(output, prediction, features, card=chosen.card)
    show_prediction(prediction, output / "report.html")


def _refuse_unread(descriptors: Iterable[str], card: ModelCard) -> None:
    """RadllmError for a descriptor that the model does not read: nobody would see that it changes nothing."""
    read = [row.descriptor for row in card.descriptors]
    for name in descriptors:
        if name not in read:
            known = f"it reads {', '.join(read)}" if read else "it reads no descriptors"
            raise RadllmError(f"The model {card.name} does not read {name}: leave it out; {known}.")


def verify_prediction(
    record: Annotated[Path, typer.Argument(metavar="PREDICTION.json", help="What radllm classify wrote.")],
    image: ImageArgument,
    mask: MaskArgument,
    model: Annotated[
        str | None, typer.Option(help="The model's folder, or a shipped one's name if not the one in the prediction.")
    ] = None,
    label: LabelOption = None,
    segment: SegmentOption = None,
    spacing: SpacingOption = None,
    modality: ImageModalityOption = None,
    resample: ResampleOption = False,
    series: SeriesOption = None,
    base_model: LocatedBaseOption = None,
) -> None:
    """Repeat a prediction from its prediction.json: match, or the first thing that differs."""
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.model import Model
    from radllm_backend.models.verification import model_of, read_prediction, repeat

    recorded = read_prediction(record)
    chosen = Model.load(model or model_of(recorded), base_model)
    reading = _reading(spacing, modality, resample, series)
    found = repeat(recorded, Lesion.from_files(image, mask, label=label, segment=segment, **reading), chosen)
    if found.first:
        raise RadllmError(f"{record.name} does not come out again: the first difference is {found.first}.")
    typer.echo(f"match: {record.name} comes out again, {recorded.call} with a probability of {recorded.probability!r}")
    for difference in found.versions:
        typer.echo(f"Note, although the numbers agree: {difference}.")


def extract_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file for the features.")],
    settings: Annotated[str, typer.Option(help="A preset's name or a PyRadiomics parameter file.")],
    image: Annotated[Path | None, typer.Argument(help="Image of one lesion.")] = None,
    mask: Annotated[Path | None, typer.Argument(help="Its mask.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with the columns image and mask: many lesions.")] = None,
    label: LabelOption = None,
    segment: SegmentOption = None,
    spacing: SpacingOption = None,
    modality: ImageModalityOption = None,
    resample: ResampleOption = False,
    series: SeriesOption = None,
) -> None:
    """Extract radiomics features of one lesion, or of every lesion of a manifest."""
    from radllm_backend.datasets.manifest import extract_manifest
    from radllm_backend.features.extraction import extract, load_settings
    from radllm_backend.features.table import write_table
    from radllm_backend.files import write_atomically
    from radllm_backend.imaging.lesion import Lesion

    chosen = load_settings(settings)
    check_output_file(output, image, mask, manifest)
    if manifest is not None:
        if image is not None:
            raise RadllmError("An image and a manifest were given: give one of them.")
        with describing(in_logs=False) as progress:
            rows = extract_manifest(manifest, chosen, progress)
        write_table(output, rows)
        typer.echo(f"{counted(len(rows), 'lesion')} with {counted(len(rows[0][1].values), 'feature')} each: {output}")
        return
    if image is None or mask is None:
        raise RadllmError("Nothing to extract: give an image and its mask, or --manifest.")
    reading = _reading(spacing, modality, resample, series)
    features = extract(Lesion.from_files(image, mask, label=label, segment=segment, **reading), chosen)
    write_atomically(output, features.to_csv())
    typer.echo(f"{counted(len(features.values), 'feature')}: {output}")


def _reading(spacing: str | None, modality: str | None, resample: bool, series: str | None) -> dict[str, Any]:
    """How a lesion's files are to be read, as `Lesion` takes it."""
    from radllm_backend.imaging.lesion import parse_spacing

    return {"spacing": parse_spacing(spacing), "modality": modality, "resample": resample, "series": series}
