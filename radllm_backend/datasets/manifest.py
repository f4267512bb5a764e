"""Any data set as a CSV manifest: one row a lesion, with the files it lies in and whatever else is known of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical
from radllm_backend.features.extraction import extract
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.features.names import is_canonical
from radllm_backend.features.table import EXTRACTION, LESION, FeatureTable, read_rows
from radllm_backend.files import write_atomically
from radllm_backend.imaging.lesion import Lesion, parse_spacing
from radllm_backend.records import MODALITIES, Features, Progress

FILE_COLUMNS = ("image", "mask", "mask_label", "segment", "spacing_mm", "modality")
"""Columns that say how to read a lesion (only the first two are required); they do not go into the feature table."""

Extracted = list[tuple[dict[str, str], Features]]
"""Each lesion's other columns (lesion, label, patient, ...) with its features."""


# --- reading --------------------------------------------------------------------------------------------------------


def extract_manifest(path: Path, settings: Settings, progress: Progress | None = None) -> Extracted:
    """The features of every lesion of a manifest.

    Paths are relative to the manifest's folder. ``spacing_mm`` is one number or ``x;y``.

    Raises:
        RadllmError: naming the line and what is wrong with it; nothing is left out silently.
    """
    rows = read_rows(path, FILE_COLUMNS[:2])
    extracted = []
    for number, row in enumerate(rows, start=1):
        try:
            features = extract(lesion_of_row(row, path.parent), settings)
        except RadllmError as error:
            raise RadllmError(f"Line {number + 1} of {path.name}: {error}") from error
        extracted.append((_other_columns(row, number), features))
        if progress:
            progress("Extracting features", number / len(rows))
    return extracted


def extract_usable(
    path: Path, settings: Settings, kept: Path, progress: Progress | None = None
) -> tuple[Extracted, list[str]]:
    """As `extract_manifest` for thousands of lesions: one that cannot be used does not stop it, nor does a crash.

    Args:
        kept: folder that keeps each lesion's features, made if missing: the same call goes on from there.

    Returns:
        The lesions, and one sentence for each that was left out.

    Raises:
        RadllmError: no manifest, or the folder cannot be made.
    """
    rows = read_rows(path, FILE_COLUMNS[:2])
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(f"The folder {kept} cannot be made ({error.strerror}): choose another output.") from error
    extracted: Extracted = []
    left_out = []
    for number, row in enumerate(rows, start=1):
        others = _other_columns(row, number)
        try:
            extracted.append((others, _kept_or_extracted(row, path.parent, settings, kept)))
        except RadllmError as error:
            left_out.append(f"{others[LESION]}: {error}")
        if progress:
            progress("Extracting features", number / len(rows))
    return extracted, left_out


def lesion_of_row(row: dict[str, str], folder: Path) -> Lesion:
    """The lesion of one manifest row."""
    return Lesion.from_files(
        folder / row["image"],
        folder / row["mask"],
        label=_mask_label(row),
        segment=row.get("segment") or None,
        spacing=parse_spacing(row.get("spacing_mm") or None),
        modality=row.get("modality") or None,
    )


def _mask_label(row: dict[str, str]) -> int | None:
    label = row.get("mask_label") or None
    if label is not None and not label.isdecimal():
        raise RadllmError(f"mask_label is '{label[:40]}': use the whole number that the lesion has in the mask.")
    return int(label) if label else None


def _other_columns(row: dict[str, str], number: int) -> dict[str, str]:
    """What goes into the feature table; a lesion without a name gets its number."""
    return {LESION: str(number), **{name: cell for name, cell in row.items() if name not in FILE_COLUMNS}}


def _kept_or_extracted(row: dict[str, str], folder: Path, settings: Settings, kept: Path) -> Features:
    """The features that an earlier run kept under the identity of all they depend on, or new ones, which are kept."""
    file = kept / f"{_identity(row, folder, settings)}.json"
    try:
        return Features.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # not yet, or damaged
        features = extract(lesion_of_row(row, folder), settings)
        write_atomically(file, features.model_dump_json())
        return features


def _identity(row: dict[str, str], folder: Path, settings: Settings) -> str:
    """Of the files as they are now (size and time: hashing a thousand mammograms takes as long as reading them)."""
    reading = [row.get(name, "") for name in FILE_COLUMNS]
    try:
        states = [(folder / row[name]).stat() for name in FILE_COLUMNS[:2]]
    except OSError:
        states = []  # reading it will say so
    files = [(state.st_size, state.st_mtime_ns) for state in states]
    return hashlib.sha256(json.dumps([__version__, settings.sha256, reading, files]).encode()).hexdigest()


# --- checking -------------------------------------------------------------------------------------------------------


def check_manifest(path: Path, target: str | None = None, group: str | None = None) -> list[dict[str, str]]:
    """The rows of a user's own manifest, with absolute paths, after all checks that need not read an image.

    Every image and mask is there, spacing, mask_label, modality and descriptors are what they can be, no lesion has
    another's name, and no column is one that extraction writes or a known one misspelt.

    Args:
        target: column that says benign or malignant, or 0 and 1; by default ``label``, where there is one.
        group: column that names the patient; by default ``patient``, where there is one.

    Raises:
        RadllmError: the first line that is wrong, and how many more are.
    """
    rows = read_rows(path, FILE_COLUMNS[:2])
    _check_columns(list(rows[0]), path.name)
    _check_lines(rows, path)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    nothing = np.empty((len(rows), 0))
    table = FeatureTable(path.name, (), nothing, (), nothing.astype(str), columns, (None,) * len(rows))
    if target or "label" in columns:
        table.labels(target or "label")
    if group or "patient" in columns:
        table.column(group or "patient")
    return [{**row, **{name: str((path.parent / row[name]).resolve()) for name in FILE_COLUMNS[:2]}} for row in rows]


def _check_columns(heading: list[str], manifest: str) -> None:
    known = (*FILE_COLUMNS, LESION)
    for name in heading:
        meant = name.lower().replace(" ", "_").replace("-", "_")
        if meant in known and name not in known:
            raise RadllmError(f"{manifest} has a column '{name}': call it '{meant}'.")
        if name == EXTRACTION or is_canonical(name):
            raise RadllmError(f"{manifest} has a column '{name}', which radllm extract writes: leave it out.")


def _check_lines(rows: list[dict[str, str]], path: Path) -> None:
    named = Counter(row[LESION] for row in rows if LESION in row)
    wrong = []
    for line, row in enumerate(rows, start=2):
        try:
            _check_line(row, path.parent, named)
        except RadllmError as problem:
            wrong.append((line, problem))
    if wrong:
        line, first = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise RadllmError(f"Line {line} of {path.name}{more}: {first}") from first


def _check_line(row: dict[str, str], folder: Path, named: Counter[str]) -> None:
    for name in FILE_COLUMNS[:2]:
        if not row[name] or not (folder / row[name]).exists():
            raise RadllmError(
                f"its {name} '{row[name][-60:]}' is not there: paths are relative to the manifest's folder."
            )
    _mask_label(row)
    parse_spacing(row.get("spacing_mm") or None)
    if row.get("modality") and row["modality"] not in MODALITIES:
        raise RadllmError(f"the modality '{row['modality'][:40]}' is not known: use one of {', '.join(MODALITIES)}.")
    if LESION in row and (not row[LESION] or named[row[LESION]] > 1):
        raise RadllmError(f"the lesion '{row[LESION][:40]}' has no name of its own: give each lesion one.")
    for column, cell in row.items():
        if column.startswith(PREFIX):
            canonical(column.removeprefix(PREFIX), cell)
