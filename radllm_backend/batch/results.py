"""What a batch has found so far: one SQLite file that takes each lesion's result as it comes, each lesion once.

A lesion has one row for each model and settings that it was asked with. The words in a row are a series' and a
segment's own; no path, no date and no patient is among them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock, Timeout
from pydantic import Field

from radllm_backend.batch.candidates import Candidate, SegmentationKind
from radllm_backend.errors import RadllmError
from radllm_backend.models.prediction import CallWord, Prediction
from radllm_backend.records import SHA256, Features, Record

DATABASE_VERSION: Final = 1
"""Of the file: raised with every change of its table."""
BINS: Final = 20
"""Of the distribution of probabilities, each as wide as the others."""
_APPLICATION = 0x5241444C
"""Says in the file's header that it is one of these: RADL."""
_PATIENCE = 10.0
"""Seconds to wait for somebody who reads the file just then."""

Status = Literal["done", "failed"]


class Row(Record):
    """The result of one lesion: one row of the table, and its columns."""

    key: str
    """`Candidate.key`."""
    settings_sha256: SHA256
    model_sha256: SHA256
    lesion: str
    """What people know it by: its series or file, and its segment."""
    kind: SegmentationKind
    modality: str
    series_description: str
    segment: str
    number: int | None
    series: str
    source: str
    reading: str = ""
    """What a manifest says of the image beside its content: with another modality or spacing the row is stale."""
    status: Status
    reason: str = ""
    """Of a failure, one sentence."""
    probability: float | None = Field(None, ge=0, le=1)
    call: CallWord | None = None
    cautions: tuple[str, ...] = ()
    """Their codes, each once."""
    prediction: Prediction | None = None
    features: Features | None = None
    seconds: float = Field(ge=0)
    """Of reading and measuring."""


class Counts(Record):
    """How many lesions have a row of a model and settings."""

    done: int
    failed: int


class Overview(Record):
    """What all rows of a model and settings say together."""

    counts: Counts
    calls: dict[str, int]
    """The commonest first, as in `cautions`."""
    cautions: dict[str, int]
    """By code: the lesions that have one."""
    probabilities: dict[str, list[int]]
    """By modality: how many lesions lie in each of `BINS` equal parts of 0 to 1."""
    failures: list[tuple[str, str, str]]
    """Lesion, key and reason, no more than were asked for."""
    example: Prediction | None
    """One of the predictions, for the versions in it."""


_COLUMNS = tuple(Row.model_fields)
_TABLE = f"""
CREATE TABLE results (
    {", ".join(f'"{name}"' for name in _COLUMNS)},
    PRIMARY KEY (key, settings_sha256, model_sha256)
) WITHOUT ROWID
"""
_WRITE = f"INSERT OR REPLACE INTO results VALUES ({', '.join('?' * len(_COLUMNS))})"
_OF_RUN = "FROM results WHERE settings_sha256 = ? AND model_sha256 = ?"


def reading_of(candidate: Candidate) -> str:
    """What else a lesion's values hang on: for a DICOM image nothing, its file says it all."""
    return f"{candidate.modality} {candidate.spacing}".strip() if candidate.kind == "mask" else ""


def title_of(candidate: Candidate) -> str:
    """What people know a lesion by, without the folders that it lies in."""
    if candidate.kind == "mask":
        where = Path(candidate.segmentation).name
    else:
        where = candidate.series_description or candidate.modality or candidate.kind
    number = "" if candidate.number is None else str(candidate.number)
    return ": ".join(word for word in (where, candidate.segment or number) if word)


