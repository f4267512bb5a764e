"""Nodes of a role, mostly of a segmentation, that are found again, also after the scene was saved and loaded."""

from __future__ import annotations

import slicer

_SEGMENTATION = "RadiomicsLLM.segmentation"
_ROLE = "RadiomicsLLM.role"


def findOwned(segmentationNode: slicer.vtkMRMLSegmentationNode, className: str, role: str) -> slicer.vtkMRMLNode | None:
    """The segmentation's node of a role; None where it has none yet."""
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(_ROLE) == role and node.GetNodeReferenceID(_SEGMENTATION) == segmentationNode.GetID():
            return node
    return None


def makeOwned(
    segmentationNode: slicer.vtkMRMLSegmentationNode, className: str, role: str, name: str
) -> slicer.vtkMRMLNode:
    """The segmentation's node of a role, new if need be."""
    node = findOwned(segmentationNode, className, role)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(className, name)
        node.SetAttribute(_ROLE, role)
        node.SetNodeReferenceID(_SEGMENTATION, segmentationNode.GetID())
    return node


def makeLone(className: str, role: str, name: str) -> slicer.vtkMRMLNode:
    """The scene's only node of a role, which belongs to no segmentation; new if need be."""
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(_ROLE) == role:
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    node.SetAttribute(_ROLE, role)
    return node


def placeBeside(volumeNode: slicer.vtkMRMLVolumeNode, node: slicer.vtkMRMLNode) -> None:
    """Under the volume's study in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    if volumeItem:
        hierarchy.CreateItem(hierarchy.GetItemParent(volumeItem), node)
