"""Results in the scene."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk
from slicer.i18n import tr as _

from .SegmentResult import SegmentResult

COLUMNS = (
    "segment",
    "call",
    "probability",
    "problem",
    "cautions",
    "threshold",
    "prompt",
    "model",
    "model_sha256",
    "segment_id",
    "notice",
)
_SEGMENTATION = "RadiomicsLLM.segmentation"
_VOLUME = "RadiomicsLLM.volume"


class ResultTable:
    """The table node of a segmentation's results: one row a segment, also for those that failed.

    Every cell is text, a probability with all its digits: Slicer saves numeric columns to six digits.
    """

    def __init__(self, volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """The segmentation's table of an earlier run, or else a new one beside the volume in the hierarchy."""
        self.node = _tableOf(segmentationNode) or _newTable(segmentationNode)
        self.node.SetNodeReferenceID(_VOLUME, volumeNode.GetID())
        _placeBeside(volumeNode, self.node)

    def write(self, results: Sequence[SegmentResult]) -> None:
        """Replace the rows."""
        rows = [_cells(result) for result in results]
        modified = self.node.StartModify()
        self.node.RemoveAllColumns()
        for name in COLUMNS:
            column = vtk.vtkStringArray()
            column.SetName(name)
            for row in rows:
                column.InsertNextValue(_oneLine(row.get(name, "")))
            self.node.AddColumn(column)
        self.node.EndModify(modified)


def _tableOf(segmentationNode: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLTableNode | None:
    for node in slicer.util.getNodesByClass("vtkMRMLTableNode"):
        if node.GetNodeReferenceID(_SEGMENTATION) == segmentationNode.GetID():
            return node
    return None


def _newTable(segmentationNode: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLTableNode:
    name = _("{segmentation} RadiomicsLLM results").format(segmentation=segmentationNode.GetName())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetNodeReferenceID(_SEGMENTATION, segmentationNode.GetID())
    return node


def _placeBeside(volumeNode: slicer.vtkMRMLVolumeNode, tableNode: slicer.vtkMRMLTableNode) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    if volumeItem:
        hierarchy.CreateItem(hierarchy.GetItemParent(volumeItem), tableNode)


def _cells(result: SegmentResult) -> dict[str, str]:
    cells = {"segment": result.segmentName, "segment_id": result.segmentId, "problem": result.problem}
    prediction = result.prediction
    if prediction is None:
        return cells
    return cells | {
        "call": prediction.call,
        "probability": repr(prediction.probability),
        "cautions": " ".join(caution.text for caution in prediction.cautions),
        "threshold": repr(prediction.threshold),
        "prompt": prediction.prompt,
        "model": prediction.model.name,
        "model_sha256": prediction.model.sha256,
        "notice": prediction.notice,
    }


def _oneLine(text: str) -> str:
    """Without what breaks a cell of the TSV file that Slicer saves: line ends, tabs and double quotes."""
    return " ".join(text.split()).replace('"', "'")
