"""Which node a selector shows."""

from __future__ import annotations

from collections.abc import Callable

import slicer


def onOtherNode(selector: slicer.qMRMLNodeComboBox, changed: Callable[[slicer.vtkMRMLNode | None], object]) -> None:
    """Call a function with the node whenever another one is chosen.

    Slicer 5.12 signals also when the chosen node is renamed. With Qt 6 it does not where a node of the same name is
    chosen instead; a click on one is told by another signal.
    """
    chosen = selector.currentNode()

    def look(node: slicer.vtkMRMLNode | None = None) -> None:
        nonlocal chosen
        if node is not chosen:
            chosen = node
            changed(node)

    selector.connect("currentNodeChanged(vtkMRMLNode*)", look)
    selector.connect("nodeActivated(vtkMRMLNode*)", look)