class Results:
    """The open file. One process writes it at a time; others may read it meanwhile."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """`open_results` is the usual way."""
        self.path = path
        self._connection = connection

    def add(self, rows: Sequence[Row]) -> None:
        """Rows, all or none; a row takes the place of the one with its key, settings and model.

        Raises:
            RadllmError: the disk is full, or somebody else holds the file.
        """
        with _speaking(self.path), self._connection:
            self._connection.executemany(_WRITE, [_cells(row) for row in rows])

    def is_settled(self, candidate: Candidate, settings_sha256: str, model_sha256: str, *, retry: bool) -> bool:
        """Whether a lesion needs no other run.

        Args:
            retry: a lesion that failed does need one.
        """
        sql = "SELECT status, reading FROM results WHERE key = ? AND settings_sha256 = ? AND model_sha256 = ?"
        with _speaking(self.path):
            row = self._connection.execute(sql, (candidate.key, settings_sha256, model_sha256)).fetchone()
        return row is not None and row[1] == reading_of(candidate) and not (retry and row[0] == "failed")

    def explained(self, settings_sha256: str, model_sha256: str) -> dict[str, bool]:
        """By the key of each lesion that is done: whether its prediction says why."""
        sql = f"SELECT key, json_extract(prediction, '$.additive') IS NOT NULL {_OF_RUN} AND status = 'done'"
        with _speaking(self.path):
            found = self._connection.execute(sql, (settings_sha256, model_sha256)).fetchall()
        return {key: bool(explained) for key, explained in found}

    def rows(self, settings_sha256: str, model_sha256: str) -> Iterator[Row]:
        """All rows of a model and settings in the order of their keys, a few in memory at a time."""
        with _speaking(self.path):
            cursor = self._connection.execute(f"SELECT * {_OF_RUN} ORDER BY key", (settings_sha256, model_sha256))
            while some := cursor.fetchmany(64):
                yield from map(_row, some)

    def counts(self, settings_sha256: str, model_sha256: str) -> Counts:
        """How many are done and how many failed."""
        found = self._count("status", settings_sha256, model_sha256)
        return Counts(done=found.get("done", 0), failed=found.get("failed", 0))

    def overview(self, settings_sha256: str, model_sha256: str, most_failures: int) -> Overview:
        """What all rows of a model and settings say together.

        Args:
            most_failures: that are named.
        """
        of_run = (settings_sha256, model_sha256)
        failures = f"SELECT lesion, key, reason {_OF_RUN} AND status = 'failed' ORDER BY lesion, key LIMIT ?"
        with _speaking(self.path):
            failed = self._connection.execute(failures, (*of_run, most_failures)).fetchall()
            example = self._connection.execute(
                f"SELECT prediction {_OF_RUN} AND status = 'done' LIMIT 1", of_run
            ).fetchone()
        return Overview(
            counts=self.counts(*of_run),
            calls=self._count("call", *of_run),
            cautions=self._caution_counts(*of_run),
            probabilities=self._histograms(*of_run),
            failures=failed,
            example=Prediction.model_validate_json(example[0]) if example else None,
        )

    def _count(self, column: str, *of_run: str) -> dict[str, int]:
        sql = (
            f'SELECT "{column}", COUNT(*) AS many {_OF_RUN} AND "{column}" IS NOT NULL GROUP BY 1 ORDER BY many DESC, 1'
        )
        with _speaking(self.path):
            return dict(self._connection.execute(sql, of_run).fetchall())

    def _caution_counts(self, *of_run: str) -> dict[str, int]:
        sql = (
            "SELECT code.value, COUNT(*) AS many FROM results, json_each(results.cautions) AS code "
            "WHERE settings_sha256 = ? AND model_sha256 = ? GROUP BY 1 ORDER BY many DESC, 1"
        )
        with _speaking(self.path):
            return dict(self._connection.execute(sql, of_run).fetchall())

    def _histograms(self, *of_run: str) -> dict[str, list[int]]:
        sql = (
            f"SELECT modality, MIN(CAST(probability * {BINS} AS INTEGER), {BINS - 1}), COUNT(*) {_OF_RUN} "
            "AND probability IS NOT NULL GROUP BY 1, 2 ORDER BY 1"
        )
        histograms: dict[str, list[int]] = {}
        with _speaking(self.path):
            for modality, part, many in self._connection.execute(sql, of_run):
                histograms.setdefault(modality, [0] * BINS)[part] = many
        return histograms


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The results in this file, made if missing, for this process alone to write.

    Raises:
        RadllmError: another process writes it, it is damaged, no file of this kind, of another version, or it cannot
            be made.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RadllmError(
            f"Another radllm batch writes {path}: wait until it is done, or give another output folder."
        ) from error
    except OSError as error:
        raise RadllmError(
            f"{path} cannot be written ({error.strerror or error}): choose another output folder."
        ) from error
    connection = None
    try:
        with _speaking(path):
            connection = sqlite3.connect(path, timeout=_PATIENCE)
            _prepare(path, connection)
        yield Results(path, connection)
    finally:
        if connection is not None:
            connection.close()
        lock.release()


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the file is one of these, or make a new one so."""
    application, version, tables = (
        connection.execute(sql).fetchone()[0]
        for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT COUNT(*) FROM sqlite_master")
    )
    if application != _APPLICATION and tables:
        raise RadllmError(f"{path} is not a file of radllm batch: move it away, or give another output folder.")
    if tables and version != DATABASE_VERSION:
        raise RadllmError(
            f"{path} is of version {version} and this radllm writes version {DATABASE_VERSION}: "
            "give another output folder, or use the radllm that wrote it."
        )
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise _damaged(path)
    # A process that is killed leaves the last whole transaction, and readers do not wait for the writer.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {DATABASE_VERSION}")


def _cells(row: Row) -> list[Any]:
    plain = {name: getattr(row, name) for name in _COLUMNS}
    plain["cautions"] = json.dumps(row.cautions)
    for name in ("prediction", "features"):
        plain[name] = plain[name].model_dump_json() if plain[name] else None
    return list(plain.values())


def _row(cells: Sequence[Any]) -> Row:
    plain = dict(zip(_COLUMNS, cells, strict=True))
    plain["cautions"] = json.loads(plain["cautions"])
    for name, kind in (("prediction", Prediction), ("features", Features)):
        plain[name] = kind.model_validate_json(plain[name]) if plain[name] else None
    return Row(**plain)


@contextmanager
def _speaking(path: Path) -> Iterator[None]:
    """What SQLite raises, as one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        raise _sentence(path, error) from error


def _sentence(path: Path, error: sqlite3.Error) -> RadllmError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RadllmError(f"Another program holds {path}: close it there, and give the same command again.")
    if name.startswith("SQLITE_FULL"):
        return RadllmError(
            f"The disk of {path} is full: free some space, and give the same command again; what is done is kept."
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return _damaged(path)
    return RadllmError(f"{path} cannot be read or written ({error}): check the disk, or give another output folder.")


def _damaged(path: Path) -> RadllmError:
    return RadllmError(f"{path} is damaged: move it away, or give another output folder.")
