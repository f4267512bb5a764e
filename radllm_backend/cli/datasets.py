"""The commands ``radllm dataset ...``: data sets in their published layout as a manifest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from radllm_backend.cli.support import check_output_file, describing
from radllm_backend.errors import RadllmError

if TYPE_CHECKING:
    from radllm_backend.datasets.birads import LabelRule

datasets_app = typer.Typer(help="Data sets in their published layout, as a manifest.")

ManifestFileOption = Annotated[Path, typer.Option("--output", "-o", help="CSV file for the manifest.")]
MasksOption = Annotated[
    Path | None, typer.Option(help="Folder for the masks that are made; by default NAME-masks beside NAME.csv.")
]
BenignOption = Annotated[str, typer.Option(help="BI-RADS categories that count as benign, separated by commas.")]
MalignantOption = Annotated[str, typer.Option(help="BI-RADS categories that count as malignant.")]
FindingsOption = Annotated[str, typer.Option(help="Only these findings, separated by commas, or 'all'.")]
DescriptorsOption = Annotated[
    bool, typer.Option("--descriptors", help="With the radiologist's findings, as columns descriptor_...")
]
TablesOnlyOption = Annotated[
    bool, typer.Option("--tables-only", help="No images: a table of descriptors that train and evaluate read.")
]
AssessmentOption = Annotated[
    bool, typer.Option("--assessment", help="With the BI-RADS assessment among the descriptors: the reader's verdict.")
]
_ALL: Final = "all"
_REASONS_SHOWN = 3


@datasets_app.command("vindr-mammo")
def vindr_mammo(
    root: Annotated[Path, typer.Argument(help="Folder with finding_annotations.csv and the folder images.")],
    output: ManifestFileOption,
    masks: MasksOption = None,
    mask: Annotated[
        Literal["grown", "box"], typer.Option(help="The bright lesion inside the box, or the box itself.")
    ] = "grown",
    findings: FindingsOption = _ALL,
    benign: BenignOption = "3",
    malignant: MalignantOption = "4,5,6",
    descriptors: DescriptorsOption = False,
) -> None:
    """VinDr-Mammo: mammograms with boxed findings; BI-RADS, by a rule, as label."""
    from radllm_backend.datasets.vindr_mammo import manifest

    check_output_file(output)
    rule = _rule(benign, malignant)
    with describing(in_logs=False) as progress:
        found = manifest(
            root.resolve(),
            _masks_folder(masks, output),
            mask=mask,
            rule=rule,
            categories=_words(findings),
            descriptors=descriptors,
            progress=progress,
        )
    _write(output, found.rows, found.left_out)


@datasets_app.command()
def inbreast(
    root: Annotated[Path, typer.Argument(help="Folder with INbreast.csv and the folders AllDICOMs and AllXML.")],
    output: ManifestFileOption,
    masks: MasksOption = None,
    findings: FindingsOption = "Mass",
    benign: BenignOption = "3",
    malignant: MalignantOption = "4,5,6",
    descriptors: DescriptorsOption = False,
) -> None:
    """INbreast: mammograms with outlined regions; BI-RADS, by a rule, as label."""
    from radllm_backend.datasets.inbreast import manifest

    check_output_file(output)
    rule = _rule(benign, malignant)
    with describing(in_logs=False) as progress:
        found = manifest(
            root.resolve(),
            _masks_folder(masks, output),
            rule=rule,
            findings=_words(findings),
            descriptors=descriptors,
            progress=progress,
        )
    _write(output, found.rows, found.left_out)


@datasets_app.command("cbis-ddsm")
def cbis_ddsm(
    root: Annotated[Path, typer.Argument(help="Folder with the ..._case_description_..._set.csv and the images.")],
    output: ManifestFileOption,
    masks: MasksOption = None,
    kind: Annotated[
        Literal["all", "mass", "calcification"], typer.Option(help="Masses, calcifications or both.")
    ] = "all",
    tables_only: TablesOnlyOption = False,
    descriptors: DescriptorsOption = False,
    assessment: AssessmentOption = False,
) -> None:
    """CBIS-DDSM: digitised film mammograms with outlined lesions; pathology as truth."""
    from radllm_backend.datasets.cbis_ddsm import ABNORMALITY_TYPES, find_tables, manifest, tabulate

    check_output_file(output)
    kinds = ABNORMALITY_TYPES if kind == _ALL else (kind,)
    if tables_only:
        _write(output, tabulate(find_tables(root.resolve()), kinds=kinds, assessment=assessment), [])
        return
    with describing(in_logs=False) as progress:
        found = manifest(
            root.resolve(),
            _masks_folder(masks, output),
            kinds=kinds,
            descriptors=descriptors or assessment,
            assessment=assessment,
            progress=progress,
        )
    _write(output, found.rows, found.left_out)


@datasets_app.command("breast-us")
def breast_us(
    root: Annotated[Path, typer.Argument(help="Folder with cases.csv and the folder images.")],
    output: ManifestFileOption,
    tables_only: TablesOnlyOption = False,
    descriptors: DescriptorsOption = False,
    assessment: AssessmentOption = False,
) -> None:
    """BrEaST (Breast-Lesions-USG): breast ultrasound, pathology or follow-up as truth."""
    from radllm_backend.datasets.breast_us import manifest
    from radllm_backend.datasets.manifest import FILE_COLUMNS

    check_output_file(output)
    rows = manifest(root.resolve(), descriptors=descriptors or assessment or tables_only, assessment=assessment)
    if not rows:
        raise RadllmError("cases.csv names no lesion with a mask: download the data set again.")
    if tables_only:
        rows = [{name: cell for name, cell in row.items() if name not in FILE_COLUMNS} for row in rows]
    _write(output, rows, [])


@datasets_app.command("manifest")
def own_manifest(
    file: Annotated[Path, typer.Argument(help="Your own CSV with the columns image and mask.")],
    output: ManifestFileOption,
    target: Annotated[
        str | None, typer.Option(help="Column that says benign or malignant; 'label' where there is one.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that names the patient; 'patient' where there is one.")
    ] = None,
) -> None:
    """Your own lesions: check a manifest before the images are read, and write it with absolute paths."""
    from radllm_backend.datasets.manifest import check_manifest

    check_output_file(output)
    _write(output, check_manifest(file.resolve(), target, group), [])


@datasets_app.command()
def phantoms(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images and masks.")],
) -> None:
    """Two synthetic ultrasound-like lesions, one smooth and oval, one spiculated."""
    from radllm_backend.datasets.phantoms import write_phantoms

    write_phantoms(output)
    typer.echo(f"Two synthetic lesions: {output}")


def _write(output: Path, rows: Sequence[dict[str, str]], left_out: Sequence[str]) -> None:
    """The manifest, and what is not in it: the reasons on standard error, every lesion in a file beside it."""
    from radllm_backend.datasets.collecting import reasons
    from radllm_backend.features.table import write_csv
    from radllm_backend.files import write_atomically

    write_csv(output, [list(rows[0]), *(list(row.values()) for row in rows)])
    beside = output.with_name(f"{output.stem}-left-out.txt")
    with contextlib.suppress(OSError):
        beside.unlink()  # of an earlier run
    if left_out:
        write_atomically(beside, "\n".join(left_out) + "\n")
        typer.echo(f"{len(left_out)} left out, listed in {beside}:", err=True)
        for reason, count in reasons(left_out)[:_REASONS_SHOWN]:
            typer.echo(f"  {count} × {reason}", err=True)
    labels = Counter(row.get("label", "") for row in rows)
    counts = "".join(f", {count} {label}" for label, count in sorted(labels.items()) if label)
    typer.echo(f"{len(rows)} lesions{counts}: {output}")


def _masks_folder(given: Path | None, output: Path) -> Path:
    return (given or output.with_name(f"{output.stem}-masks")).resolve()


def _rule(benign: str, malignant: str) -> LabelRule:
    from radllm_backend.datasets.birads import LabelRule

    return LabelRule(benign=_words(benign), malignant=_words(malignant))


def _words(text: str) -> tuple[str, ...]:
    """The parts between commas; none for 'all'."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    return () if words == (_ALL,) else words
