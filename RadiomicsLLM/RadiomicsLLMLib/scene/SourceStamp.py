"""Whether lesions were drawn differently while nobody looked."""

from __future__ import annotations

import slicer


def sourceStamp(segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> object:
    """Equal to an earlier one where the same segments of the same segmentation are as they were drawn then; colours,
    names and visibility do not matter.
    """
    if segmentationNode is None:
        return None
    segmentation = segmentationNode.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    drawn = [(key, segmentation.GetSegment(key).GetRepresentation(source)) for key in segmentation.GetSegmentIDs()]
    return segmentationNode, [(key, shape.GetMTime() if shape else None) for key, shape in drawn]
