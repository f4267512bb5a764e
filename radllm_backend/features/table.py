"""Tables of lesions: a CSV, one row a lesion, one column a feature or descriptor, and whatever else the user keeps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical, descriptor_name
from radllm_backend.features.names import is_canonical
from radllm_backend.files import sha256_of, write_atomically
from radllm_backend.records import Extraction, Features

LESION = "lesion"
EXTRACTION = "extraction"
_LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}


@dataclass(frozen=True)
class FeatureTable:
    """Feature values and descriptors of many lesions, with the other columns of their table."""

    name: str
    """The file's name, for messages."""
    features: tuple[str, ...]
    """PyRadiomics names, in the order of the columns."""
    values: NDArray[np.float64]
    """Lesions × features; NaN where a cell is empty."""
    descriptors: tuple[str, ...]
    """Names of the radiologist's categorical findings (`descriptors.VOCABULARIES`), in the order of the columns."""
    categories: NDArray[np.str_]
    """Lesions × descriptors; canonical values, empty where a cell is."""
    columns: dict[str, list[str]]
    """Every other column as text."""
    extractions: tuple[Extraction | None, ...]
    """Provenance of each row, where the table keeps it."""
    sha256: str = ""
    """Of the file that it was read from; empty for a table that was made otherwise."""

    def __len__(self) -> int:
        return len(self.values)

    def lesions(self) -> list[str]:
        """The lesions' identifiers; their row numbers where the table names none."""
        return self.columns.get(LESION) or [str(row) for row in range(1, len(self) + 1)]

    def column(self, name: str) -> list[str]:
        """A column as text; RadllmError where it is absent or a cell is empty."""
        if name not in self.columns:
            raise RadllmError(
                f"{self.name} has no column '{name}': its other columns are {', '.join(self.columns) or 'none'}."
            )
        for row, cell in enumerate(self.columns[name], start=2):
            if not cell:
                raise RadllmError(f"{self.name} has an empty '{name}' in line {row}: fill it in or leave the row out.")
        return self.columns[name]

    def labels(self, target: str) -> NDArray[np.int_]:
        """0 for benign, 1 for malignant; RadllmError for any other word, or where a class is absent."""
        cells = self.column(target)
        for row, cell in enumerate(cells, start=2):
            if cell.lower() not in _LABELS:
                raise RadllmError(
                    f"{self.name} has '{cell[:40]}' as '{target}' in line {row}: use benign and malignant, or 0 and 1."
                )
        labels = np.array([_LABELS[cell.lower()] for cell in cells])
        if len(set(labels.tolist())) < 2:
            raise RadllmError(f"All lesions of {self.name} have the same '{target}': training needs both classes.")
        return labels

    def rows(self) -> list[Features]:
        """Each lesion's features."""
        return [
            Features(
                values={name: _or_none(value) for name, value in zip(self.features, row, strict=True)},
                extraction=extraction,
                descriptors=dict(zip(self.descriptors, given, strict=True)),
            )
            for row, given, extraction in zip(
                self.values.tolist(), self.categories.tolist(), self.extractions, strict=True
            )
        ]


def read_table(path: str | Path) -> FeatureTable:
    """A CSV with a heading line (UTF-8, comma-separated).

    Columns under PyRadiomics names are the features, those that begin with ``descriptor_`` the descriptors; a table
    needs one of either.

    Raises:
        RadllmError: no such file, not a CSV, neither a feature nor a descriptor, an unknown descriptor, a column
            twice, or a cell that is not a number or not in its descriptor's vocabulary.
    """
    path = Path(path)
    heading, rows = _cells(path)
    features = tuple(name for name in heading if is_canonical(name))
    described = tuple(name for name in heading if name.startswith(PREFIX))
    if not features and not described:
        raise RadllmError(
            f"{path.name} has no column with a PyRadiomics feature name such as 'original_shape2D_Sphericity', nor a "
            f"descriptor such as '{PREFIX}mass_shape': make the table with radllm extract."
        )
    own = {*features, *described, EXTRACTION}
    where = {name: index for index, name in enumerate(heading)}
    return FeatureTable(
        name=path.name,
        features=features,
        values=np.array(
            [
                [_value(row[where[name]], name, path.name, line) for name in features]
                for line, row in enumerate(rows, start=2)
            ]
        ),
        descriptors=tuple(_descriptor(name, path.name) for name in described),
        categories=np.array(
            [
                [_category(row[where[name]], name, path.name, line) for name in described]
                for line, row in enumerate(rows, start=2)
            ],
            dtype=str,
        ),
        columns={name: [row[where[name]].strip() for row in rows] for name in heading if name not in own},
        extractions=tuple(
            _provenance(row[where[EXTRACTION]] if EXTRACTION in where else "", path.name, line)
            for line, row in enumerate(rows, start=2)
        ),
        sha256=sha256_of(path),
    )


