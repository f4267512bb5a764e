"""What the tests of the Slicer module share: a scene to look at, and clicks on the panel."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)
pytest.importorskip("radiomics")

import vtk
from PySide6.QtCore import QSettings, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel

from radllm_backend.datasets.phantoms import KINDS, make_phantom
from Testing.slicer.harness import close_module, load_module, open_module, slot_errors, stray_attributes

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"
RadiomicsLLM = load_module(MODULE)

from RadiomicsLLMLib import LocalServerBackend
from RadiomicsLLMLib.backend.BackendPython import GivenPython

SPACING = 0.08
OVAL, SPICULATED = (make_phantom(kind, size=(160, 180)) for kind in KINDS)
PICTURE = np.hstack([OVAL.image, SPICULATED.image])
MASKS = {
    "oval": np.hstack([OVAL.mask > 0, np.zeros_like(SPICULATED.mask, dtype=bool)]),
    "spiculated": np.hstack([np.zeros_like(OVAL.mask, dtype=bool), SPICULATED.mask > 0]),
}
_PATIENCE = 180  # seconds: a server's start included, on a busy machine


class SharedServer(LocalServerBackend):
    """One server for all tests of a process: it ends with the process, and not with a panel."""

    def close(self) -> None:
        pass


def shared_server(python: str) -> Iterator[SharedServer]:
    """One that runs in a Python with the backend's packages."""
    server = SharedServer(GivenPython(python))
    yield server
    LocalServerBackend.close(server)


def opened_panel(server: LocalServerBackend) -> Iterator[Any]:
    """The module's widget on an empty scene. However a test ends, no slot raised and no property was misspelt."""
    slicer.mrmlScene.Clear()
    QSettings().clear()
    slot_errors.clear()
    widget = open_module(RadiomicsLLM)
    widget.logic.backends["local"] = server
    widget.enter()
    yield widget
    slicer.app.processEvents()
    errors, strays = list(slot_errors), stray_attributes(widget.parent)
    slot_errors.clear()
    close_module(widget)
    assert errors == []
    assert strays == []


# --- the scene ------------------------------------------------------------------------------------------------------


def add_volume(array: np.ndarray = PICTURE, spacing: float = SPACING, **more: Any) -> Any:
    """A picture as Slicer has it: a volume of one slice."""
    return slicer.util.addVolumeFromArray(array[np.newaxis], np.diag([spacing, spacing, 1, 1]), "scan", **more)


def add_segmentation(volume: Any, masks: dict[str, np.ndarray] = MASKS) -> Any:
    """One segment a mask, with the mask's key as its ID and 'the ...' as its name."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment, mask in masks.items():
        node.GetSegmentation().AddEmptySegment(segment, f"the {segment}")
        if mask.any():
            voxels = mask.astype(np.uint8).reshape(slicer.util.arrayFromVolume(volume).shape[:3])
            slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment, volume)
    return node


def node_ids() -> set[str]:
    return {slicer.mrmlScene.GetNthNode(index).GetID() for index in range(slicer.mrmlScene.GetNumberOfNodes())}


def tables(role: str = "results") -> list[Any]:
    """The module's table nodes of a role."""
    nodes = slicer.util.getNodesByClass("vtkMRMLTableNode")
    return [node for node in nodes if node.GetAttribute("RadiomicsLLM.role") == role]


def rows(table: Any) -> list[dict[str, str]]:
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    return [
        {name: table.GetCellText(row, column) for column, name in enumerate(names)}
        for row in range(table.GetNumberOfRows())
    ]


def probabilities() -> list[float]:
    """Of the results in the scene."""
    return [float(row["probability"]) for row in rows(tables()[0])]


def rotated(spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    """An oblique IJK-to-RAS matrix."""
    matrix = np.eye(4)
    transform = vtk.vtkTransform()
    transform.RotateX(20)
    transform.RotateZ(-35)
    transform.RotateY(10)
    matrix[:3, :3] = slicer.util.arrayFromVTKMatrix(transform.GetMatrix())[:3, :3] @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


def python(code: str, *arguments: str) -> str:
    """What code prints in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


# --- the panel ------------------------------------------------------------------------------------------------------


def choose_backend(panel: Any, key: str) -> None:
    """``process``, ``local`` or ``remote``."""
    panel.ui.backendSelector.currentIndex = panel.ui.backendSelector.findData(key)


def choose_own_model(panel: Any, folder: Path | str) -> None:
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("")
    panel.ui.modelFolderEdit.currentPath = str(folder)


def choose_modality(panel: Any, modality: str) -> None:
    panel.ui.modalitySelector.currentIndex = panel.ui.modalitySelector.findText(f"({modality})", Qt.MatchContains)


def prepare(panel: Any, model: Path | str, modality: str = "US") -> None:
    """All that is to be chosen but the lesions, with the model on the local server."""
    choose_backend(panel, "local")
    choose_own_model(panel, model)
    choose_modality(panel, modality)


def click(button: Any) -> None:
    """As a user can: only on what is enabled."""
    assert button.enabled, button.toolTip
    QTest.mouseClick(button, Qt.LeftButton)


def begin(panel: Any) -> None:
    """A click on Classify, which returns at once."""
    assert panel.ui.classifyButton.text == "Classify"
    click(panel.ui.classifyButton)


def wait_until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds."""
    until = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        slicer.app.processEvents()
        time.sleep(0.002)
    slicer.app.processEvents()


def finish(panel: Any) -> None:
    """Let the event loop run until nothing goes on any more."""
    wait_until(lambda: not panel.panel.isRunning)


def classify(panel: Any) -> None:
    """A click on Classify, and all that follows."""
    begin(panel)
    finish(panel)


def longest_pause(panel: Any, do: Callable[[Any], object] = classify) -> float:
    """Of the event loop while what a click began goes on, in seconds: a timer's heartbeat measures it."""
    ticks: list[float] = []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start()
    do(panel)
    timer.stop()
    assert len(ticks) > 5
    return float(np.diff(ticks).max())


def labels(panel: Any, name: str) -> list[str]:
    """The texts of a kind of label on the card that is shown."""
    return [label.text for label in panel.ui.resultsButton.findChildren(QLabel, name)]


def shown(panel: Any) -> list[tuple[str, ...]]:
    """The rows of the panel's own table."""
    table = panel.panel.results.table
    return [tuple(table.item(row, column).text() for column in range(3)) for row in range(table.rowCount)]
