"""Where lesions come from: a volume of the scene and the segments drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

if TYPE_CHECKING:
    import SimpleITK as sitk

    from radllm_backend import Lesion


@dataclass(frozen=True)
class Voxels:
    """A copy of a volume node's voxels, with their place in space."""

    array: np.ndarray
    """[slices × rows × columns], of a colour picture also × components."""
    ijkToRas: np.ndarray
    spacing: tuple[float, float, float]
    """Millimetres, along columns, rows and slices."""

    def image(self) -> sitk.Image:
        """As SimpleITK has it: its axes are LPS, Slicer's RAS."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(self.array, isVector=self.array.ndim == 4)
        ijkToLps = np.diag([-1, -1, 1, 1]) @ self.ijkToRas
        image.SetSpacing(self.spacing)
        image.SetOrigin(ijkToLps[:3, 3].tolist())
        image.SetDirection((ijkToLps[:3, :3] / np.array(self.spacing)).ravel().tolist())
        return image


@dataclass(frozen=True)
class Snapshot:
    """A segment and its volume as they are now: other threads may read it whatever becomes of the scene."""

    segmentName: str
    voxels: Voxels
    mask: Voxels
    modality: str | None
    spacingKnown: bool

    def lesion(self) -> Lesion:
        """The lesion that the segment marks; RadllmError where it cannot be used."""
        from radllm_backend import Lesion

        return Lesion.from_images(
            self.voxels.image(),
            self.mask.image(),
            modality=self.modality,
            spacing_known=self.spacingKnown,
            segment=self.segmentName,
        )


class SegmentedVolume:
    """A volume node and a segmentation node, which may have a geometry of its own: the volume's counts."""

    def __init__(
        self,
        volumeNode: slicer.vtkMRMLVolumeNode,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        modality: str | None = None,
    ) -> None:
        """
        Args:
            modality: MG, US, CT or MR; None for what the DICOM series says, if the volume came from one.
        """
        self.volumeNode = volumeNode
        self.segmentationNode = segmentationNode
        self._modality = modality

    def isInScene(self) -> bool:
        """Whether both nodes are still there."""
        return all(slicer.mrmlScene.IsNodePresent(node) for node in (self.volumeNode, self.segmentationNode))

    def segmentName(self, segmentId: str) -> str:
        """The segment's name, or its ID where it does not exist."""
        segment = self.segmentationNode.GetSegmentation().GetSegment(segmentId)
        return segment.GetName() if segment else segmentId

    def snapshot(self, segmentId: str) -> Snapshot:
        """A segment on the volume's grid. Only on the main thread.

        Raises:
            RadllmError: the nodes or the segment are gone, or the volume has no voxels.
        """
        from radllm_backend import RadllmError

        if not self.isInScene():
            raise RadllmError(_("The volume or the segmentation was removed from the scene: choose another one."))
        return Snapshot(
            self.segmentName(segmentId),
            self._voxels,
            self._mask(segmentId),
            self._modality or _dicomModality(self.volumeNode),
            _spacingIsKnown(self.volumeNode),
        )

    def lesion(self, segmentId: str) -> Lesion:
        """The lesion that a segment marks; RadllmError where there is none or it cannot be used."""
        return self.snapshot(segmentId).lesion()

    @cached_property
    def _voxels(self) -> Voxels:
        from radllm_backend import RadllmError

        if self.volumeNode.GetImageData() is None:
            name = self.volumeNode.GetName()
            raise RadllmError(_("The volume '{name}' has no voxels: load it again.").format(name=name))
        return _copied(self.volumeNode)

    def _mask(self, segmentId: str) -> Voxels:
        """Through a labelmap node that is in the scene only meanwhile."""
        from radllm_backend import RadllmError

        if not self.segmentationNode.GetSegmentation().GetSegment(segmentId):
            sentence = _("There is no segment with the ID '{segment}' any more: choose another one.")
            raise RadllmError(sentence.format(segment=segmentId))
        segmentIds = vtk.vtkStringArray()
        segmentIds.InsertNextValue(segmentId)
        labelmapNode = slicer.vtkMRMLLabelMapVolumeNode()
        labelmapNode.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(labelmapNode)
        try:
            exported = slicer.modules.segmentations.logic().ExportSegmentsToLabelmapNode(
                self.segmentationNode, segmentIds, labelmapNode, self.volumeNode
            )
            if not exported:
                sentence = _("Slicer cannot rasterise the segment '{segment}': draw it anew.")
                raise RadllmError(sentence.format(segment=self.segmentName(segmentId)))
            return _copied(labelmapNode)
        finally:
            _removeWithDisplay(labelmapNode)


def visibleSegmentIds(segmentationNode: slicer.vtkMRMLSegmentationNode) -> Sequence[str]:
    """IDs of the segments whose eye is open in the segments table, in its order."""
    displayNode = segmentationNode.GetDisplayNode()
    segmentIds = segmentationNode.GetSegmentation().GetSegmentIDs()
    return [segmentId for segmentId in segmentIds if not displayNode or displayNode.GetSegmentVisibility(segmentId)]


def _copied(volumeNode: slicer.vtkMRMLVolumeNode) -> Voxels:
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    array = np.array(slicer.util.arrayFromVolume(volumeNode))
    return Voxels(array, np.array(slicer.util.arrayFromVTKMatrix(ijkToRas)), tuple(volumeNode.GetSpacing()))


def _removeWithDisplay(labelmapNode: slicer.vtkMRMLLabelMapVolumeNode) -> None:
    """Remove an exported labelmap with the display and the colour table that the export made for it."""
    displayNode = labelmapNode.GetDisplayNode()
    colorNode = displayNode.GetColorNode() if displayNode else None
    for node in (colorNode, displayNode, labelmapNode):
        if node:
            slicer.mrmlScene.RemoveNode(node)


def _dicomModality(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    """What the DICOM module noted of the series when it loaded the volume."""
    from radllm_backend.records import MODALITIES

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode)
    modality = hierarchy.GetItemAttribute(item, attribute) if item else ""
    return modality if modality in MODALITIES else None


def _spacingIsKnown(volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Slicer gives the pixels of a picture without spacing (PNG, JPEG) 1 mm; nothing else tells them apart."""
    return bool(volumeNode.GetImageData().GetDimensions()[2] > 1 or volumeNode.GetSpacing()[:2] != (1.0, 1.0))
