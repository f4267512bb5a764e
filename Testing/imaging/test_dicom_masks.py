"""A region of an RTSTRUCT comes back as the mask that its contours enclose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend.batch.lesions import read_lesion
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.dicom_segmentations import segments_of
from Testing.support.dicom_databases import contour, headers_of, study_of, write_picture, write_rtstruct, write_volume
from Testing.support.segmentation_cases import SHAPE, assert_same, candidate, from_files, lopsided


def structure_with(path: Path, images: list[Path], outlines: list[np.ndarray], geometry: str = "CLOSED_PLANAR") -> Path:
    """A region of these outlines, in columns and rows of the second slice."""
    file = write_rtstruct(path, images, {"a": np.zeros(SHAPE)})
    dataset = pydicom.dcmread(file)
    header = headers_of(images)[1]
    dataset.ROIContourSequence[0].ContourSequence = [contour(header, outline, geometry) for outline in outlines]
    dataset.save_as(file)
    return file


@settings(max_examples=25, deadline=None)
@given(
    radii=st.lists(st.floats(1.5, 4.4), min_size=3, max_size=12),
    hole=st.one_of(st.none(), st.floats(0.6, 1.2)),
    centre=st.tuples(st.floats(3.5, 6.5), st.floats(3.0, 5.5)),
)
def test_contours_are_filled_as_matplotlib_says(
    shared_volume: list[Path], radii: list[float], hole: float | None, centre: tuple[float, float]
) -> None:
    """An independent test for points in polygons; a pixel whose centre is a hair from the line may go either way."""
    paths = pytest.importorskip("matplotlib.path", reason="needs matplotlib")
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    outlines = [centre + circle * np.array(radii)[:, np.newaxis]]
    if hole:
        square = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * hole / 2
        outlines.append(centre + square)
    file = structure_with(shared_volume[0].parent.parent / "rt.dcm", shared_volume, outlines)
    try:
        mask = sitk.GetArrayFromImage(read_lesion(candidate("RTSTRUCT", shared_volume, file)).mask)[1].astype(bool)
    except RadllmError:  # too small for a lesion
        return
    rows, columns = np.indices(mask.shape)
    centres = np.column_stack([columns.ravel(), rows.ravel()])
    inside = np.zeros(len(centres), bool)
    sure = np.ones(len(centres), bool)
    for outline in outlines:
        closed = np.vstack([outline, outline[:1]])
        inside ^= paths.Path(closed).contains_points(centres)
        sure &= distance(centres, closed) > 0.2
    np.testing.assert_array_equal(mask.ravel()[sure], inside[sure])


@pytest.fixture(scope="module")
def shared_volume(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_volume(tmp_path_factory.mktemp("shared") / "ct", "CT", SHAPE, study_of())


def distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """From each point to the nearest place of a line."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), 1e-12)
    along = np.clip(((points[:, np.newaxis] - starts) * steps).sum(axis=2) / lengths, 0, 1)
    nearest = starts + along[..., np.newaxis] * steps
    return np.linalg.norm(points[:, np.newaxis] - nearest, axis=2).min(axis=1)


def test_a_contour_through_the_middles_of_pixels_takes_them_in(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    outer, inner = np.array([(1, 2), (6, 2), (6, 7), (1, 7)]), np.array([(3, 4), (4, 4), (4, 5), (3, 5)])
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2:8, 1:7] = 1
    mask[1, 4:6, 3:5] = 0
    file = structure_with(tmp_path / "rt.dcm", images, [outer, inner], "CLOSEDPLANAR_XOR")
    assert_same(read_lesion(candidate("RTSTRUCT", images, file)), from_files(images, mask, tmp_path))


def test_points_and_open_lines_mark_nothing(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    line = np.array([(1, 2), (6, 2), (6, 7)])
    for geometry in ("POINT", "OPEN_PLANAR"):
        (segment,) = segments_of(structure_with(tmp_path / "rt.dcm", images, [line], geometry))
        assert segment.empty


def test_contours_beside_the_slices_are_refused(tmp_path: Path) -> None:
    images = write_volume(tmp_path / "ct", "CT", SHAPE, study_of())
    file = write_rtstruct(tmp_path / "rt.dcm", images, {"a": lopsided()})
    with pytest.raises(RadllmError, match="outside the image"):
        read_lesion(candidate("RTSTRUCT", images[:2], file))
    moved = pydicom.dcmread(file)
    first = moved.ROIContourSequence[0].ContourSequence[0]
    points = np.reshape(np.array(first.ContourData, float), (-1, 3)) + np.array([0, 0, 0.9])
    first.ContourData = points.ravel().round(4).tolist()
    moved.save_as(file)
    with pytest.raises(RadllmError, match="beside the image's slices"):
        read_lesion(candidate("RTSTRUCT", images, file))
    picture = write_picture(tmp_path / "us.dcm", "US", SHAPE[1:], study_of())
    with pytest.raises(RadllmError, match="does not say where it lies"):
        read_lesion(candidate("RTSTRUCT", picture, file))
