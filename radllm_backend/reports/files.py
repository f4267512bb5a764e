"""The files that are kept of a prediction, all written together.

``features.csv`` is comma-separated UTF-8 with decimal points, which LibreOffice and Excel open as it is. It has no byte
order mark: names and numbers are ASCII, and other readers would take the mark for a part of the first name. Where
Windows writes decimal commas, Excel wants *Data, From Text/CSV* instead of a double-click.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
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

FORMATS = ("json", "csv", "html", "pdf", "png")
EPOCH = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that reports say they were made at (reproducible-builds.org), so that they can be made again."""


def write_reports(
    folder: Path,
    prediction: Prediction,
    features: Features,
    lesion: Lesion | KeyImage | None = None,
    card: ModelCard | None = None,
    *,
    made: datetime | None = None,
    formats: Sequence[str] = FORMATS,
) -> None:
    """Write ``prediction.json``, ``features.csv``, ``report.html``, ``report.pdf``, ``key-image.png``: all or none.

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
    time = made or _now()

    @cache
    def report() -> Content:
        """Made once, and only where a format needs it."""
        picture = lesion if lesion is None or isinstance(lesion, KeyImage) else key_image(lesion)
        return content(prediction, picture, card, made=time)

    files = {
        name: data
        for kind in dict.fromkeys(formats)
        for name, data in _file(kind, prediction, features, report).items()
    }
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


def _file(kind: str, prediction: Prediction, features: Features, report: Callable[[], Content]) -> dict[str, bytes]:
    """The file of a format by its name; none for a picture without a lesion."""
    match kind:
        case "json":
            return {"prediction.json": f"{prediction.model_dump_json(indent=2)}\n".encode()}
        case "csv":
            return {"features.csv": features.to_csv().encode()}
        case "html":
            return {"report.html": report_html(report()).encode()}
        case "pdf":
            from radllm_backend.reports.pdf import report_pdf  # its library takes a while

            return {"report.pdf": report_pdf(report())}
        case "png":
            picture = report().picture
            return {"key-image.png": picture.png} if picture else {}
    raise RadllmError(f"There is no report as '{kind}': choose from {', '.join(FORMATS)}.")


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
