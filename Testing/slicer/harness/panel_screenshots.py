"""Pictures of Slicer's window with the panel and the slice views, for the documentation.

python -m Testing.slicer.harness.panel_screenshots [MODEL [READER [FOLDER]]]

classifies two synthetic lesions with a model (its name or folder; breast-us unless given), and again by what a
radiologist would say of them with a model that reads that (mammo-descriptors unless given); writes a PNG of each state
(into Resources/Screenshots unless given). What the slice views show is drawn by Slicer's own MRML and VTK, and the
widgets by Qt in its own style: in Slicer fonts and frames look different.
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
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    "panel-empty",
    "panel-sample",
    "panel-question",
    "panel",
    "panel-findings",
    "panel-colours",
    "panel-batch",
)
os.environ.setdefault("RADLLM_BACKEND_PYTHON", sys.executable)

import slicer
from PySide6.QtCore import QSettings
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QComboBox

from Testing.slicer.harness import close_module, load_module, open_module
from Testing.slicer.harness.window_pictures import PANEL_WIDTH, save, window_picture, with_question

_STUDIES = {
    "US left breast": ["Lesion"],
    "US right breast": ["Lesion 1", "Lesion 2", "Speck"],
    "US follow-up": ["Lesion"],
}
_OF_BOTH = {"lesion_type": "mass", "breast_density": "heterogeneously dense", "subtlety": "4"}
_FINDINGS = {
    "oval": {**_OF_BOTH, "mass_shape": "oval", "mass_margins": "circumscribed"},
    "spiculated": {**_OF_BOTH, "mass_shape": "irregular", "mass_margins": "spiculated"},
}
_OF_SLICER = ("pillow",)
"""What the module needs and Slicer 5.12 brings, as ``setup/test_module_packages.py`` has it."""
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


def take_screenshots(model: str | Path, reader: str | Path, folder: Path) -> list[Path]:
    """One picture of each state in `NAMES`; the scene, the layout and the module's settings are cleared first.

    Args:
        reader: a model that reads descriptors.
    """
    slicer.mrmlScene.Clear()
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    QSettings().clear()
    paths = [folder / f"{name}.png" for name in NAMES]
    empty, sample, question, result, findings, colours, batch = paths
    with _opened(model) as panel:
        sections = panel.ui.lesionsButton, panel.ui.findingsButton
        _grab(panel, empty)
        _load_sample(panel, model)
        _grab(panel, sample)
        _ask(panel, question)
        _classify(panel)
        _fold(*sections)
        _grab(panel, result)
        take_batch(panel, batch)
        _unfold(panel.ui.resultsButton, *sections)
        _fold(panel.ui.batchButton)
        _choose_model(panel, reader)
        _choose_findings(panel)
        _grab(panel, findings)
        _classify(panel)
        panel.ui.colorBox.click()
        _fold(*sections)
        _grab(panel, colours)
        panel.ui.colorBox.click()
        _choose_model(panel, model)
    return paths


def take_dark(model: str | Path, path: Path) -> None:
    """A picture of the results that the scene keeps, in a dark style."""
    with _dark_style(), _opened(model) as panel:
        _grab(panel, path)


def take_batch(panel: Any, path: Path) -> None:
    """A picture of a batch that is done, of four synthetic lesions and a fifth that nobody can measure."""
    from Testing.slicer.module_batch import child, do, opened_database, write_lesions

    with (
        tempfile.TemporaryDirectory() as folder,
        opened_database(write_lesions(Path(folder) / "SlicerDICOMDatabase", _STUDIES)),
    ):
        _fold(panel.ui.resultsButton)
        _unfold(panel.ui.batchButton)
        child(panel, "batchOutputEdit").currentPath = str(Path(folder) / "Results")
        do(panel, "Run")
        for name in ("Database", "Output"):
            edit = child(panel, f"batch{name}Edit")
            edit.currentPath = Path(edit.currentPath).name
        _grab(panel, path)


def _fold(*sections: Any) -> None:
    for section in sections:
        section.collapsed = True


def _unfold(*sections: Any) -> None:
    for section in sections:
        section.collapsed = False


@contextmanager
def _opened(model: str | Path) -> Iterator[Any]:
    panel = open_module(load_module(ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"), PANEL_WIDTH)
    _choose_model(panel, model)
    yield panel
    close_module(panel)


def _choose_model(panel: Any, model: str | Path) -> None:
    ui = panel.ui
    if (index := ui.modelSelector.findData(str(model))) >= 0:
        ui.modelSelector.currentIndex = index
    else:
        ui.modelSelector.currentIndex = ui.modelSelector.findData("")
        ui.modelFolderEdit.currentPath = str(model)


def _load_sample(panel: Any, model: str | Path) -> None:
    panel.ui.sampleButton.click()
    _finish(panel)
    _choose_model(panel, model)


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
    """Of both lesions of the sample, as if they were a mammogram's; for the descriptors that the model reads."""
    section = panel.ui.findingsButton
    for segment, values in _FINDINGS.items():
        selector = section.findChild(QComboBox, "findingsSegmentSelector")
        selector.currentIndex = selector.findData(segment)
        for descriptor, value in values.items():
            box = section.findChild(QComboBox, f"{descriptor}Box")
            if box is not None:
                box.currentIndex = box.findData(value)


def _ask(panel: Any, path: Path) -> None:
    """The question of the first use in Slicer 5.12, answered with Cancel; here, nothing is missing."""
    from RadiomicsLLMLib.backend import FirstUse as first_use
    from RadiomicsLLMLib.backend.Requirements import READS_HERE, packages

    window, missing = window_picture(panel), [one for one in packages(READS_HERE) if one.name not in _OF_SLICER]
    asked: list[str] = []

    def cancel(text: str, title: str) -> bool:
        asked.append(text)
        save(with_question(window, text, title), path)
        return False

    with (
        patch.object(first_use, "_missing", lambda *_what: first_use.Missing(missing, first_use.BASE_MODEL)),
        patch.object(first_use.SlicerPackages, "mayAsk", lambda _self: True),
        patch.object(slicer.util, "confirmOkCancelDisplay", cancel),
    ):
        _classify(panel)
    assert len(asked) == 1, asked


def _classify(panel: Any) -> None:
    panel.ui.classifyButton.click()
    _finish(panel)


def _finish(panel: Any) -> None:
    until = time.monotonic() + 180
    while panel.panel.isRunning:
        assert time.monotonic() < until, "it takes too long"
        slicer.app.processEvents()
        time.sleep(0.02)  # before Python 3.12, PySide6 takes a reference of None at every turn of the loop


def _grab(panel: Any, path: Path) -> None:
    """A folder is shown by its name, not where it lies on this machine."""
    edit = panel.ui.modelFolderEdit
    given = edit.currentPath
    edit.blockSignals(True)
    edit.currentPath = Path(given).name
    save(window_picture(panel), path)
    edit.currentPath = given
    edit.blockSignals(False)


if __name__ == "__main__":
    usual = ("breast-us", "mammo-descriptors", str(ROOT / "Resources" / "Screenshots"))
    model, reader, folder, *_ = [*sys.argv[1:], *usual[len(sys.argv) - 1 :]]
    take_screenshots(model, reader, Path(folder))