def write_table(path: Path, rows: Sequence[tuple[dict[str, str], Features]]) -> None:
    """Each lesion's own columns, descriptors, feature values and provenance (JSON, last column), all or nothing.

    Rows may have different features and descriptors: a value that a row lacks is empty. Where a lesion's own columns
    name a descriptor too, the lesion's descriptor counts.
    """
    descriptors = list(dict.fromkeys(name for _, row in rows for name in row.descriptors))
    described = [PREFIX + name for name in descriptors]
    others = list(dict.fromkeys(name for columns, _ in rows for name in columns if name not in described))
    features = list(dict.fromkeys(name for _, row in rows for name in row.values))
    lines: list[list[str]] = [[*others, *described, *features, EXTRACTION]]
    for columns, row in rows:
        cells = [row.values.get(name) for name in features]
        lines.append(
            [
                *(columns.get(name, "") for name in others),
                *(row.descriptors.get(name, "") for name in descriptors),
                *("" if cell is None else repr(cell) for cell in cells),
                row.extraction.model_dump_json() if row.extraction else "",
            ]
        )
    write_csv(path, lines)


def write_csv(path: Path, lines: Iterable[Sequence[str]]) -> None:
    """A UTF-8 CSV file, complete or not at all."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    write_atomically(path, buffer.getvalue())


def read_rows(path: str | Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of any CSV by heading; RadllmError where one of the required columns is absent."""
    path = Path(path)
    heading, rows = _cells(path)
    for name in required:
        if name not in heading:
            raise RadllmError(f"{path.name} has no column '{name}': it has {', '.join(heading)}.")
    return [dict(zip(heading, (cell.strip() for cell in row), strict=True)) for row in rows]


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.is_file():
        raise RadllmError(f"There is no table {path.name}: check the path.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RadllmError(f"{path.name} is not a UTF-8 CSV file: export the table as CSV.") from error
    if len(lines) < 2:
        raise RadllmError(f"{path.name} has no rows: it needs a heading line and one line a lesion.")
    heading = [cell.strip() for cell in lines[0]]
    for index, name in enumerate(heading):
        if not name or name in heading[:index]:
            raise RadllmError(
                f"{path.name} has {'two columns' if name else 'a column without a name, or'} '{name}': "
                "give each column one name."
            )
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(heading):
            raise RadllmError(
                f"{path.name} has {len(line)} cells in line {number} and {len(heading)} in its heading: mend the line."
            )
    return heading, lines[1:]


def _value(cell: str, name: str, table: str, line: int) -> float:
    text = cell.strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RadllmError(
            f"{table} has '{text[:40]}' as '{name}' in line {line}: use a finite number or an empty cell."
        )
    return value


def _descriptor(column: str, table: str) -> str:
    name = column.removeprefix(PREFIX)
    try:
        descriptor_name(name)
    except RadllmError as error:
        raise RadllmError(f"{table} has a column '{column[:60]}': {error}") from error
    return name


def _category(cell: str, column: str, table: str, line: int) -> str:
    try:
        return canonical(column.removeprefix(PREFIX), cell)
    except RadllmError as error:
        raise RadllmError(f"Line {line} of {table}: {error}") from error


def _provenance(cell: str, table: str, line: int) -> Extraction | None:
    if not cell.strip():
        return None
    try:
        return Extraction.model_validate_json(cell)
    except ValidationError as error:
        raise RadllmError(
            f"{table} has a damaged '{EXTRACTION}' column in line {line}: extract the features anew."
        ) from error


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def modality_of(table: FeatureTable, given: str | None) -> str:
    """The one modality of a table's lesions, as given or as its provenance says."""
    found = {given} if given else {row.modality for row in table.extractions if row and row.modality}
    if len(found) != 1:
        words = f"mixes {', '.join(sorted(found))}" if found else "does not say the modality of its images"
        raise RadllmError(f"{table.name} {words}: give --modality MG, US, CT or MR.")
    return str(found.pop())
