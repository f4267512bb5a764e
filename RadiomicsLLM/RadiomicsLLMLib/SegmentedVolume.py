"""Where lesions come from: a volume of the scene and the segments drawn on it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk

if TYPE_CHECKING:
    import SimpleITK as sitk

    from radllm_backend import Lesion


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
        self._volumeNode = volumeNode
        self._segmentationNode = segmentationNode
        self._modality = modality

    def segmentName(self, segmentId: str) -> str:
        """The segment's name, or its ID where it does not exist."""
        segment = self._segmentationNode.GetSegmentation().GetSegment(segmentId)
        return segment.GetName() if segment else segmentId

    def lesion(self, segmentId: str) -> Lesion:
        """The lesion that a segment marks.

        Raises:
            RadllmError: there is no such segment, or its lesion cannot be used.
        """
        from radllm_backend import Lesion

        return Lesion.from_images(
            self._image,
            self._mask(segmentId),
            modality=self._modality or _dicomModality(self._volumeNode),
            spacing_known=_spacingIsKnown(self._volumeNode),
            segment=self.segmentName(segmentId),
        )

    @cached_property
    def _image(self) -> sitk.Image:
        from radllm_backend import RadllmError

        if self._volumeNode.GetImageData() is None:
            raise RadllmError(f"The volume '{self._volumeNode.GetName()}' has no voxels: load it again.")
        return _imageFromVolume(self._volumeNode)

    def _mask(self, segmentId: str) -> sitk.Image:
        """The segment on the volume's grid, through a labelmap node that is in the scene only meanwhile."""
        from radllm_backend import RadllmError

        if not self._segmentationNode.GetSegmentation().GetSegment(segmentId):
            raise RadllmError(f"There is no segment with the ID '{segmentId}' any more: choose another one.")
        segmentIds = vtk.vtkStringArray()
        segmentIds.InsertNextValue(segmentId)
        labelmapNode = slicer.vtkMRMLLabelMapVolumeNode()
        labelmapNode.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(labelmapNode)
        try:
            exported = slicer.modules.segmentations.logic().ExportSegmentsToLabelmapNode(
                self._segmentationNode, segmentIds, labelmapNode, self._volumeNode
            )
            if not exported:
                raise RadllmError(f"Slicer cannot rasterise the segment '{self.segmentName(segmentId)}': draw it anew.")
            return _imageFromVolume(labelmapNode)
        finally:
            _removeWithDisplay(labelmapNode)


def visibleSegmentIds(segmentationNode: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """IDs of the segments whose eye is open in the segments table, in its order."""
    displayNode = segmentationNode.GetDisplayNode()
    segmentIds = segmentationNode.GetSegmentation().GetSegmentIDs()
    return [segmentId for segmentId in segmentIds if not displayNode or displayNode.GetSegmentVisibility(segmentId)]


def _imageFromVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> sitk.Image:
    """A copy of the voxels with their place in space: SimpleITK's axes are LPS, Slicer's RAS."""
    import SimpleITK as sitk

    voxels = slicer.util.arrayFromVolume(volumeNode)
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    ijkToLps = np.diag([-1, -1, 1, 1]) @ slicer.util.arrayFromVTKMatrix(ijkToRas)
    spacing = np.array(volumeNode.GetSpacing())
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(ijkToLps[:3, 3].tolist())
    image.SetDirection((ijkToLps[:3, :3] / spacing).ravel().tolist())
    return image


def _removeWithDisplay(labelmapNode: slicer.vtkMRMLLabelMapVolumeNode) -> None:
    """Remove an exported labelmap with the display and the colour table that the export made for it."""
    displayNode = labelmapNode.GetDisplayNode()
    colorNode = displayNode.GetColorNode() if displayNode else None
    for node in (colorNode, displayNode, labelmapNode):
        if node:
            slicer.mrmlScene.RemoveNode(node)


def _dicomModality(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    """What the DICOM module noted of the series when it loaded the volume."""
    from radllm_backend.features import MODALITIES

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode)
    modality = hierarchy.GetItemAttribute(item, attribute) if item else ""
    return modality if modality in MODALITIES else None


def _spacingIsKnown(volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Slicer gives the pixels of a picture without spacing (PNG, JPEG) 1 mm; nothing else tells them apart."""
    return volumeNode.GetImageData().GetDimensions()[2] > 1 or volumeNode.GetSpacing()[:2] != (1.0, 1.0)
