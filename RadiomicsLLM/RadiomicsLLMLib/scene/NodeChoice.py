"""Which node a selector shows."""

from __future__ import annotations

from collections.abc import Callable

import slicer


def onOtherNode(
    selector: slicer.qMRMLNodeComboBox, changed: Callable[[slicer.vtkMRMLNode | None], object]
) -> Callable[..., None]:
    """Call a function with the node whenever another one is chosen, and only then.

    Slicer 5.12 signals also when the chosen node is renamed. With Qt 6 it does not where a node of the same name comes
    in the place of the chosen one, because that was removed or because a program has chosen it; a click on one is told
    by another signal.

    Returns:
        What looks again, to be called where no signal may have come; its arguments do not matter.
    """
    chosen = selector.currentNode()

    def look(*_arguments: object) -> None:
        nonlocal chosen
        node = selector.currentNode()
        if node is not chosen:
            chosen = node
            changed(node)

    selector.connect("currentNodeChanged(vtkMRMLNode*)", look)
    selector.connect("nodeActivated(vtkMRMLNode*)", look)
    return look
