"""Segments in the colour of their call, and in their own again."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
import vtk

from .ClassifiedLesions import ClassifiedLesions

SEGMENT_COLORS = {"likely benign": "#0072b2", "uncertain": "#f0e442", "likely malignant": "#d55e00"}
"""The report's blue, yellow and orange, as bright as a dark view asks for; they differ for colour-blind people too
(Okabe and Ito)."""
_TAG = "RadiomicsLLM.ownColor"


class SegmentColors:
    """A box: ticked, each classified segment has the colour of its call; unticked, the one that it had before.

    Its own colour is kept with the segment, so that it comes back after the scene was saved and loaded too.
    """

    def __init__(self, box: qt.QCheckBox, shown: Callable[[], ClassifiedLesions]) -> None:
        """
        Args:
            shown: gives the results that are shown.
        """
        self._box, self._shown = box, shown
        self._segmentationNode: slicer.vtkMRMLSegmentationNode | None = None
        box.connect("toggled(bool)", self._onToggled)

    def update(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Look again at the segmentation that is chosen and at its results."""
        self._segmentationNode = segmentationNode
        isColored = segmentationNode is not None and bool(_colored(segmentationNode))
        self._box.enabled = segmentationNode is not None and (isColored or bool(self._shown().results))
        self._box.blockSignals(True)
        self._box.checked = isColored
        self._box.blockSignals(False)

    def recolor(self) -> None:
        """New results: where segments are coloured, colour them by these."""
        if self._box.checked:
            self._onToggled(True)

    def _onToggled(self, isTicked: bool) -> None:
        if self._segmentationNode is None:
            return
        restoreColors(self._segmentationNode)
        if isTicked:
            calls = {result.segmentId: result.prediction for result in self._shown().results}
            colorByCall(self._segmentationNode, {key: one.call for key, one in calls.items() if one})


def colorByCall(segmentationNode: slicer.vtkMRMLSegmentationNode, calls: dict[str, str]) -> None:
    """Give segments the colours of their calls, by segment ID; their own are kept with them."""
    for segmentId, call in calls.items():
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
        if segment:
            segment.SetTag(_TAG, " ".join(map(repr, segment.GetColor())))
            color = qt.QColor(SEGMENT_COLORS[call])
            segment.SetColor(color.redF(), color.greenF(), color.blueF())


def restoreColors(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Give every coloured segment its own colour back."""
    for segmentId, own in _colored(segmentationNode).items():
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
        segment.RemoveTag(_TAG)
        segment.SetColor(*own)


def _colored(segmentationNode: slicer.vtkMRMLSegmentationNode) -> dict[str, tuple[float, float, float]]:
    """The own colours of the segments that have another one, by their IDs."""
    segmentation, found = segmentationNode.GetSegmentation(), {}
    for segmentId in segmentation.GetSegmentIDs():
        text = vtk.reference("")
        if segmentation.GetSegment(segmentId).GetTag(_TAG, text):
            try:
                red, green, blue = map(float, str(text).split())
            except ValueError:  # not this module's
                continue
            found[segmentId] = (red, green, blue)
    return found
