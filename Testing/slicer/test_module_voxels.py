"""Volumes and segments are copied out of the scene in pieces, and are what Slicer's own export gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import vtk

from radllm_backend import RadllmError
from radllm_backend.features.extraction import measure
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from Testing.slicer.module_scene import add_segmentation, rotated, slicer
from Testing.support.nodules import ball

from RadiomicsLLMLib import SegmentedVolume, runHere
from RadiomicsLLMLib.panel.Background import Background, pauseFor
from RadiomicsLLMLib.scene import SegmentMask, VoxelCopy

SHAPE = (11, 23, 17)
_STRAIGHT = np.diag([-0.7, -0.9, 2.5, 1])
_OBLIQUE = rotated((0.7, 0.9, 2.5), (-31, 12.5, 80))


@pytest.fixture(autouse=True)
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty scene, and pieces so small that there are many."""
    monkeypatch.setattr(VoxelCopy, "_PIECE", 1000)
    monkeypatch.setattr(SegmentMask, "_MOST_AT_ONCE", 500)
    slicer.mrmlScene.Clear()
    yield
    slicer.mrmlScene.Clear()


def add_ct(ijk_to_ras: np.ndarray = _STRAIGHT, shape: tuple[int, ...] = SHAPE, **more: Any) -> Any:
    voxels = np.random.default_rng(1).integers(-800, 900, shape).astype(np.int16)
    return slicer.util.addVolumeFromArray(voxels, ijk_to_ras, "ct", **more)


def moved(ijk_to_ras: np.ndarray, by: tuple[float, float, float], scale: float = 1) -> np.ndarray:
    """The same axes with a first voxel that lies elsewhere, in voxels of the first grid."""
    matrix = ijk_to_ras @ np.diag([scale, scale, scale, 1])
    matrix[:3, 3] = (ijk_to_ras @ [*by, 1])[:3]
    return matrix


def exported(volume: Any, segmentation: Any, segment: str) -> np.ndarray:
    """The mask of the whole volume, by Slicer's own export in one go."""
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    segments = vtk.vtkStringArray()
    segments.InsertNextValue(segment)
    logic = slicer.modules.segmentations.logic()
    assert logic.ExportSegmentsToLabelmapNode(segmentation, segments, labelmap, volume)
    return np.array(slicer.util.arrayFromVolume(labelmap))


def in_pieces(volume: Any, segmentation: Any, segment: str) -> np.ndarray:
    steps = SegmentedVolume(volume, segmentation).snapshot(segment, pauseFor(""))
    snapshot = runHere(steps)
    return snapshot.mask.on(snapshot.voxels.grid.shape)


