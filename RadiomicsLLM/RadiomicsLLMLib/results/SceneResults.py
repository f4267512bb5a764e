"""Results in the scene, and from there again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import slicer
from slicer.i18n import tr as _

from ..scene.OwnedNode import findOwned, makeOwned, placeBeside
from .ResultTable import VOLUME, ResultTable
from .SegmentResult import SegmentResult

_TEXT, _ROLE = "vtkMRMLTextNode", "predictions"


def writeResults(
    volumeNode: slicer.vtkMRMLVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    results: Sequence[SegmentResult],
) -> None:
    """The segmentation's tables, and a text node with all that the panel shows, which is saved with the scene."""
    ResultTable(volumeNode, segmentationNode).write(results)
    name = _("{segmentation} RadiomicsLLM predictions").format(segmentation=segmentationNode.GetName())
    textNode = makeOwned(segmentationNode, _TEXT, _ROLE, name)
    textNode.SetText(json.dumps([result.toRecord() for result in results], ensure_ascii=False))
    textNode.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeAlways)
    placeBeside(volumeNode, textNode)


def volumeOfResults(segmentationNode: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLVolumeNode | None:
    """The volume that `writeResults` was last told of; None where it or the table is gone."""
    table = findOwned(segmentationNode, "vtkMRMLTableNode", "results")
    return table.GetNodeReference(VOLUME) if table else None


def readResults(segmentationNode: slicer.vtkMRMLSegmentationNode) -> list[SegmentResult]:
    """What was written last; nothing where nothing was, or another version of this extension wrote it."""
    textNode = findOwned(segmentationNode, _TEXT, _ROLE)
    if textNode is None:
        return []
    try:
        return [SegmentResult.fromRecord(record) for record in json.loads(textNode.GetText())]
    except (ImportError, KeyError, TypeError, ValueError):
        logging.exception("RadiomicsLLM cannot read the results of an earlier session; the tables still hold them.")
        return []
