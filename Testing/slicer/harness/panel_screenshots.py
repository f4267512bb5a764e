"""Pictures of the panel, for the documentation.

python -m Testing.slicer.harness.panel_screenshots [MODEL [FOLDER]]

classifies two synthetic lesions and a segment that was never drawn with a model (its name or folder; breast-us unless
given) on a local server, and writes a PNG of each state (into Resources/Screenshots unless given).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
WIDTH, BELOW = 400, 12
NAMES = (
    "panel-empty",
    "panel-running",
    "panel",
    "panel-failure",
    "panel-doctor",
    "panel-dark",
    "panel-batch",
    "panel-findings",
)
os.environ.setdefault("RADLLM_BACKEND_PYTHON", sys.executable)

import slicer
from PySide6.QtCore import QSettings
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QComboBox

from Testing.slicer.harness import close_module, load_module, open_module

_STUDIES = {
    "US left breast": ["Lesion"],
    "US right breast": ["Lesion 1", "Lesion 2", "Speck"],
    "US follow-up": ["Lesion"],
}
_DARK = {
    QPalette.Window: "#353535",
    QPalette.WindowText: "#f0f0f0",
    QPalette.Base: "#262626",
    QPalette.AlternateBase: "#303030",
    QPalette.Text: "#f0f0f0",
    QPalette.Button: "#404040",
    QPalette.ButtonText: "#f0f0f0",
    QPalette.Highlight: "#2a82da",
    QPalette.HighlightedText: "#ffffff",
    QPalette.ToolTipBase: "#353535",
    QPalette.ToolTipText: "#f0f0f0",
}


def take_screenshots(model: str | Path, folder: Path) -> list[Path]:
    """One picture of each state in `NAMES`; the scene and the module's settings are cleared first."""
    slicer.mrmlScene.Clear()
    QSettings().clear()
    paths = [folder / f"{name}.png" for name in NAMES]
    empty, running, result, failure, doctor, dark, batch, findings = paths
    with _opened(model) as panel:
        _grab(panel, empty)
        _fill_scene(panel)
        panel.ui.classifyButton.click()
        _wait(lambda: panel.ui.statusLabel.text.startswith("Measuring"))
        _grab(panel, running)
        _wait(lambda: not panel.panel.isRunning)
        _grab(panel, result)
        panel.panel.results.table.setCurrentCell(2, 0)
        _grab(panel, failure)
    with _opened(model) as panel:
        panel.ui.lesionsButton.collapsed = panel.ui.resultsButton.collapsed = True
        panel.ui.backendButton.collapsed = False
        panel.ui.setupSectionButton.collapsed = panel.ui.doctorButton.collapsed = False
        _wait(lambda: not panel.panel.isExamining)
        _grab(panel, doctor)
    with _dark_style(), _opened(model) as panel:
        _grab(panel, dark)
    with _opened("mammo-descriptors") as panel:
        _choose_findings(panel)
        _grab(panel, findings)
    take_batch(model, batch)
    return paths


def take_batch(model: str | Path, path: Path) -> None:
    """A picture of a batch that is done, of four synthetic lesions and a fifth that nobody can measure."""
    from Testing.slicer.module_batch import child, do, opened_database, write_lesions

    QSettings().clear()
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_database(write_lesions(Path(folder) / "SlicerDICOMDatabase", _STUDIES)),
        _opened(model) as panel,
    ):
        for section in ("lesions", "model", "backend", "results"):
            getattr(panel.ui, f"{section}Button").collapsed = True
        panel.ui.batchButton.collapsed = False
        child(panel, "batchOutputEdit").currentPath = str(Path(folder) / "Results")
        do(panel, "Run")
        for name in ("Database", "Output"):
            edit = child(panel, f"batch{name}Edit")
            edit.currentPath = Path(edit.currentPath).name
        _grab(panel, path)


@contextmanager
def _opened(model: str | Path) -> Iterator[Any]:
    panel = open_module(load_module(ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"), WIDTH)
    ui = panel.ui
    if (index := ui.modelSelector.findData(str(model))) >= 0:
        ui.modelSelector.currentIndex = index
    else:
        ui.modelSelector.currentIndex = ui.modelSelector.findData("")
        ui.modelFolderEdit.currentPath = str(model)
    yield panel
    close_module(panel)


@contextmanager
def _dark_style() -> Iterator[None]:
    before, palette = slicer.app.palette(), QPalette()
    for role, color in _DARK.items():
        palette.setColor(role, QColor(color))
    for role in (QPalette.WindowText, QPalette.Text, QPalette.ButtonText):
        palette.setColor(QPalette.Disabled, role, QColor("#808080"))
    slicer.app.setPalette(palette)
    yield
    slicer.app.setPalette(before)


def _choose_findings(panel: Any) -> None:
    """Of the second lesion of the sample, as if it were a mammogram's."""
    section = panel.ui.findingsButton
    section.findChild(QComboBox, "findingsSegmentSelector").currentIndex = 1
    for descriptor, value in (
        ("lesion_type", "mass"),
        ("mass_shape", "irregular"),
        ("mass_margins", "spiculated"),
        ("breast_density", "heterogeneously dense"),
    ):
        box = section.findChild(QComboBox, f"{descriptor}Box")
        box.currentIndex = box.findData(value)


def _fill_scene(panel: Any) -> None:
    """The sample lesions, and a segment that was never drawn."""
    model = panel.ui.modelSelector.currentIndex
    panel.ui.sampleButton.click()
    panel.ui.modelSelector.currentIndex = model
    segmentation = panel.ui.segmentationSelector.currentNode()
    segmentation.GetSegmentation().AddEmptySegment("third", "Not drawn yet")


def _wait(condition: Any, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        slicer.app.processEvents()
        time.sleep(0.02)  # before Python 3.12, PySide6 takes a reference of None at every turn of the loop


def _grab(panel: Any, path: Path) -> None:
    """The panel as high as what it shows; a folder is shown by its name, not where it lies on this machine."""
    edit = panel.ui.modelFolderEdit
    given = edit.currentPath
    edit.blockSignals(True)
    edit.currentPath = Path(given).name
    panel.parent.resize(WIDTH, 100)
    for _ in range(3):
        slicer.app.processEvents()
        # As Slicer's scroll area does: wrapped text is higher than its hint.
        height = max(panel.parent.sizeHint().height(), panel.parent.layout().totalHeightForWidth(WIDTH))
        panel.parent.resize(WIDTH, height + BELOW)
    slicer.app.processEvents()
    assert panel.parent.grab().save(str(path))
    edit.currentPath = given
    edit.blockSignals(False)


if __name__ == "__main__":
    model, folder, *_ = [*sys.argv[1:], *("breast-us", str(ROOT / "Resources" / "Screenshots"))[len(sys.argv) - 1 :]]
    take_screenshots(model, Path(folder))
