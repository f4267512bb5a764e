"""The slice views go to a lesion, and the plot view to its chart."""

from __future__ import annotations

import slicer


def jumpTo(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentId: str) -> None:
    """All slice views show the segment in their middle; nothing happens where it is empty or gone."""
    if not segmentationNode.GetSegmentation().GetSegment(segmentId):
        return
    centre = segmentationNode.GetSegmentCenterRAS(segmentId)
    if centre is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *centre, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def showVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """In the background of all slice views, whole."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volumeNode.GetID())
    logic.PropagateVolumeSelection()


def showChart(chartNode: slicer.vtkMRMLPlotChartNode) -> None:
    """In the plot view, with a layout that has one."""
    slicer.modules.plots.logic().ShowChartInLayout(chartNode)
