"""A segment on the grid of a volume, taken out of the scene without holding Slicer up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from ..panel.Background import Steps
from .VoxelCopy import Grid, Pause, copyVoxels, voxelsOf

_MOST_AT_ONCE = 2**20  # voxels that are resampled between two turns of the event loop
_ON_GRID = 1e-4  # of a voxel: farther off, a segment lies on a grid of its own


@dataclass(frozen=True)
class SegmentMask:
    """A copy of the part of a labelmap that holds a segment, and where it lies on the volume's grid."""

    labels: np.ndarray
    """[slices × rows × columns]."""
    label: int
    """The segment's; other labels are other segments."""
    first: tuple[int, int, int]
    """The part's first slice, row and column on the volume's grid; may lie outside it."""

    def on(self, shape: Sequence[int]) -> np.ndarray:
        """The mask of a whole volume of this shape [slices × rows × columns]: 1 in the segment, else 0."""
        mask = np.zeros(shape, np.uint8)
        inside, part = [], []
        for first, length, size in zip(self.first, self.labels.shape, shape, strict=True):
            start, stop = max(first, 0), max(min(first + length, size), 0)
            inside.append(slice(start, stop))
            part.append(slice(start - first, max(stop, start) - first))
        np.equal(self.labels[tuple(part)], self.label, out=mask[tuple(inside)], casting="unsafe")
        return mask


_EMPTY = SegmentMask(np.zeros((0, 0, 0), np.uint8), 1, (0, 0, 0))


def maskSteps(
    volumeNode: slicer.vtkMRMLVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentId: str,
    grid: Grid,
    pause: Pause,
) -> Steps[SegmentMask]:
    """What Slicer's export of the segment to a labelmap of the volume gives, piece by piece.

    Two things are Slicer's own, and end when they end: making a labelmap of a segment that is a surface, once, and
    exporting one that has another transform than the volume.

    Args:
        grid: the volume's, when its voxels were copied.

    Raises:
        RadllmError: Slicer cannot make a labelmap of the segment, or the volume has another grid by now.
    """
    from radllm_backend import RadllmError

    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation = segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(segmentId)
    if not segmentation.CreateRepresentation(name):  # nothing happens where it is there
        sentence = _("Slicer cannot rasterise the segment '{segment}': draw it anew.")
        raise RadllmError(sentence.format(segment=segment.GetName()))
    labelmap, label = segment.GetRepresentation(name), int(segment.GetLabelValue())
    if labelmap is None or not all(labelmap.GetDimensions()) or labelmap.GetPointData().GetScalars() is None:
        return _EMPTY
    if volumeNode.GetParentTransformNode() is not segmentationNode.GetParentTransformNode():
        return (yield from _exported(volumeNode, segmentationNode, segmentId, grid, pause))
    reached = _cornersOn(grid, labelmap)
    if _isShift(reached, labelmap.GetExtent()):
        labels = yield from copyVoxels(labelmap, pause)
        column, row, place = (int(index) for index in np.rint(reached[0]))
        return SegmentMask(labels, label, (place, row, column))
    low = np.clip(np.floor(reached.min(axis=0)).astype(int) - 1, 0, grid.shape[::-1])
    high = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 2, 0, grid.shape[::-1])
    if (high <= low).any():
        return _EMPTY
    labels = yield from _resampled(labelmap, grid, low, high, pause)
    return SegmentMask(labels, label, (int(low[2]), int(low[1]), int(low[0])))


def _corners(extent: Sequence[int]) -> np.ndarray:
    """[8 × 3]: the outermost voxels' indices (column, row, slice); the first voxel of all comes first."""
    return np.array([*product(extent[:2], extent[2:4], extent[4:])])


def _cornersOn(grid: Grid, labelmap: slicer.vtkOrientedImageData) -> np.ndarray:
    """[8 × 3]: where a labelmap's outermost voxels lie, in voxels of the grid."""
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    toGrid = np.linalg.solve(grid.ijkToRas, slicer.util.arrayFromVTKMatrix(matrix))
    return _corners(labelmap.GetExtent()) @ toGrid[:3, :3].T + toGrid[:3, 3]


def _isShift(reached: np.ndarray, extent: Sequence[int]) -> bool:
    """Whether each voxel of a labelmap is a voxel of the grid, in the same order."""
    shift = reached - _corners(extent)
    return bool(np.abs(shift - np.rint(shift[0])).max() < _ON_GRID)


def _resampled(
    labelmap: slicer.vtkOrientedImageData, grid: Grid, low: np.ndarray, high: np.ndarray, pause: Pause
) -> Steps[np.ndarray]:
    """A part of the grid (columns, rows and slices from low to high), in slabs of slices."""
    ijkToRas = slicer.util.vtkMatrixFromArray(grid.ijkToRas)
    thick = max(1, _MOST_AT_ONCE // int(np.prod(high[:2] - low[:2])))
    slabs: list[np.ndarray] = []
    for start in range(low[2], high[2], thick):
        if slabs:
            yield from pause()
        last = min(start + thick, high[2]) - 1
        part, slab = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
        part.SetExtent(*(int(index) for index in (low[0], high[0] - 1, low[1], high[1] - 1, start, last)))
        part.SetGeometryFromImageToWorldMatrix(ijkToRas)
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, part, slab)
        slabs.append(voxelsOf(slab).copy())
    return np.concatenate(slabs)


def _exported(
    volumeNode: slicer.vtkMRMLVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentId: str,
    grid: Grid,
    pause: Pause,
) -> Steps[SegmentMask]:
    """Through a labelmap node that is in the scene only meanwhile."""
    from radllm_backend import RadllmError

    segmentIds = vtk.vtkStringArray()
    segmentIds.InsertNextValue(segmentId)
    labelmapNode = slicer.vtkMRMLLabelMapVolumeNode()
    labelmapNode.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(labelmapNode)
    try:
        logic = slicer.modules.segmentations.logic()
        if not logic.ExportSegmentsToLabelmapNode(segmentationNode, segmentIds, labelmapNode, volumeNode):
            sentence = _("Slicer cannot rasterise the segment '{segment}': draw it anew.")
            name = segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()
            raise RadllmError(sentence.format(segment=name))
        exported = labelmapNode.GetImageData()
    finally:
        _removeWithDisplay(labelmapNode)
    if exported.GetDimensions()[::-1] != grid.shape:
        raise RadllmError(_("The volume was given another size meanwhile: classify again."))
    return SegmentMask((yield from copyVoxels(exported, pause)), 1, (0, 0, 0))


def _removeWithDisplay(labelmapNode: slicer.vtkMRMLLabelMapVolumeNode) -> None:
    """Remove an exported labelmap with the display and the colour table that the export made for it."""
    displayNode = labelmapNode.GetDisplayNode()
    colorNode = displayNode.GetColorNode() if displayNode else None
    for node in (colorNode, displayNode, labelmapNode):
        if node:
            slicer.mrmlScene.RemoveNode(node)
