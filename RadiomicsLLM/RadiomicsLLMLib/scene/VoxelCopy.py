"""Voxels of the scene, copied while Slicer goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..panel.Background import Background, Steps

_PIECE = 2**22  # bytes that are copied between two turns of the event loop: some milliseconds, in fresh memory too
_MOST_ATTEMPTS = 5

Pause = Callable[[], Background[None]]
"""Makes a step between two pieces; it says what is happening."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume node lie."""

    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    ijkToRas: np.ndarray
    """[4 × 4]: from column, row and slice to millimetres."""
    spacing: tuple[float, float, float]
    """Millimetres, along columns, rows and slices."""

    @classmethod
    def of(cls, volumeNode: slicer.vtkMRMLVolumeNode) -> Grid:
        """The node's own grid, whatever transform it is under."""
        columns, rows, slices = volumeNode.GetImageData().GetDimensions()
        matrix = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(matrix)
        return cls((slices, rows, columns), slicer.util.arrayFromVTKMatrix(matrix).copy(), volumeNode.GetSpacing())


def copyVoxels(imageData: vtk.vtkImageData, pause: Pause) -> Steps[np.ndarray]:
    """A copy of an image as it was at one moment: [slices × rows × columns], of several components also × components.

    It is made on the main thread, in pieces: to another thread Slicer could give the memory away meanwhile. Where the
    image is changed between two pieces, the copy is begun anew.

    Raises:
        RadllmError: the image is changed all the time.
    """
    for _attempt in range(_MOST_ATTEMPTS):
        copy = yield from _copiedAtOneMoment(imageData, pause)
        if copy is not None:
            return copy
    from radllm_backend import RadllmError

    raise RadllmError(_("The volume or the segment is being changed: classify when it is done."))


def _copiedAtOneMoment(imageData: vtk.vtkImageData, pause: Pause) -> Steps[np.ndarray | None]:
    began = imageData.GetMTime()
    source = voxelsOf(imageData)
    copy = np.empty_like(source)
    for start in range(0, copy.size, _PIECE // copy.itemsize):
        if start:
            yield from pause()
            if imageData.GetMTime() != began:
                return None
            source = voxelsOf(imageData)
        part = slice(start, start + _PIECE // copy.itemsize)
        copy.reshape(-1)[part] = source.reshape(-1)[part]
    return copy


def voxelsOf(imageData: vtk.vtkImageData) -> np.ndarray:
    """The image's own voxels, not a copy: only for the main thread, and only until Slicer does something else."""
    scalars = imageData.GetPointData().GetScalars()
    components = scalars.GetNumberOfComponents()
    shape = imageData.GetDimensions()[::-1]
    voxels: np.ndarray = vtk_to_numpy(scalars)
    return voxels.reshape(shape if components == 1 else (*shape, components))
