"""What the tests of the panel's batch share: a small DICOM database, and clicks on the section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import generate_uid
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QPushButton, QTableWidget, QWidget

from radllm_backend.datasets.phantoms import KINDS, make_phantom
from Testing.slicer.module_scene import click, slicer, wait_until
from Testing.support.dicom_databases import SOP_CLASSES, item, study_of, write_database, write_seg
from Testing.support.dicom_writing import write_dicom

POINT, GONE = "Speck", "US fort"
"""A segment that is too small, and a series whose picture is not there."""
MANY = 40
"""Segments of one picture: seconds to measure, in which a run can be cancelled."""
STUDIES = {
    "US links": ["Läsion"],
    "US rechts": ["Läsion", POINT],
    "US viele": [f"Herd {number}" for number in range(MANY)],
    GONE: ["Läsion"],
}
"""Of the tests' database: segments by the description of their series."""


def write_lesions(folder: Path, studies: Mapping[str, Sequence[str]] = STUDIES) -> Path:
    """A database of synthetic ultrasound pictures, each with a SEG."""
    files: list[Path] = []
    for number, (description, segments) in enumerate(studies.items()):
        files += _write_study(folder / f"{number}", description, segments, number)
    return write_database(folder, [file for file in files if file.exists()])


def _write_study(folder: Path, description: str, segments: Sequence[str], number: int) -> list[Path]:
    folder.mkdir(parents=True)
    phantom = make_phantom(KINDS[number % 2], seed=number, size=(160, 180))
    study = study_of(f"Studie {number}", f"2024010{number + 1}")
    about = {**study, "Modality": "US", "SeriesInstanceUID": generate_uid(), "SeriesDescription": description}
    region = item(
        RegionLocationMinX0=0, RegionLocationMinY0=0, RegionLocationMaxX1=179, RegionLocationMaxY1=159,
        PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.008, PhysicalDeltaY=0.008,
        RegionSpatialFormat=1, RegionDataType=1, RegionFlags=0,
    )  # fmt: skip
    about["SequenceOfUltrasoundRegions"] = [region]
    image = write_dicom(folder / "image.dcm", phantom.image, sop_class=SOP_CLASSES["US"], **about)
    masks = {name: (phantom.mask > 0).astype(np.uint8) for name in segments}
    if POINT in masks:
        masks[POINT] = np.zeros_like(masks[POINT])
        masks[POINT][5, 5] = 1
    segmentation = write_seg(folder / "seg.dcm", [image], masks)
    if description == GONE:
        image.unlink()
    return [image, segmentation]


@contextmanager
def opened_database(folder: Path) -> Iterator[Any]:
    """Slicer's database meanwhile, as if the module DICOM had opened it."""
    database = slicer.dicomDatabase
    before = vars(database).copy()
    database.databaseDirectory, database._files, database._series = str(folder), {}, {}
    for file in sorted(folder.rglob("*.dcm")):
        database.insert(file, copy=False)
    yield database
    vars(database).update(before)


def child(panel: Any, name: str, kind: type = QWidget) -> Any:
    found = panel.ui.batchButton.findChild(kind, name)
    assert found is not None, name
    return found


def button(panel: Any, name: str) -> Any:
    """``List``, ``Run`` or ``Cancel``."""
    return child(panel, f"batch{name}Button", QPushButton)


def status(panel: Any) -> str:
    return str(child(panel, "batchStatusLabel", QLabel).text)


def begin(panel: Any, name: str) -> None:
    """A click, which returns at once."""
    click(button(panel, name))


def finish(panel: Any) -> str:
    """Let the event loop run until the batch is over; what the status line says then."""
    wait_until(lambda: not panel.panel.batch.isRunning)
    return status(panel)


def do(panel: Any, name: str) -> str:
    """A click, and all that follows."""
    begin(panel, name)
    return finish(panel)


def rows_of(panel: Any) -> list[tuple[str, ...]]:
    """What the section's table shows."""
    table = child(panel, "batchTable", QTableWidget)
    return [tuple(table.item(row, column).text() for column in range(3)) for row in range(table.rowCount)]


def double_click(panel: Any, row: int) -> None:
    table = child(panel, "batchTable", QTableWidget)
    place = table.visualItemRect(table.item(row, 0)).center()
    QTest.mouseClick(table.viewport(), Qt.LeftButton, pos=place)
    QTest.mouseDClick(table.viewport(), Qt.LeftButton, pos=place)
    slicer.app.processEvents()
