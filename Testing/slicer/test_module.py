"""The Slicer module's parts: geometry on real MRML, what it needs, its own tests, its pictures, and the harness."""

from __future__ import annotations

import contextlib
import sys
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from radllm_backend import Lesion
from Testing.slicer.harness import slot_errors, stray_attributes
from Testing.slicer.harness.pythonqt import connect
from Testing.slicer.module_scene import (
    MASKS,
    MODULE,
    PICTURE,
    ROOT,
    SPACING,
    RadiomicsLLM,
    add_segmentation,
    add_volume,
    python,
    rotated,
    shown,
    slicer,
)
from Testing.support.nodules import ball

from RadiomicsLLMLib import SegmentedVolume


def test_the_backend_needs_no_other_package_of_the_project() -> None:
    """Only the command line, the reports, training and the base models' conversion need the rest."""
    code = """
        import sys
        for name in ("jinja2", "rich", "typer", "gguf", "pylibjpeg"): sys.modules[name] = None
        from radllm_backend import Lesion, Model, RadllmError, extract
        import radllm_backend.models.bundle
    """
    python(code)


# --- scene geometry -------------------------------------------------------------------------------------------------


def test_an_oblique_volume_gives_the_lesion_that_its_files_give(panel: Any, tmp_path: Path) -> None:
    shape = (14, 30, 26)
    voxels = np.random.default_rng(3).integers(-800, 900, shape).astype(np.int16)
    volume = slicer.util.addVolumeFromArray(voxels, rotated((0.7, 0.9, 2.5), (-31, 12.5, 80)), "ct")
    segmentation = add_segmentation(volume, {"node": ball(shape, (6, 14, 11), 5)})
    for node, storage_class, name in (
        (volume, "vtkMRMLNRRDStorageNode", "ct.nrrd"),
        (segmentation, "vtkMRMLSegmentationStorageNode", "lesions.seg.nrrd"),
    ):
        storage = slicer.mrmlScene.AddNewNodeByClass(storage_class)
        storage.SetFileName(str(tmp_path / name))
        assert storage.WriteData(node)
    from_scene = SegmentedVolume(volume, segmentation, "CT").lesion("node")
    from_files = Lesion.from_files(tmp_path / "ct.nrrd", tmp_path / "lesions.seg.nrrd", modality="CT")
    assert from_scene.image_sha256 == from_files.image_sha256
    assert from_scene.mask_sha256 == from_files.mask_sha256
    assert from_scene.geometry == from_files.geometry
    assert from_scene.geometry.voxels == ball(shape, (6, 14, 11), 5).sum()
    assert from_scene.segment == from_files.segment == "the node"
    for of in (sitk.Image.GetOrigin, sitk.Image.GetDirection):
        np.testing.assert_allclose(of(from_scene.image), of(from_files.image), atol=1e-9)


def test_a_segmentation_of_another_geometry_is_brought_to_the_volume(panel: Any) -> None:
    coarse = slicer.util.addVolumeFromArray(np.arange(8 * 20 * 20).reshape(8, 20, 20).astype(np.int16), np.eye(4))
    # Twice as fine and larger than the volume on every side; its voxel edges meet the volume's.
    matrix = np.diag([0.5, 0.5, 0.5, 1])
    matrix[:3, 3] = -2.25
    fine = slicer.util.addVolumeFromArray(np.zeros((30, 60, 60), np.uint8), matrix)
    drawn = np.zeros((30, 60, 60), dtype=bool)
    drawn[8:12, 14:24, 10:20] = True  # volume: slices 2..3, rows 5..9, columns 3..7
    segmentation = add_segmentation(fine, {"block": drawn})
    lesion = SegmentedVolume(coarse, segmentation).lesion("block")
    assert lesion.geometry.size == (20, 20, 8)
    assert lesion.geometry.bounding_box == (3, 5, 2, 5, 5, 2)
    assert lesion.geometry.voxels == 50


def test_a_colour_picture_is_read_as_grey(panel: Any) -> None:
    grey = add_volume()
    colour = add_volume(np.repeat(PICTURE[..., np.newaxis], 3, axis=2), nodeClassName="vtkMRMLVectorVolumeNode")
    segmentation = add_segmentation(grey)
    lesions = [SegmentedVolume(volume, segmentation).lesion("oval") for volume in (grey, colour)]
    assert lesions[0].image_sha256 == lesions[1].image_sha256
    assert lesions[0].geometry == lesions[1].geometry


def test_only_a_picture_without_spacing_has_an_unknown_one(panel: Any) -> None:
    known, unknown = add_volume(spacing=SPACING), add_volume(spacing=1)
    cube = slicer.util.addVolumeFromArray(np.indices((4, 20, 20)).sum(axis=0).astype(np.int16), np.eye(4))
    block = np.zeros((4, 20, 20), dtype=bool)
    block[1:3, 5:9, 5:9] = True
    spacings = [
        SegmentedVolume(volume, add_segmentation(volume, {"lesion": mask})).lesion("lesion").spacing_known
        for volume, mask in ((known, MASKS["oval"]), (unknown, MASKS["oval"]), (cube, block))
    ]
    assert spacings == [True, False, True]


