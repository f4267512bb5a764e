"""The results of a batch, from its folder into the scene."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from slicer.i18n import tr as _

from ..panel.Background import Background, Steps
from ..results.ResultTable import addRows, startTable
from ..scene.OwnedNode import makeLone
from .BatchLesion import BatchLesion

RESULTS = "results.sqlite"
COLUMNS = (
    "series", "segment", "probability", "call", "cautions", "reason", "modality", "kind", "number", "series_uid",
    "segmentation_uid",
)  # fmt: skip
_QUERY = """
    SELECT lesion, modality, series_description, segment, number, kind, series, source, probability, "call", cautions,
           reason
    FROM results WHERE model_sha256 = ? ORDER BY lesion, key
"""
_AT_ONCE = 100  # rows, between two turns of the event loop


class BatchResults:
    """A table node with one row a lesion: all that a folder holds of a model, also of earlier runs.

    There is one in a scene, and its rows are replaced. Every cell is text, as in `ResultTable`.
    """

    def __init__(self, folder: Path, model: str) -> None:
        """
        Args:
            model: a shipped model's name, or a folder.
        """
        self._folder, self._model = folder, model

    def exist(self) -> bool:
        """Whether a batch has written anything here."""
        return (self._folder / RESULTS).is_file()

    def steps(self, show: Callable[[Sequence[BatchLesion]], None]) -> Steps[int]:
        """Read and show them, a few at a time, so that a batch of any size blocks nothing; returns how many.

        Args:
            show: called with some of them after others, on the main thread.

        Raises:
            RadllmError: the results or the model cannot be read.
        """
        lesions = yield from Background(_("Reading the results"), partial(_read, self._folder / RESULTS, self._model))
        node = makeLone("vtkMRMLTableNode", "batch", _("RadiomicsLLM batch"))
        startTable(node, COLUMNS)
        for start in range(0, len(lesions), _AT_ONCE):
            some = lesions[start : start + _AT_ONCE]
            addRows(node, COLUMNS, [_cells(lesion) for lesion in some])
            show(some)
            yield from Background(_("Showing the results"), _rest, start / len(lesions))
        return len(lesions)


def _rest() -> None:
    """The event loop has its turn meanwhile."""


def _read(file: Path, model: str) -> list[BatchLesion]:
    from radllm_backend import RadllmError
    from radllm_backend.models.bundle import read_bundle

    sha256 = read_bundle(model).sha256
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            records = [dict(row) for row in connection.execute(_QUERY, (sha256,))]
    except sqlite3.Error as error:
        sentence = _("{file} cannot be read ({reason}): give another folder for the results.")
        raise RadllmError(sentence.format(file=file.name, reason=error)) from error
    for record in records:
        record["cautions"] = ", ".join(json.loads(record["cautions"]))
    return [BatchLesion.fromRecord(record) for record in records]


def _cells(lesion: BatchLesion) -> dict[str, str]:
    return {
        "series": lesion.seriesDescription,
        "segment": lesion.segment,
        "probability": "" if lesion.probability is None else repr(lesion.probability),
        "call": lesion.call,
        "cautions": lesion.cautions,
        "reason": lesion.reason,
        "modality": lesion.modality,
        "kind": lesion.kind,
        "number": "" if lesion.number is None else str(lesion.number),
        "series_uid": lesion.series,
        "segmentation_uid": lesion.source,
    }
