"""A layout for pictures of one slice, mammograms and ultrasound: one view, as the picture was taken."""

from __future__ import annotations

import numpy as np
import qt
import slicer
import vtk

_ONE_VIEW = slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView


class OneSliceLayout:
    """A box that is there where the chosen volume has one slice: ticked, one slice view shows it whole; unticked, the
    layout is the one that was there before.
    """

    def __init__(self, box: qt.QCheckBox) -> None:
        self._box = box
        self._volumeNode: slicer.vtkMRMLVolumeNode | None = None
        self._before: int | None = None
        box.visible = False
        box.connect("toggled(bool)", self._onToggled)

    def offer(self, volumeNode: slicer.vtkMRMLVolumeNode | None) -> None:
        """For this volume, if it has one slice, and there are views at all."""
        self._volumeNode = volumeNode if isOneSlice(volumeNode) else None
        manager = slicer.app.layoutManager()
        self._box.visible = self._volumeNode is not None and manager is not None
        isShown = self._before is not None and manager is not None and manager.layout == _ONE_VIEW
        self._box.blockSignals(True)
        self._box.checked = isShown
        self._box.blockSignals(False)

    def show(self) -> None:
        """Tick the box, or show the volume again where it is ticked."""
        if self._box.checked:
            self._onToggled(True)
        elif self._volumeNode is not None:
            self._box.checked = True

    def _onToggled(self, isTicked: bool) -> None:
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        if isTicked and self._volumeNode is not None:
            if manager.layout != _ONE_VIEW:
                self._before = manager.layout
            elif self._before is None:
                self._before = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
            manager.setLayout(_ONE_VIEW)
            showAsTaken(self._volumeNode)
        elif not isTicked and self._before is not None:
            manager.setLayout(self._before)
            self._before = None


def isOneSlice(volumeNode: slicer.vtkMRMLVolumeNode | None) -> bool:
    """Whether a volume has voxels, and one slice of them."""
    image = volumeNode.GetImageData() if volumeNode else None
    return image is not None and image.GetDimensions()[2] == 1


def showAsTaken(volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """The red view shows a volume of one slice whole, its rows from left to right and its first row on top: a
    mammogram's directions are those of the breast, and seldom those of a usual view.
    """
    sliceWidget = slicer.app.layoutManager().sliceWidget("Red")
    sliceNode = sliceWidget.mrmlSliceNode()
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASDirectionMatrix(ijkToRas)
    columns, rows, normal = slicer.util.arrayFromVTKMatrix(ijkToRas)[:3, :3].T
    directions = np.stack([columns, -rows, normal], axis=1)
    for row in range(3):
        for column in range(3):
            sliceNode.GetSliceToRAS().SetElement(row, column, directions[row, column])
    sliceNode.UpdateMatrices()
    sliceWidget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volumeNode.GetID())
    sliceWidget.sliceLogic().FitSliceToBackground()
