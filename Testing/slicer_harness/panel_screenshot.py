"""A picture of the panel with results, for the documentation.

python Testing/slicer_harness/panel_screenshot.py [MODEL [PICTURE]]

classifies two synthetic lesions with a model (its name or folder; breast-us unless given) and writes a PNG
(Resources/Screenshots/panel.png unless given).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WIDTH, BELOW = 400, 20
SPACING = 0.08
DEFAULTS = ("breast-us", str(ROOT / "Resources" / "Screenshots" / "panel.png"))
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]

import slicer
from PySide6.QtCore import QPoint, QRect
from PySide6.QtWidgets import QFrame

from radllm_backend.datasets.phantoms import KINDS, make_phantom
from slicer_harness import close_module, load_module, open_module


def take_screenshot(model: str | Path, picture: Path) -> None:
    """The panel after a click on Classify, with the first card's prompt unfolded; the scene is cleared first."""
    slicer.mrmlScene.Clear()
    panel = open_module(load_module(ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"), WIDTH)
    _fill_scene()
    ui = panel.ui
    ui.modalitySelector.currentIndex = ui.modalitySelector.findText("Ultrasound (US)")
    ui.modelSelector.currentIndex = max(ui.modelSelector.findData(str(model)), 0)
    if ui.modelSelector.currentData != str(model):
        ui.modelSelector.currentIndex = ui.modelSelector.findData("")
        ui.modelFolderEdit.currentPath = str(model)
    ui.classifyButton.click()
    _unfold_first_prompt(ui.resultsButton)
    if ui.modelFolderEdit.visible:  # shown by its name, not where it lies on this machine
        ui.modelFolderEdit.blockSignals(True)
        ui.modelFolderEdit.currentPath = Path(model).name
    panel.parent.resize(WIDTH, 3000)
    slicer.app.processEvents()
    card = ui.resultsButton.findChildren(QFrame, "resultCard")[-1]
    end = card.mapTo(panel.parent, QPoint(0, card.height)).y()
    panel.parent.grab(QRect(0, 0, WIDTH, end + BELOW)).save(str(picture))
    close_module(panel)


def _fill_scene() -> None:
    """The two phantoms side by side in one picture, and a segment that was never drawn."""
    phantoms = [make_phantom(kind) for kind in KINDS]
    picture = np.hstack([phantom.image for phantom in phantoms])
    volume = slicer.util.addVolumeFromArray(
        picture[np.newaxis], np.diag([SPACING, SPACING, 1, 1]), "Ultrasound (synthetic)"
    )
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
    segmentation.CreateDefaultDisplayNodes()
    edge = phantoms[0].image.shape[1]
    for number, phantom in enumerate(phantoms):
        mask = np.zeros_like(picture)[np.newaxis]
        mask[0, :, edge * number :][:, :edge] = phantom.mask > 0
        segmentation.GetSegmentation().AddEmptySegment(phantom.kind, f"{phantom.kind.capitalize()} lesion")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, phantom.kind, volume)
    segmentation.GetSegmentation().AddEmptySegment("third", "Not drawn yet")


def _unfold_first_prompt(results: Any) -> None:
    slicer.app.processEvents()
    prompts = results.findChildren(type(results), "promptButton")
    if prompts:
        prompts[0].collapsed = False


if __name__ == "__main__":
    model, picture, *_ = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]
    take_screenshot(model, Path(picture))
