"""The files that are kept of a prediction, all written together.

``features.csv`` is comma-separated UTF-8 with decimal points, which LibreOffice and Excel open as it is. It has no byte
order mark: names and numbers are ASCII, and other readers would take the mark for a part of the first name. Where
Windows writes decimal commas, Excel wants *Data, From Text/CSV* instead of a double-click.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from radllm_backend.errors import RadllmError
from radllm_backend.files import write_together
from radllm_backend.records import KeyImage
from radllm_backend.reports.content import Content, content
from radllm_backend.reports.html import report_html
from radllm_backend.reports.key_image import key_image

if TYPE_CHECKING:
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.bundle import ModelCard
    from radllm_backend.models.prediction import Prediction
    from radllm_backend.records import Features

EPOCH = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that reports say they were made at (reproducible-builds.org), so that they can be made again."""


@dataclass(frozen=True)
class ReportCase:
    """What a report can be made of."""

    prediction: Prediction
    features: Features
    lesion: Lesion | KeyImage | None
    card: ModelCard | None
    """Of the model."""
    made: datetime

    @cached_property
    def content(self) -> Content:
        """What page and PDF say, made once, and only where a format needs it."""
        lesion = self.lesion
        picture = lesion if lesion is None or isinstance(lesion, KeyImage) else key_image(lesion)
        return content(self.prediction, picture, self.card, made=self.made)


@dataclass(frozen=True)
class ReportFormat:
    """A kind of report."""

    file: str
    """Its name."""
    write: Callable[[ReportCase], bytes | None]
    """What is in it; None where there is nothing to write, as no picture without a lesion."""


def _json(case: ReportCase) -> bytes:
    return f"{case.prediction.model_dump_json(indent=2)}\n".encode()


def _csv(case: ReportCase) -> bytes:
    return case.features.to_csv().encode()


def _html(case: ReportCase) -> bytes:
    return report_html(case.content).encode()


def _pdf(case: ReportCase) -> bytes:
    from radllm_backend.reports.pdf import report_pdf  # its library takes a while

    return report_pdf(case.content)


def _png(case: ReportCase) -> bytes | None:
    picture = case.content.picture
    return picture.png if picture else None


FORMATS = {
    "json": ReportFormat("prediction.json", _json),
    "csv": ReportFormat("features.csv", _csv),
    "html": ReportFormat("report.html", _html),
    "pdf": ReportFormat("report.pdf", _pdf),
    "png": ReportFormat("key-image.png", _png),
}
"""Every format by its name. DICOM is none of them: it needs the files that the image was read from (`dicom`)."""


def write_reports(
    folder: str | Path,
    prediction: Prediction,
    features: Features,
    lesion: Lesion | KeyImage | None = None,
    card: ModelCard | None = None,
    *,
    made: datetime | None = None,
    formats: Collection[str] = FORMATS.keys(),
) -> None:
    """Write ``prediction.json``, ``features.csv``, ``report.html`` and so on, a file for each format: all or none.

    JSON, CSV and PNG of the same lesion are the same bytes; those of page and PDF too where `made` is the same.

    Args:
        folder: made if missing.
        lesion: shown in the reports, if given: itself, or its key image where the lesion is not at hand; without it
            there is no ``key-image.png``.
        card: of the model; without it the reports have nothing of the training lesions.
        made: when; now, or at the time in the environment variable ``SOURCE_DATE_EPOCH``, if not given.
        formats: which of `FORMATS`.

    Raises:
        RadllmError: an unknown format, a malformed ``SOURCE_DATE_EPOCH``, or the folder cannot be written.
    """
    folder = Path(folder)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise RadllmError(f"There is no report as '{unknown[0]}': choose from {', '.join(FORMATS)}.")
    case = ReportCase(prediction, features, lesion, card, made or _now())
    written = {FORMATS[name].file: FORMATS[name].write(case) for name in formats}
    files = {name: data for name, data in written.items() if data is not None}
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_together(folder, files)
    except OSError as error:
        _remove_empty(created)
        raise RadllmError(
            f"The report cannot be written to {folder.name} ({error.strerror or error}): "
            "free some space or choose another folder."
        ) from error


def _now() -> datetime:
    epoch = os.environ.get(EPOCH)
    if not epoch:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise RadllmError(f"{EPOCH} is '{epoch}', and it has to be a number of seconds since 1970.") from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
