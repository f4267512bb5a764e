"""Tables of lesions: a CSV with one row a lesion, one column a feature, and whatever else the user keeps there."""

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
from radllm_backend.feature_names import is_canonical
from radllm_backend.features import Extraction, Features
from radllm_backend.safe_files import write_atomically

LESION = "lesion"
EXTRACTION = "extraction"
_LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}


@dataclass(frozen=True)
class FeatureTable:
    """Feature values of many lesions, with the other columns of their table."""

    name: str
    """The file's name, for messages."""
    features: tuple[str, ...]
    """PyRadiomics names, in the order of the columns."""
    values: NDArray[np.float64]
    """Lesions × features; NaN where a cell is empty."""
    columns: dict[str, list[str]]
    """Every other column as text."""
    extractions: tuple[Extraction | None, ...]
    """Provenance of each row, where the table keeps it."""

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
            )
            for row, extraction in zip(self.values.tolist(), self.extractions, strict=True)
        ]


def read_table(path: str | Path) -> FeatureTable:
    """A CSV with a heading line (UTF-8, comma-separated); columns under PyRadiomics names are the features.

    Raises:
        RadllmError: no such file, not a CSV, no feature column, a column twice, or a cell that is not a number.
    """
    path = Path(path)
    heading, rows = _cells(path)
    features = tuple(name for name in heading if is_canonical(name))
    if not features:
        raise RadllmError(
            f"{path.name} has no column with a PyRadiomics feature name such as 'original_shape2D_Sphericity': "
            "make the table with radllm extract."
        )
    where = {name: index for index, name in enumerate(heading)}
    others = [name for name in heading if name not in set(features) and name != EXTRACTION]
    return FeatureTable(
        name=path.name,
        features=features,
        values=np.array(
            [
                [_value(row[where[name]], name, path.name, line) for name in features]
                for line, row in enumerate(rows, start=2)
            ]
        ),
        columns={name: [row[where[name]].strip() for row in rows] for name in others},
        extractions=tuple(
            _provenance(row[where[EXTRACTION]] if EXTRACTION in where else "", path.name, line)
            for line, row in enumerate(rows, start=2)
        ),
    )


def write_table(path: Path, rows: Sequence[tuple[dict[str, str], Features]]) -> None:
    """Each lesion's own columns, its feature values and its provenance (JSON, last column), all or nothing.

    Rows may have different features: a value that a row lacks is empty.
    """
    others = list(dict.fromkeys(name for columns, _ in rows for name in columns))
    features = list(dict.fromkeys(name for _, row in rows for name in row.values))
    lines: list[list[str]] = [[*others, *features, EXTRACTION]]
    for columns, row in rows:
        cells = [row.values.get(name) for name in features]
        lines.append(
            [
                *(columns.get(name, "") for name in others),
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
