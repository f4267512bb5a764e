"""The first three clicks of a new user, as a program for a Python that has Slicer's packages and nothing else.

``PythonSlicer -m Testing.slicer.setup.three_clicks FOLDER`` clicks on *Load sample*, *Classify* and the one question's
*OK*, and writes into the folder what was classified (``image.npy`` and a mask for each segment) and ``told.json``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from PySide6.QtCore import Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMessageBox

from Testing.slicer.harness import load_module, open_module, slot_errors, stray_attributes

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 400


class Clicks:
    """What the user does, on timers beside the event loop, as Slicer's own goes on all the time."""

    def __init__(self, widget: Any) -> None:
        self.questions: list[str] = []
        self.began = self.seconds = self.longest = 0.0
        self._widget, self._last = widget, time.monotonic()
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._look)

    def run(self) -> None:
        _click(self._widget.ui.sampleButton)
        QTimer.singleShot(0, self._classify)
        slicer.app.exec()
        self.seconds = time.monotonic() - self.began

    def _classify(self) -> None:
        if self._widget.panel.isRunning:  # the sample is being drawn
            QTimer.singleShot(5, self._classify)
            return
        self._timer.start()
        _click(self._widget.ui.classifyButton)

    def _look(self) -> None:
        now = time.monotonic()
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            self.questions.append(box.text)
            self.began = now
            _click(box.button(QMessageBox.Ok))
        elif self.questions:
            self.longest = max(self.longest, now - self._last)
        self._last = now
        if not self._widget.panel.isRunning or (self.began and now > self.began + _PATIENCE):
            self._timer.stop()
            slicer.app.quit()


def main(folder: Path) -> None:
    slicer.app.testingEnabled = lambda: False  # a real question, and no answer by itself
    widget = open_module(load_module(ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"))
    clicks = Clicks(widget)
    clicks.run()
    assert not slot_errors
    assert not stray_attributes(widget.parent)
    told = {
        "questions": clicks.questions,
        "status": widget.ui.statusLabel.text,
        "seconds": clicks.seconds,
        "longest": clicks.longest,
        "probabilities": _probabilities(),
        "torch": "torch" in sys.modules,
        "pytest": "pytest" in sys.modules,
    }
    _write_sample(widget, folder)
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


def _click(button: Any) -> None:
    assert button.enabled, button.toolTip
    QTest.mouseClick(button, Qt.LeftButton)


def _probabilities() -> dict[str, str]:
    """By the names of the segments, as the table in the scene has them."""
    (table,) = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLTableNode")
        if node.GetAttribute("RadiomicsLLM.role") == "results"
    ] or [None]
    if table is None:
        return {}
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    rows = [
        {name: table.GetCellText(row, column) for column, name in enumerate(names)}
        for row in range(table.GetNumberOfRows())
    ]
    return {row["segment"]: row["probability"] for row in rows}


def _write_sample(widget: Any, folder: Path) -> None:
    volume, segmentation = widget.ui.volumeSelector.currentNode(), widget.ui.segmentationSelector.currentNode()
    np.save(folder / "image.npy", slicer.util.arrayFromVolume(volume)[0])
    for segment in segmentation.GetSegmentation().GetSegmentIDs():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)[0]
        np.save(folder / f"{segmentation.GetSegmentation().GetSegment(segment).GetName()}.npy", mask)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
