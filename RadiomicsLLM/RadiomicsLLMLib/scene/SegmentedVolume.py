"""Where lesions come from: a volume of the scene and the segments drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from ..panel.Background import Steps, pauseFor, runHere
from .SegmentMask import SegmentMask, maskSteps
from .VoxelCopy import Grid, Pause, copyVoxels

if TYPE_CHECKING:
    import SimpleITK as sitk

    from radllm_backend import Lesion


@dataclass(frozen=True)
class Voxels:
    """A copy of a volume node's voxels, with their place in space."""

    array: np.ndarray
    """[slices × rows × columns], of a colour picture also × components."""
    grid: Grid

    @cached_property
    def image(self) -> sitk.Image:
        """As SimpleITK has it: its axes are LPS, Slicer's RAS. Takes long: not for the main thread."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(self.array, isVector=self.array.ndim == 4)
        ijkToLps = np.diag([-1, -1, 1, 1]) @ self.grid.ijkToRas
        image.SetSpacing(self.grid.spacing)
        image.SetOrigin(ijkToLps[:3, 3].tolist())
        image.SetDirection((ijkToLps[:3, :3] / np.array(self.grid.spacing)).ravel().tolist())
        return image


@dataclass(frozen=True)
class Snapshot:
    """A segment and its volume as they were at one moment: other threads may read it whatever becomes of the scene."""

    segmentName: str
    voxels: Voxels
    mask: SegmentMask
    modality: str | None
    spacingKnown: bool

    def lesion(self) -> Lesion:
        """The lesion that the segment marks; RadllmError where it cannot be used."""
        import SimpleITK as sitk

        from radllm_backend import Lesion

        mask = sitk.GetImageFromArray(self.mask.on(self.voxels.grid.shape))
        mask.CopyInformation(self.voxels.image)
        return Lesion.from_images(
            self.voxels.image,
            mask,
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
        self._voxels: Voxels | None = None

    def isInScene(self) -> bool:
        """Whether both nodes are still there."""
        return all(slicer.mrmlScene.IsNodePresent(node) for node in (self.volumeNode, self.segmentationNode))

    def segmentName(self, segmentId: str) -> str:
        """The segment's name, or its ID where it does not exist."""
        segment = self.segmentationNode.GetSegmentation().GetSegment(segmentId)
        return segment.GetName() if segment else segmentId

    def snapshot(self, segmentId: str, pause: Pause) -> Steps[Snapshot]:
        """A segment on the volume's grid, in steps of some milliseconds on the main thread.

        Args:
            pause: makes the steps between which Slicer goes on.

        Raises:
            RadllmError: the nodes or the segment are gone, or the volume has no voxels.
        """
        from radllm_backend import RadllmError

        if not self.isInScene():
            raise RadllmError(_("The volume or the segmentation was removed from the scene: choose another one."))
        if not self.segmentationNode.GetSegmentation().GetSegment(segmentId):
            sentence = _("There is no segment with the ID '{segment}' any more: choose another one.")
            raise RadllmError(sentence.format(segment=segmentId))
        if self._voxels is None:
            self._voxels = yield from _copied(self.volumeNode, pause)
        name = self.segmentName(segmentId)
        nodes = self.volumeNode, self.segmentationNode
        mask = yield from maskSteps(*nodes, segmentId, self._voxels.grid, pause)
        modality = self._modality or _dicomModality(self.volumeNode)
        return Snapshot(name, self._voxels, mask, modality, _spacingIsKnown(self._voxels.grid))

    def lesion(self, segmentId: str) -> Lesion:
        """The lesion that a segment marks, for scripts; RadllmError where there is none or it cannot be used."""
        return runHere(self.snapshot(segmentId, pauseFor(""))).lesion()


def visibleSegmentIds(segmentationNode: slicer.vtkMRMLSegmentationNode) -> Sequence[str]:
    """IDs of the segments whose eye is open in the segments table, in its order."""
    displayNode = segmentationNode.GetDisplayNode()
    segmentIds = segmentationNode.GetSegmentation().GetSegmentIDs()
    return [segmentId for segmentId in segmentIds if not displayNode or displayNode.GetSegmentVisibility(segmentId)]


def _copied(volumeNode: slicer.vtkMRMLVolumeNode, pause: Pause) -> Steps[Voxels]:
    from radllm_backend import RadllmError

    imageData = volumeNode.GetImageData()
    if imageData is None or imageData.GetPointData().GetScalars() is None:
        name = volumeNode.GetName()
        raise RadllmError(_("The volume '{name}' has no voxels: load it again.").format(name=name))
    grid = Grid.of(volumeNode)
    return Voxels((yield from copyVoxels(imageData, pause)), grid)


def _dicomModality(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    """What the DICOM module noted of the series when it loaded the volume."""
    from radllm_backend.records import MODALITIES

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode)
    modality = hierarchy.GetItemAttribute(item, attribute) if item else ""
    return modality if modality in MODALITIES else None


def _spacingIsKnown(grid: Grid) -> bool:
    """Slicer gives the pixels of a picture without spacing (PNG, JPEG) 1 mm; nothing else tells them apart."""
    return bool(grid.shape[0] > 1 or grid.spacing[:2] != (1.0, 1.0))
