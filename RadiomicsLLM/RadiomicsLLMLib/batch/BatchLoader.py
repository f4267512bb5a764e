"""A lesion of a batch, from the DICOM database into the scene."""

from __future__ import annotations

from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from ..scene.DicomDatabase import DicomDatabase
from ..scene.ViewJump import jumpTo, showVolume
from .BatchLesion import BatchLesion

_READERS = {
    "SEG": ("DICOMSegmentationPlugin", "QuantitativeReporting"),
    "RTSTRUCT": ("DicomRtImportExportPlugin", "SlicerRT"),
}
"""What loads each kind of segmentation in Slicer, and the extension that brings it. The first is in Slicer 5.12."""


@dataclass(frozen=True)
class LoadedLesion:
    """The nodes that a lesion lies in."""

    volumeNode: slicer.vtkMRMLVolumeNode
    segmentationNode: slicer.vtkMRMLSegmentationNode
    segmentId: str
    """Empty where no segment has the lesion's name."""


def loadLesion(lesion: BatchLesion, database: DicomDatabase) -> LoadedLesion:
    """Load a lesion's series and its segmentation, unless they are loaded, and show the lesion in the slice views.

    Raises:
        RadllmError: it is not in the open database, or Slicer cannot load it.
    """
    from radllm_backend import RadllmError

    if not lesion.series:
        raise RadllmError(_("{lesion} was left out: there is nothing to load.").format(lesion=lesion.lesion))
    ownSeries = database.seriesOf(lesion.source)
    if not database.holdsSeries(lesion.series) or not ownSeries:
        raise RadllmError(_("{lesion} is not in Slicer's open DICOM database.").format(lesion=lesion.lesion))
    nodes = database.load([lesion.series, ownSeries])
    volume, segmentation = _first(nodes, "vtkMRMLVolumeNode"), _first(nodes, "vtkMRMLSegmentationNode")
    if volume is None:
        raise RadllmError(_("Slicer cannot load the series of {lesion}.").format(lesion=lesion.lesion))
    showVolume(volume)
    if segmentation is None:
        raise RadllmError(_whyNoSegmentation(lesion))
    segmentId = segmentation.GetSegmentation().GetSegmentIdBySegmentName(lesion.segment)
    if segmentId:
        jumpTo(segmentation, segmentId)
    return LoadedLesion(volume, segmentation, segmentId)


def _whyNoSegmentation(lesion: BatchLesion) -> str:
    reader, extension = _READERS.get(lesion.kind, _READERS["SEG"])
    if reader in getattr(slicer.modules, "dicomPlugins", {}):  # none where the module DICOM is switched off
        sentence = _("Slicer could not load the {kind} of {lesion}: Slicer's error log says why.")
        return sentence.format(kind=lesion.kind, lesion=lesion.lesion)
    sentence = _("Slicer loads no {kind} yet: install the extension {extension}.")
    return sentence.format(kind=lesion.kind, extension=extension)


def _first(nodes: list[slicer.vtkMRMLNode], className: str) -> slicer.vtkMRMLNode | None:
    return next((node for node in nodes if node.IsA(className)), None)