def test_the_modality_is_the_user_s_or_else_dicom_s(panel: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    assert SegmentedVolume(volume, segmentation).lesion("oval").modality is None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    assert SegmentedVolume(volume, segmentation).lesion("oval").modality is None
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MG")
    assert SegmentedVolume(volume, segmentation).lesion("oval").modality == "MG"
    assert SegmentedVolume(volume, segmentation, "US").lesion("oval").modality == "US"
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "SC")
    assert SegmentedVolume(volume, segmentation).lesion("oval").modality is None


# --- the module's own tests, sample lesions, and the harness --------------------------------------------------------


def test_the_module_s_own_test_passes(
    panel: Any, self_contained_model: Path, backend_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radllm_backend.models import shipped

    monkeypatch.setenv("RADLLM_BACKEND_PYTHON", backend_python)
    monkeypatch.setattr(shipped, "shipped_models", lambda **_: [str(self_contained_model)])
    RadiomicsLLM.RadiomicsLLMTest().runTest()


def test_the_module_s_build_time_tests_pass() -> None:
    slicer.mrmlScene.Clear()
    folder = MODULE.parent / "Testing" / "Python"
    result = unittest.TextTestRunner().run(unittest.TestLoader().discover(str(folder), "*ModuleTest.py"))
    assert result.testsRun > 0
    assert result.wasSuccessful()
    assert result.skipped == []


def test_the_script_of_the_readme_runs(
    panel: Any,
    self_contained_model: Path,
    backend_python: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RADLLM_BACKEND_PYTHON", backend_python)
    add_segmentation(add_volume())
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Your own lesion in Slicer")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    exec(code.replace('"breast-us"', repr(str(self_contained_model))), {})
    lines = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("the ")]
    assert [name for name, _ in lines] == ["the oval", "the spiculated"]
    assert all(0 < float(probability) < 1 for _, probability in lines)


def test_sample_lesions_are_registered_at_start_up_and_shown(panel: Any) -> None:
    slicer.modules.sampleDataSources = {}
    slicer.app.startupCompleted.emit()
    slicer.app.startupCompleted.emit()
    assert slot_errors == []
    ((category, (source,)),) = slicer.modules.sampleDataSources.items()
    assert (category, source.sampleName) == ("RadiomicsLLM", "BreastUltrasoundPhantom")
    assert Path(source.thumbnailFileName).is_file()
    volume, segmentation = source.customDownloader(source)
    assert panel.ui.volumeSelector.currentNode() is volume
    assert panel.ui.segmentationSelector.currentNode() is segmentation
    lesion = SegmentedVolume(volume, segmentation).lesion("oval")
    assert (lesion.modality, lesion.spacing_known) == ("US", True)
    assert shown(panel) == []
    views = slicer.app.layoutManager()
    red = views.sliceWidget("Red")
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    field = np.array(red.mrmlSliceNode().GetFieldOfView()[:2])
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    assert np.isclose(field / (bounds[1:4:2] - bounds[:4:2]), 1).any()  # it fills the view along one side


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"uris": None, "fileNames": None, "nodeNames": ["a"]}, TypeError),
        ({"uris": "", "fileNames": "", "nodeNames": "a"}, None),
        ({"uris": ["", ""], "fileNames": ["", ""], "nodeNames": ["a", "b"]}, None),
        ({"uris": ["", ""], "fileNames": ["", ""]}, None),
        ({"uris": ["", ""], "fileNames": ["", ""], "nodeNames": ["a"]}, ValueError),
        ({"uris": ["", ""], "fileNames": [""], "nodeNames": ["a", "b"]}, ValueError),
        ({"uris": ["", ""], "nodeNames": ["a", "b"]}, TypeError),
        ({"uri": ""}, TypeError),
    ],
)
def test_the_harness_takes_the_sample_data_that_slicer_takes(
    given: dict[str, Any], error: type[Exception] | None
) -> None:
    from SampleData import SampleDataLogic

    register = SampleDataLogic.registerCustomSampleDataSource
    slicer.modules.sampleDataSources = {}
    with pytest.raises(error) if error else contextlib.nullcontext():
        register(category="test", sampleName="a", customDownloader=print, **given)
    assert len(slicer.modules.sampleDataSources.get("test", [])) == (error is None)


def test_the_harness_notices_what_slicer_would_refuse(panel: Any) -> None:
    panel.ui.classifyButton.tooltip = "misspelt"
    assert stray_attributes(panel.parent) == ["QPushButton.tooltip"]
    del panel.ui.classifyButton.tooltip
    with pytest.raises(ValueError, match="QPushButton has no signal"):
        connect("connect", panel.ui.classifyButton, "clickd(bool)", print)
    with pytest.raises(AttributeError):
        sys.modules["ctk"].ctkNoSuchWidget  # noqa: B018
    with pytest.raises(AttributeError):
        sys.modules["qt"].QNoSuchWidget  # noqa: B018

    def fail(*_: Any) -> None:
        raise KeyError("in a slot")

    panel.ui.modelFolderEdit.currentPathChanged.connect(fail)
    panel.ui.modelFolderEdit.currentPath = "somewhere"
    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, fail)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.mrmlScene.RemoveObserver(tag)
    assert [type(error) for error in slot_errors] == [KeyError, KeyError]
    slot_errors.clear()
