"""A stand-in for Slicer's layout of slice views, with pictures of what they show, drawn by Slicer's own MRML and VTK.

Checked against ``Libs/MRML/Widgets/qMRMLLayoutManager`` (.h and .cxx), ``qMRMLSliceWidget.h`` and
``qMRMLSliceView.cxx`` of Slicer's repository; ``qSlicerLayoutManager`` adds nothing that is used here. There are the
three usual views and two layouts; the 3D view stays empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
_COLOURS = {"Red": (0.95, 0.29, 0.29), "Green": (0.43, 0.69, 0.29), "Yellow": (0.93, 0.84, 0.3)}
_BAR = 6  # pixels of a view's coloured bar
_GAP = 2
_FOUR_UP = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
_RED_ALONE = slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView


def _empty_3d_view(height: int) -> np.ndarray:
    """[rows × 3], 8 bits: from Slicer's own upper colour to its lower one."""
    node = slicer.vtkMRMLViewNode()
    share = np.linspace(0, 1, height)[:, np.newaxis]
    colours = np.array(node.GetBackgroundColor2()), np.array(node.GetBackgroundColor())
    return np.rint(255 * ((1 - share) * colours[0] + share * colours[1])).astype(np.uint8)


class SliceWidget:
    """One slice view: nodes and logic at once, a window to draw in only when a picture is wanted."""

    def __init__(self, name: str, applicationLogic: Any) -> None:
        self._name, self._applicationLogic = name, applicationLogic
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(applicationLogic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._window: Any = None
        self._logic.AddSliceNode(name).SetOrientation(_ORIENTATIONS[name])

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def resize(self, width: int, height: int) -> None:
        """Of the view with its coloured bar; what it shows keeps its scale, as in Slicer."""
        self._logic.ResizeSliceNode(width, height - _BAR)

    def picture(self) -> np.ndarray:
        """[rows × columns × 3], 8 bits."""
        if self._window is None:
            self._make_window()
        width, height = self.mrmlSliceNode().GetDimensions()[:2]
        self._window.SetSize(width, height)
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        self._actor.SetVisibility(self._logic.GetImageDataConnection() is not None)
        self._window.Render()
        grabbed = vtk.vtkWindowToImageFilter()
        grabbed.SetInput(self._window)
        grabbed.ReadFrontBufferOff()
        grabbed.Update()
        pixels = vtk_to_numpy(grabbed.GetOutput().GetPointData().GetScalars())
        drawn = pixels.reshape(height, width, -1)[::-1, :, :3]
        bar = np.full((_BAR, width, 3), np.array(_COLOURS[self._name]) * 255, np.uint8)
        return np.concatenate([bar, drawn])

    def _make_window(self) -> None:
        self._window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
        self._window.SetOffScreenRendering(1)
        self._window.AddRenderer(renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._mapper, self._actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        renderer.AddViewProp(self._actor)
        renderer.GetActiveCamera().ParallelProjectionOn()
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.SetRenderer(renderer)
        manager = slicer.vtkMRMLSegmentationsDisplayableManager2D()
        manager.SetMRMLApplicationLogic(self._applicationLogic)
        self._managers.AddDisplayableManager(manager)
        self._managers.SetMRMLDisplayableNode(self.mrmlSliceNode())


class LayoutManager:
    """What ``slicer.app.layoutManager()`` gives; the views are made anew where a closed scene took their nodes."""

    def __init__(self, applicationLogic: Any) -> None:
        self._applicationLogic = applicationLogic
        self._made: dict[str, SliceWidget] = {}
        self.layout = _FOUR_UP
        self._widgets()
        slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndCloseEvent, lambda *_: self._widgets())

    def setLayout(self, layout: int) -> None:
        assert layout in (_FOUR_UP, _RED_ALONE), "the stand-in knows two layouts"
        self.layout = layout

    def sliceViewNames(self) -> Sequence[str]:
        """Of all views that there are, shown or not."""
        return tuple(_ORIENTATIONS)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return self._widgets().get(name)

    def mrmlSliceLogics(self) -> Any:
        logics = vtk.vtkCollection()
        for widget in self._widgets().values():
            logics.AddItem(widget.sliceLogic())
        return logics

    def resetSliceViews(self) -> None:
        for widget in self._widgets().values():
            widget.sliceLogic().FitSliceToBackground()

    def resize(self, width: int, height: int) -> None:
        """Of all views together."""
        single = self.layout == _RED_ALONE
        self._size = width, height
        for name, widget in self._widgets().items():
            whole = single and name == "Red"
            widget.resize(*((width, height) if whole else ((width - _GAP) // 2, (height - _GAP) // 2)))

    def picture(self) -> np.ndarray:
        """What the layout shows: [rows × columns × 3], 8 bits."""
        views = self._widgets()
        if self.layout == _RED_ALONE:
            return views["Red"].picture()
        width, height = self._size
        picture = np.full((height, width, 3), 225, np.uint8)
        across, down = (width - _GAP) // 2, (height - _GAP) // 2
        picture[:down, width - across :] = _empty_3d_view(down)[:, np.newaxis]
        places = {"Red": (0, 0), "Yellow": (1, 0), "Green": (1, 1)}
        for name, (row, column) in places.items():
            view = views[name].picture()
            top, left = row * (height - view.shape[0]), column * (width - view.shape[1])
            picture[top : top + view.shape[0], left : left + view.shape[1]] = view
        return picture

    def _widgets(self) -> dict[str, SliceWidget]:
        for name in _ORIENTATIONS:
            widget = self._made.get(name)
            if widget is None or not slicer.mrmlScene.IsNodePresent(widget.mrmlSliceNode()):
                self._made[name] = SliceWidget(name, self._applicationLogic)
        return self._made
