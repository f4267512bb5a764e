"""The two data sets of Ra et al. 2025 as tables of complete features in two parts: VinDr-Mammo and INbreast.

Everything that was finished is kept in the output folder: the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from radllm_backend.datasets import inbreast, vindr_mammo
from radllm_backend.datasets.birads import PAPER_RULE, LabelRule
from radllm_backend.datasets.collecting import Manifest
from radllm_backend.datasets.manifest import extract_usable
from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import IntArray
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.table import FeatureTable, read_table, write_csv, write_table
from radllm_backend.files import write_atomically
from radllm_backend.records import Features, Progress

PaperDataSet = Literal["VinDr-Mammo", "INbreast"]

VINDR: PaperDataSet = "VinDr-Mammo"
INBREAST: PaperDataSet = "INbreast"
FOLDERS: dict[PaperDataSet, str] = {VINDR: "vindr-mammo", INBREAST: "inbreast"}
"""Of each data set's tables, in the output folder."""
TARGET, GROUP, SPLIT = "label", "patient", "split"
_TRAINING, _TEST = "training", "test"
_SETTINGS = "mammography"  # the paper's 67 features
_FEWEST = 2  # patients of a class to learn from, and lesions of a class to be judged on
_LOOKING, _FIRST = 0.2, 0.9  # of the progress: both data sets looked at, and the first one measured


@dataclass(frozen=True)
class Sources:
    """Where the data sets lie, and what of them is used."""

    vindr: Path
    """The folder with ``finding_annotations.csv`` and ``images``."""
    inbreast: Path
    """The folder with ``INbreast.csv``, ``AllDICOMs`` and ``AllXML``."""
    mask: vindr_mammo.MaskKind = "grown"
    all_findings: bool = False
    """Every boxed finding and outlined region rather than the masses: the paper is about tumours."""
    inbreast_rule: LabelRule = PAPER_RULE


@dataclass(frozen=True)
class MeasuredDataSet:
    """A data set as a table of lesions with a value of every feature, in two parts that share no patient."""

    name: PaperDataSet
    path: Path
    table: FeatureTable
    lesions: Lesions
    training: IntArray
    """Row numbers."""
    test: IntArray
    left_out: int
    """Annotated lesions that could not be used, or that the label rule does not know."""
    dropped: int
    """Lesions without a value of every feature."""


def measure_data_sets(
    sources: Sources, output: Path, seed: int, progress: Progress
) -> tuple[MeasuredDataSet, MeasuredDataSet]:
    """VinDr-Mammo in its published parts, and INbreast in halves of its patients, drawn by the seed.

    For each, the output folder gets a folder with the manifest, the masks, ``features.csv`` and ``left-out.txt``.

    Raises:
        RadllmError: a folder is not the data set's, a part lacks lesions of a class, or something cannot be written.
    """
    first, second = _look(sources, output, seed, within(progress, 0.0, _LOOKING))
    return (
        _measured(VINDR, first, output, within(progress, _LOOKING, _FIRST)),
        _measured(INBREAST, second, output, within(progress, _FIRST, 1.0)),
    )


def within(progress: Progress, low: float, high: float) -> Progress:
    """Tells of a step whose progress is a part of the whole."""
    return lambda what, done: progress(what, low + (high - low) * done)


def _look(sources: Sources, output: Path, seed: int, progress: Progress) -> tuple[Manifest, Manifest]:
    """Both data sets before any lesion is measured: what is wrong with either is known early."""
    for root, table, name in (
        (sources.vindr, vindr_mammo.TABLE, VINDR),
        (sources.inbreast, inbreast.TABLE, INBREAST),
    ):
        if not (root / table).is_file():
            raise RadllmError(f"There is no {table} in {root}: give the folder of {name}.")
    findings = () if sources.all_findings else ("Mass",)
    second = inbreast.manifest(
        sources.inbreast.resolve(),
        _folder(output, INBREAST) / "masks",
        rule=sources.inbreast_rule,
        findings=findings,
        progress=_counted(within(progress, 0.0, 0.1), f"reading {INBREAST}"),
    )
    second = _halved(second, seed)
    _check_parts(INBREAST, second.rows)
    first = vindr_mammo.manifest(
        sources.vindr.resolve(),
        _folder(output, VINDR) / "masks",
        mask=sources.mask,
        categories=findings,
        progress=_counted(within(progress, 0.1, 1.0), f"reading {VINDR}"),
    )
    _check_parts(VINDR, first.rows)
    return first, second


def _halved(manifest: Manifest, seed: int) -> Manifest:
    """With the part of each lesion."""
    labels = np.array([int(row[TARGET] == "malignant") for row in manifest.rows])
    patients = np.array([row[GROUP] for row in manifest.rows])
    try:
        training, _ = split_by_patient(Lesions((), np.empty((len(labels), 0)), labels, patients), 0.5, seed)
    except RadllmError as error:
        raise RadllmError(f"{INBREAST} cannot be halved: {error}") from error
    chosen = set(training.tolist())
    parts = [_TRAINING if number in chosen else _TEST for number in range(len(labels))]
    rows = [{**row, SPLIT: part} for row, part in zip(manifest.rows, parts, strict=True)]
    return Manifest(rows, manifest.left_out)


def _check_parts(name: PaperDataSet, rows: Sequence[dict[str, str]]) -> None:
    """There are enough patients to learn from and lesions to be judged on; RadllmError says where not."""
    for part, counted, what in ((_TRAINING, GROUP, "patients"), (_TEST, "lesion", "lesions")):
        benign, malignant = (
            len({row[counted] for row in rows if (row[SPLIT], row[TARGET]) == (part, label)})
            for label in ("benign", "malignant")
        )
        if min(benign, malignant) < _FEWEST:
            raise RadllmError(
                f"The {part} part of {name} has {benign} benign and {malignant} malignant {what} that can be used and "
                f"at least {_FEWEST} of each are needed: check that all of the data set is there."
            )


def _measured(name: PaperDataSet, manifest: Manifest, output: Path, progress: Progress) -> MeasuredDataSet:
    """The features of every lesion that has them all."""
    folder = _folder(output, name)
    kept = folder / "work" / "features"
    path, table = folder / "manifest.csv", folder / "features.csv"
    write_csv(path, [list(manifest.rows[0]), *(list(row.values()) for row in manifest.rows)])
    extracted, unreadable = extract_usable(
        path, load_settings(_SETTINGS), kept, _counted(progress, f"measuring {name}")
    )
    complete = [(others, features) for others, features in extracted if _has_all(features)]
    dropped = [
        f"{others['lesion']}: a feature has no value." for others, features in extracted if not _has_all(features)
    ]
    left_out = [*manifest.left_out, *unreadable]
    write_atomically(folder / "left-out.txt", "".join(f"{sentence}\n" for sentence in [*left_out, *dropped]))
    _check_parts(name, [others for others, _ in complete])
    write_table(table, complete)
    written = read_table(table)
    training = np.array([others[SPLIT] == _TRAINING for others, _ in complete])
    return MeasuredDataSet(
        name,
        table,
        written,
        Lesions.from_table(written, TARGET, GROUP),
        np.flatnonzero(training),
        np.flatnonzero(~training),
        len(left_out),
        len(dropped),
    )


def _has_all(features: Features) -> bool:
    return all(value is not None for value in features.values.values())


def _folder(output: Path, name: PaperDataSet) -> Path:
    return output / FOLDERS[name]


def _counted(progress: Progress, what: str) -> Progress:
    return lambda _step, done: progress(what, done)
