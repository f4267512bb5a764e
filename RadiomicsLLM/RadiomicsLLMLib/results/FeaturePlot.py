"""The features that moved a prediction, as a chart of Slicer's plot view."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from ..scene.OwnedNode import makeOwned, placeBeside
from .SegmentResult import SegmentResult


def plotFeatures(
    volumeNode: slicer.vtkMRMLVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    result: SegmentResult,
) -> slicer.vtkMRMLPlotChartNode:
    """The segmentation's chart node, showing one segment: a bar for each feature, the strongest first.

    Args:
        result: with a prediction.
    """
    prediction = result.prediction
    assert prediction is not None
    title = _("{segment}: what moved the prediction").format(segment=result.segmentName)
    tableNode = makeOwned(segmentationNode, "vtkMRMLTableNode", "chart-data", title)
    shares = prediction.strongest()
    _fill(tableNode, [share.name for share in shares], [share.effect or 0.0 for share in shares])
    seriesNode = makeOwned(segmentationNode, "vtkMRMLPlotSeriesNode", "chart-series", title)
    seriesNode.SetAndObserveTableNodeID(tableNode.GetID())
    seriesNode.SetLabelColumnName("feature")
    seriesNode.SetYColumnName("effect")
    seriesNode.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
    seriesNode.SetColor(0.12, 0.48, 0.44)
    chartNode = makeOwned(segmentationNode, "vtkMRMLPlotChartNode", "chart", title)
    chartNode.SetName(title)
    chartNode.SetTitle(title)
    chartNode.SetYAxisTitle(_("change of the log-odds of malignancy"))
    chartNode.RemoveAllPlotSeriesNodeIDs()
    chartNode.AddAndObservePlotSeriesNodeID(seriesNode.GetID())
    chartNode.SetLegendVisibility(False)
    for node in (tableNode, seriesNode, chartNode):
        placeBeside(volumeNode, node)
    return chartNode


def _fill(tableNode: slicer.vtkMRMLTableNode, names: list[str], effects: list[float]) -> None:
    labels, values = vtk.vtkStringArray(), vtk.vtkDoubleArray()
    labels.SetName("feature")
    values.SetName("effect")
    for name, effect in zip(names, effects, strict=True):
        labels.InsertNextValue(name)
        values.InsertNextValue(effect)
    modified = tableNode.StartModify()
    tableNode.RemoveAllColumns()
    tableNode.AddColumn(labels)
    tableNode.AddColumn(values)
    tableNode.EndModify(modified)
