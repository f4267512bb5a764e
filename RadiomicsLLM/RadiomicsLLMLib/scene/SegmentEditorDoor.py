"""From the panel to Slicer's Segment Editor, with what is chosen."""

from __future__ import annotations

import slicer

_NAME = "SegmentEditor"


def openSegmentEditor(
    volumeNode: slicer.vtkMRMLVolumeNode | None, segmentationNode: slicer.vtkMRMLSegmentationNode | None
) -> None:
    """Switch to the Segment Editor; it shows the segmentation on the volume, as far as they are given.

    What it shows lies in a node of the scene, of which there is one: that is told before the module is shown.
    """
    node = slicer.mrmlScene.GetSingletonNode(_NAME, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_NAME)
        node = slicer.mrmlScene.AddNode(node)
    if segmentationNode:
        node.SetAndObserveSegmentationNode(segmentationNode)
    if volumeNode:
        node.SetAndObserveSourceVolumeNode(volumeNode)
    slicer.util.selectModule(_NAME)
