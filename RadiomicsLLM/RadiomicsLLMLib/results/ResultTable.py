"""Results as tables of the scene, for people and for export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import slicer
import vtk
from slicer.i18n import tr as _

from ..scene.OwnedNode import makeOwned, placeBeside
from .SegmentResult import SegmentResult

COLUMNS = (
    "segment",
    "call",
    "probability",
    "problem",
    "cautions",
    "threshold",
    "uncertain_from",
    "uncertain_to",
    "prompt",
    "model",
    "model_sha256",
    "segment_id",
    "notice",
)
FEATURE_COLUMNS = (
    "segment",
    "feature",
    "name",
    "value",
    "unit",
    "standardised",
    "training_percentile",
    "effect",
    "segment_id",
)
VOLUME = "RadiomicsLLM.volume"
"""The reference of both tables to the volume that was classified."""


class ResultTable:
    """Two tables of a segmentation: one row a segment, also for those that failed; and one row a feature
    or finding that the model read.

    Every cell is text, a number with all its digits: Slicer saves numeric columns to six digits.
    """

    def __init__(self, volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """The segmentation's tables of an earlier run, or else new ones beside the volume in the hierarchy."""
        owner = segmentationNode.GetName()
        self.node, self.featuresNode = (
            makeOwned(segmentationNode, "vtkMRMLTableNode", role, name.format(segmentation=owner))
            for role, name in (
                ("results", _("{segmentation} RadiomicsLLM results")),
                ("features", _("{segmentation} RadiomicsLLM features")),
            )
        )
        for node in (self.node, self.featuresNode):
            node.SetNodeReferenceID(VOLUME, volumeNode.GetID())
            placeBeside(volumeNode, node)

    def write(self, results: Sequence[SegmentResult]) -> None:
        """Replace the rows."""
        _fill(self.node, COLUMNS, [_cells(result) for result in results])
        _fill(self.featuresNode, FEATURE_COLUMNS, [row for result in results for row in _featureRows(result)])


def startTable(node: slicer.vtkMRMLTableNode, columns: Sequence[str]) -> None:
    """Give a table these columns, and no row."""
    modified = node.StartModify()
    node.RemoveAllColumns()
    for name in columns:
        column = vtk.vtkStringArray()
        column.SetName(name)
        node.AddColumn(column)
    node.EndModify(modified)


def addRows(node: slicer.vtkMRMLTableNode, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Put rows below those of a table that was started with these columns; a cell that is not given is empty."""
    table = node.GetTable()
    for index, name in enumerate(columns):
        column = table.GetColumn(index)
        for row in rows:
            column.InsertNextValue(_oneLine(row.get(name, "")))
        column.Modified()
    table.Modified()


def _fill(node: slicer.vtkMRMLTableNode, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    startTable(node, columns)
    addRows(node, columns, rows)


def _cells(result: SegmentResult) -> dict[str, str]:
    cells = {"segment": result.segmentName, "segment_id": result.segmentId, "problem": result.problem}
    prediction = result.prediction
    if prediction is None:
        return cells
    band = prediction.band
    return cells | {
        "call": prediction.call,
        "probability": repr(prediction.probability),
        "cautions": " ".join(caution.text for caution in prediction.cautions),
        "threshold": repr(prediction.threshold),
        "uncertain_from": repr(band.low) if band else "",
        "uncertain_to": repr(band.high) if band else "",
        "prompt": prediction.prompt,
        "model": prediction.model.name,
        "model_sha256": prediction.model.sha256,
        "notice": prediction.notice,
    }


def _featureRows(result: SegmentResult) -> Iterable[dict[str, str]]:
    if result.prediction is None:
        return
    extraction = result.prediction.extraction
    for share in result.prediction.features:
        yield {
            "segment": result.segmentName,
            "segment_id": result.segmentId,
            "feature": share.feature,
            "name": share.name,
            "value": repr(share.value),
            "unit": _unit(share.feature, extraction.geometry.spacing_known) if extraction else "",
            "standardised": repr(share.standardised),
            "training_percentile": repr(share.training_percentile),
            "effect": "" if share.effect is None else repr(share.effect),
        }
    for finding in result.prediction.descriptors:
        if finding.value:
            yield {
                "segment": result.segmentName,
                "segment_id": result.segmentId,
                "feature": finding.descriptor,
                "name": finding.name,
                "value": finding.value,
                "effect": "" if finding.effect is None else repr(finding.effect),
            }


def _unit(feature: str, spacingKnown: bool) -> str:
    """Empty for a number without one."""
    from radllm_backend.reports.dicom_codes import NO_UNITS, unit_of

    unit = unit_of(feature, spacingKnown)
    return "" if unit == NO_UNITS else unit.value.strip("{}")


def _oneLine(text: str) -> str:
    """Without what breaks a cell of the TSV file that Slicer saves: line ends, tabs and double quotes."""
    return " ".join(text.split()).replace('"', "'")
