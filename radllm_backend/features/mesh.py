"""Surface, volume and diameters of a lesion's mesh in 3D, as PyRadiomics' ``cShape`` measures them, but quickly.

PyRadiomics walks over all cubes of 2 x 2 x 2 voxels. What a cube adds depends on which of its voxels are marked, so it
is asked once about each of the 256 kinds of cubes, and the kinds are counted. It then measures from every point of the
surface to every other one; here only between those that can be the farthest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CORNERS = tuple(product((0, 1), repeat=3))
_KINDS = 1 << len(_CORNERS)
_BLOCK = 256  # points at once, each with all others
_SOLID = 3  # axis of the diameter in all directions


def mesh_coefficients(mask: NDArray[np.bool_], spacing: Floats) -> tuple[float, float, Diameters]:
    """Surface in mm², volume in mm³ and diameters in mm.

    Args:
        mask: z, y, x; its border is not marked.
        spacing: voxel size in mm along z, y, x.
    """
    kinds = _kinds_of_cubes(mask)
    counts = np.bincount(kinds.ravel(), minlength=_KINDS)
    surface = float(counts @ _surfaces(tuple(map(float, spacing))))
    volumes, moved = _volumes()
    partly = np.nonzero((kinds > 0) & (kinds < _KINDS - 1))
    volume = counts @ volumes + (moved[kinds[partly]] * np.transpose(partly)).sum()
    return surface, float(volume * np.prod(spacing)), Diameters(mask, spacing)


class Diameters:
    """Largest distances between points of the surface, each measured when it is asked for.

    By index, as PyRadiomics': 0, 1 and 2 in a plane across z, y and x; 3 in any direction.
    """

    def __init__(self, mask: NDArray[np.bool_], spacing: Floats) -> None:
        self._points = _surface_points(mask)
        self._spacing = np.asarray(spacing, float)

    def __getitem__(self, axis: int) -> float:
        return math.sqrt(self._solid() if axis == _SOLID else self._plane(axis))

    def _solid(self) -> float:
        points = _ends_of_rows(self._points, 0, 1, 2) * 0.5 * self._spacing
        return _farthest(_hull(points))

    def _plane(self, axis: int) -> float:
        """Plane by plane, those that extend farthest first, until none is left that could hold a larger distance."""
        row, column = (other for other in range(3) if other != axis)
        ends = _ends_of_rows(self._points, axis, row, column)
        starts = np.flatnonzero(np.diff(ends[:, axis], prepend=-1))
        points = ends[:, [row, column]] * 0.5 * self._spacing[[row, column]]
        extents = np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts)
        bounds = (extents**2).sum(axis=1)
        planes = np.split(points, starts[1:])
        largest = 0.0
        for plane in np.argsort(-bounds):
            if bounds[plane] <= largest:
                break
            largest = max(largest, _farthest(planes[plane]))
        return largest


def _kinds_of_cubes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """One bit a corner, of the cube that begins at each voxel but the last along each axis."""
    depth, height, width = (length - 1 for length in mask.shape)
    kinds = np.zeros((depth, height, width), np.uint8)
    for bit, (z, y, x) in enumerate(_CORNERS):
        kinds |= mask[z : z + depth, y : y + height, x : x + width].astype(np.uint8) << np.uint8(bit)
    return kinds


def _cube(kind: int) -> NDArray[np.bool_]:
    return np.array([bool(kind >> bit & 1) for bit in range(len(_CORNERS))]).reshape(2, 2, 2)


def _asked(mask: NDArray[np.bool_], spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[float, float]:
    """Surface and volume as PyRadiomics itself measures them."""
    from radiomics import cShape

    surface, volume = cShape.calculate_coefficients(mask, np.array(spacing))[:2]
    return surface, volume


@lru_cache(maxsize=64)
def _surfaces(spacing: tuple[float, ...]) -> Floats:
    """Of each kind of cube."""
    return np.array([_asked(_cube(kind), spacing)[0] for kind in range(_KINDS)])


@lru_cache(maxsize=1)
def _volumes() -> tuple[Floats, Floats]:
    """What each kind of cube adds to the volume at the origin, and what more one voxel farther along z, y and x.

    The volume is a sum of pyramids from the origin to the triangles of the surface, so it grows linearly with the
    cube's index. A cube one voxel farther is measured behind the one that repeats its first layer.
    """
    alone = np.array([_asked(_cube(kind))[1] for kind in range(_KINDS)])
    moved = np.zeros((_KINDS, 3))
    for kind, axis in product(range(_KINDS), range(3)):
        cube = _cube(kind)
        first = np.take(cube, [0], axis)
        before = int(_kinds_of_cubes(np.concatenate([first, first], axis))[0, 0, 0])
        moved[kind, axis] = _asked(np.concatenate([first, cube], axis))[1] - alone[before] - alone[kind]
    return alone, moved


def _surface_points(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Halfway between each marked voxel and each unmarked neighbour: z, y, x in half voxels, unordered."""
    return np.concatenate(list(_points_along_axes(mask)))


def _points_along_axes(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    for axis in range(3):
        points = 2 * np.argwhere(np.diff(mask, axis=axis))
        points[:, axis] += 1
        yield points


def _ends_of_rows(points: NDArray[np.int64], plane: int, row: int, column: int) -> NDArray[np.int64]:
    """The first and last point of each row, ordered by these axes: no other is the farthest from anywhere."""
    points = points[np.lexsort((points[:, column], points[:, row], points[:, plane]))]
    changes = np.diff(points[:, [plane, row]], axis=0).any(axis=1)
    ends: NDArray[np.int64] = points[np.append(True, changes) | np.append(changes, True)]
    return ends


def _hull(points: Floats) -> Floats:
    """The corners of the convex hull, between two of which the largest distance lies."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners: Floats = points[ConvexHull(points).vertices]
        return corners
    except QhullError:  # too flat for it
        return points


def _farthest(points: Floats) -> float:
    """The largest squared distance between two points."""
    largest = 0.0
    for start in range(0, len(points), _BLOCK):
        apart = points[start : start + _BLOCK, None] - points[None, start:]
        largest = max(largest, float((apart**2).sum(axis=-1).max()))
    return largest
