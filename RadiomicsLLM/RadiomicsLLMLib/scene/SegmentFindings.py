"""What the radiologist found of a segment, kept with it in the scene."""

from __future__ import annotations

from collections.abc import Mapping

import slicer
import vtk

_TAG = "RadiomicsLLM.findings"


def readFindings(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentId: str) -> dict[str, str]:
    """Canonical values by the descriptors' names; nothing where there is no segment or nothing that can be said."""
    from radllm_backend import RadllmError
    from radllm_backend.features.descriptors import parse_descriptors

    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    text = vtk.reference("")
    if not segment or not segment.GetTag(_TAG, text):
        return {}
    try:
        return parse_descriptors([part for part in str(text).split(";") if part])
    except RadllmError:  # somebody else's, or of another version
        return {}


def writeFindings(
    segmentationNode: slicer.vtkMRMLSegmentationNode, segmentId: str, findings: Mapping[str, str]
) -> None:
    """Replace what is kept of a segment; it is saved with the segmentation."""
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    given = ";".join(f"{name}={value}" for name, value in findings.items() if value)
    if given:
        segment.SetTag(_TAG, given)
    else:
        segment.RemoveTag(_TAG)