@pytest.mark.parametrize("axes", [_STRAIGHT, _OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize(
    "grid",
    [
        lambda axes: axes,
        lambda axes: moved(axes, (-3, 2, -4)),
        lambda axes: moved(axes, (100, 0, 0)),
        lambda axes: moved(axes, (0.3, -0.4, 0.2)),
        lambda axes: moved(axes, (-2.3, -1.7, -1.6), 0.5),
        lambda axes: moved(axes, (-2.3, -1.7, -1.6), 2),
        lambda axes: rotated((0.5, 1.1, 1.9), (-30, 12, 79)),
    ],
    ids=["same", "moved", "beside", "between", "finer", "coarser", "turned"],
)
def test_a_mask_is_what_slicer_exports(axes: np.ndarray, grid: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = add_ct(axes)
    other = add_ct(grid(axes), (13, 21, 19))
    drawn = np.random.default_rng(2).random((13, 21, 19)) < 0.4
    drawn[:, :3] = True  # at the border
    segmentation = add_segmentation(other, {"a": drawn, "b": ~drawn})
    for segment in ("a", "b"):
        np.testing.assert_array_equal(in_pieces(volume, segmentation, segment), exported(volume, segmentation, segment))


def test_segments_of_one_labelmap_and_an_empty_one_are_told_apart() -> None:
    volume = add_ct()
    labels = np.random.default_rng(3).integers(0, 4, SHAPE).astype(np.uint8)
    labelmap = slicer.util.addVolumeFromArray(labels, _STRAIGHT, nodeClassName="vtkMRMLLabelMapVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelmap, segmentation)
    segments = list(segmentation.GetSegmentation().GetSegmentIDs())
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    for label, segment in enumerate(segments, start=1):
        np.testing.assert_array_equal(in_pieces(volume, segmentation, segment), labels == label)
    segmentation.GetSegmentation().AddEmptySegment("empty", "nothing")
    assert not in_pieces(volume, segmentation, "empty").any()
    with pytest.raises(RadllmError, match=r"segment 'nothing' is empty"):
        SegmentedVolume(volume, segmentation).lesion("empty")


def test_a_surface_and_a_transform_are_left_to_slicer() -> None:
    volume = add_ct()
    segmentation = add_segmentation(volume, {"ball": ball(SHAPE, (5, 11, 8), 4)})
    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    assert segmentation.GetSegmentation().CreateRepresentation(surface)
    segmentation.GetSegmentation().SetSourceRepresentationName(surface)
    labelmap = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation.GetSegmentation().RemoveRepresentation(labelmap)
    mask = in_pieces(volume, segmentation, "ball")
    assert mask.any()
    np.testing.assert_array_equal(mask, exported(volume, segmentation, "ball"))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(moved(np.eye(4), (0.7, 0.9, 2.5))))
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    shifted = in_pieces(volume, segmentation, "ball")
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert not np.array_equal(shifted, mask)
    np.testing.assert_array_equal(shifted, exported(volume, segmentation, "ball"))


@pytest.mark.parametrize("components", [1, 3])
def test_a_copy_is_of_one_moment(components: int) -> None:
    shape = (*SHAPE, 3) if components == 3 else SHAPE
    kind = "vtkMRMLVectorVolumeNode" if components == 3 else "vtkMRMLScalarVolumeNode"
    volume = add_ct(shape=shape, nodeClassName=kind)
    before = np.array(slicer.util.arrayFromVolume(volume))
    steps = VoxelCopy.copyVoxels(volume.GetImageData(), pauseFor(""))
    for _ in range(3):
        next(steps)
    slicer.util.updateVolumeFromArray(volume, before + 1)
    np.testing.assert_array_equal(runHere(steps), before + 1)


def test_a_volume_that_is_changed_all_the_time_is_one_sentence() -> None:
    imageData = add_ct().GetImageData()
    steps = VoxelCopy.copyVoxels(imageData, lambda: Background("", imageData.Modified))
    with pytest.raises(RadllmError, match=r"is being changed: classify when it is done\."):
        runHere(steps)


@pytest.mark.parametrize("place", [(5, 11, 8), (0, 2, 16)], ids=["inside", "at the border"])
def test_the_features_are_those_of_the_whole_image(place: tuple[int, int, int]) -> None:
    pytest.importorskip("radiomics")
    volume = add_ct(_OBLIQUE)
    segmentation = add_segmentation(volume, {"ball": ball(SHAPE, place, 4)})
    image = SegmentedVolume(volume, segmentation)
    snapshot = runHere(image.snapshot("ball", pauseFor("")))
    import SimpleITK as sitk

    mask = sitk.GetImageFromArray(exported(volume, segmentation, "ball"))
    mask.CopyInformation(snapshot.voxels.image)
    whole = Lesion.from_images(snapshot.voxels.image, mask)
    mine = image.lesion("ball")
    assert (mine.image_sha256, mine.mask_sha256) == (whole.image_sha256, whole.mask_sha256)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(mine.image), slicer.util.arrayFromVolume(volume))
    filters = {"Original": {}, "Wavelet": {}, "LoG": {"sigma": [1.0]}, "Square": {}, "Gradient": {}}
    about = {
        "radllm": {"intensity": "min-max"},
        "imageType": filters,
        "featureClass": {"firstorder": ["Mean", "Entropy"], "glcm": ["Contrast"]},
        "setting": {"normalize": True, "binCount": 16},
    }
    assert measure(mine, Settings.from_dict(about)) == measure(whole, Settings.from_dict(about))
