"""The results of a batch as tables for others: CSV and Parquet, one row a lesion, one column a feature."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from radllm_backend.batch.results import Results, Row
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import EXTRACTION

_LARGE = ("prediction", "features", "reading")
"""Columns of a row that a table has no place for: features have columns of their own."""
_WORDS = tuple(name for name in Row.model_fields if name not in _LARGE)
_NUMBERS = {"probability": "float64", "seconds": "float64", "number": "int64"}
_TOGETHER = 500
"""Lesions in memory at a time."""


def write_exports(folder: Path, results: Results, settings_sha256: str, model_sha256: str) -> None:
    """Write ``results.csv`` and ``results.parquet`` of a model and settings, each whole or not at all.

    Streamed, for a batch may be larger than the memory. The CSV is a feature table (`table.read_table`) with
    the provenance of each lesion's values; a lesion that failed has empty cells, and its reason.

    Raises:
        RadllmError: the folder cannot be written.
    """
    of_run = (settings_sha256, model_sha256)
    names = _feature_names(results, of_run)
    _write_csv(folder / "results.csv", results, of_run, names)
    _write_parquet(folder / "results.parquet", results, of_run, names)


def _feature_names(results: Results, of_run: tuple[str, str]) -> list[str]:
    """Of all lesions, in the order they are met: lesions in planes and in volumes have different ones."""
    names: dict[str, None] = {}
    for row in results.rows(*of_run):
        if row.features:
            names.update(dict.fromkeys(row.features.values))
    return list(names)


def _write_csv(path: Path, results: Results, of_run: tuple[str, str], names: list[str]) -> None:
    with _whole(path) as partial, partial.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_WORDS, *names, EXTRACTION])
        for row in results.rows(*of_run):
            values = row.features.values if row.features else {}
            extraction = row.features.extraction if row.features else None
            writer.writerow(
                [
                    *(_cell(getattr(row, name)) for name in _WORDS),
                    *(_cell(values.get(name)) for name in names),
                    extraction.model_dump_json() if extraction else "",
                ]
            )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ";".join(value)
    return repr(value) if isinstance(value, float) else str(value)


def _write_parquet(path: Path, results: Results, of_run: tuple[str, str], names: list[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = [(name, _NUMBERS.get(name, "string")) for name in _WORDS] + [(name, "float64") for name in names]
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in kinds])
    rows = results.rows(*of_run)
    with _whole(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        while some := [_plain(row) for row in islice(rows, _TOGETHER)]:
            writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))


def _plain(row: Row) -> dict[str, Any]:
    words = {name: getattr(row, name) for name in _WORDS}
    return {**words, "cautions": ";".join(row.cautions), **(row.features.values if row.features else {})}


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write under, whose file takes its place when it is complete."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise RadllmError(
            f"{path} cannot be written ({error.strerror or error}): free some space, and give the same command again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
