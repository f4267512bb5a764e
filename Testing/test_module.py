"""The Slicer module on real MRML and real Qt widgets, through clicks on its panel. Slicer itself is not needed."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import textwrap
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)
pytest.importorskip("radiomics")
pytest.importorskip("torch")

import vtk
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QProgressBar
from slicer_harness import close_module, load_module, open_module, slot_errors, stray_attributes
from slicer_harness.panel_screenshot import take_screenshot
from slicer_harness.pythonqt import connect

from radllm_backend import Lesion, Model, RadllmError, extract
from radllm_backend.base_models import locate
from radllm_backend.building import TrainingPlan, train
from radllm_backend.datasets.phantoms import KINDS, make_phantom
from radllm_backend.feature_table import read_table, write_table
from radllm_backend.training import TrainingOptions

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "RadiomicsLLM" / "RadiomicsLLM.py"
RadiomicsLLM = load_module(MODULE)

from RadiomicsLLMLib import InProcessBackend, SegmentedVolume
from RadiomicsLLMLib.InProcessBackend import PIP_PACKAGES

SPACING = 0.08
OVAL, SPICULATED = (make_phantom(kind, size=(160, 180)) for kind in KINDS)
PICTURE = np.hstack([OVAL.image, SPICULATED.image])
MASKS = {
    "oval": np.hstack([OVAL.mask > 0, np.zeros_like(SPICULATED.mask, dtype=bool)]),
    "spiculated": np.hstack([np.zeros_like(OVAL.mask, dtype=bool), SPICULATED.mask > 0]),
}


# --- what the tests share -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model for breast ultrasound on the tiny base model, trained on small phantoms in a few seconds."""
    folder = tmp_path_factory.mktemp("model")
    rows = []
    for number in range(8):
        for kind, label in zip(KINDS, ("benign", "malignant"), strict=True):
            phantom = make_phantom(kind, seed=number, size=(160, 160))
            lesion = Lesion.from_images(sitk.GetImageFromArray(phantom.image), sitk.GetImageFromArray(phantom.mask))
            features = extract(dataclasses.replace(lesion, modality="US"), "breast-ultrasound")
            rows.append(({"lesion": f"{kind}{number}", "class": label, "patient": f"{kind}{number}"}, features))
    write_table(folder / "table.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder / "cache"))
        plan = TrainingPlan(
            table=read_table(folder / "table.csv"),
            table_path=folder / "table.csv",
            target="class",
            group="patient",
            # Only the base model of a catalogue or a hub is named in full in the card; this one has to be found again.
            base=dataclasses.replace(locate(tiny_base), origin="test"),
            options=TrainingOptions(features=4, epochs=1, folds=0, rank=2, validation=0.25),
            output=folder / "phantoms",
        )
        train(plan, lambda what, done: None)
        yield folder / "phantoms"


@pytest.fixture
def panel() -> Iterator[Any]:
    """The module's widget on an empty scene. However a test ends, no slot raised and no property was misspelt."""
    slicer.mrmlScene.Clear()
    slot_errors.clear()
    widget = open_module(RadiomicsLLM)
    yield widget
    slicer.app.processEvents()
    errors, strays = list(slot_errors), stray_attributes(widget.parent)
    slot_errors.clear()
    close_module(widget)
    assert errors == []
    assert strays == []


def add_volume(array: np.ndarray = PICTURE, spacing: float = SPACING, **more: Any) -> Any:
    """A picture as Slicer has it: a volume of one slice."""
    return slicer.util.addVolumeFromArray(array[np.newaxis], np.diag([spacing, spacing, 1, 1]), "scan", **more)


def add_segmentation(volume: Any, masks: dict[str, np.ndarray] = MASKS) -> Any:
    """One segment a mask, with the mask's key as its ID and 'the ...' as its name."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment, mask in masks.items():
        node.GetSegmentation().AddEmptySegment(segment, f"the {segment}")
        if mask.any():
            voxels = mask.astype(np.uint8).reshape(slicer.util.arrayFromVolume(volume).shape[:3])
            slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment, volume)
    return node


def choose_own_model(panel: Any, folder: Path | str) -> None:
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("")
    panel.ui.modelFolderEdit.currentPath = str(folder)


def choose_modality(panel: Any, modality: str) -> None:
    panel.ui.modalitySelector.currentIndex = panel.ui.modalitySelector.findText(f"({modality})", Qt.MatchContains)


def click_classify(panel: Any) -> None:
    assert panel.ui.classifyButton.enabled, panel.ui.classifyButton.toolTip
    QTest.mouseClick(panel.ui.classifyButton, Qt.LeftButton)
    slicer.app.processEvents()


def labels(panel: Any, name: str) -> list[str]:
    """The texts of a kind of label on the cards."""
    return [label.text for label in panel.ui.resultsButton.findChildren(QLabel, name)]


def tables() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLTableNode")


def rows(table: Any) -> list[dict[str, str]]:
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    return [
        {name: table.GetCellText(row, column) for column, name in enumerate(names)}
        for row in range(table.GetNumberOfRows())
    ]


def node_ids() -> set[str]:
    return {slicer.mrmlScene.GetNthNode(index).GetID() for index in range(slicer.mrmlScene.GetNumberOfNodes())}


def rotated(spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    """An oblique IJK-to-RAS matrix."""
    matrix = np.eye(4)
    transform = vtk.vtkTransform()
    transform.RotateX(20)
    transform.RotateZ(-35)
    transform.RotateY(10)
    matrix[:3, :3] = slicer.util.arrayFromVTKMatrix(transform.GetMatrix())[:3, :3] @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    return np.linalg.norm(np.indices(shape) - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius


def python(code: str, *arguments: str) -> str:
    """What code prints in a process of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "Testing"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, text=True
    ).stdout


# --- one click ------------------------------------------------------------------------------------------------------


def test_a_click_gives_every_visible_segment_a_card_and_a_row(panel: Any, model_folder: Path) -> None:
    segmentation = add_segmentation(add_volume())
    choose_own_model(panel, model_folder)
    choose_modality(panel, "US")
    before = node_ids()
    click_classify(panel)

    (table,) = tables()
    assert node_ids() - before == {table.GetID()}  # nothing else is left in the scene
    assert before <= node_ids()
    first, second = rows(table)
    assert [first["segment"], second["segment"]] == ["the oval", "the spiculated"]
    assert [first["segment_id"], second["segment_id"]] == ["oval", "spiculated"]
    assert table.GetNodeReference("RadiomicsLLM.segmentation") is segmentation
    for row in (first, second):
        assert 0 < float(row["probability"]) < 1
        assert row["call"] in ("likely benign", "likely malignant")
        assert row["prompt"].startswith("Classify benign or malignant of this breast ultrasound")
        assert row["problem"] == ""
    assert first["probability"] != second["probability"]

    assert labels(panel, "segmentLabel") == ["the oval", "the spiculated"]
    assert labels(panel, "callLabel") == [first["call"], second["call"]]
    assert labels(panel, "promptLabel") == [first["prompt"], second["prompt"]]
    assert labels(panel, "noticeLabel") == ["For research use only. Not for diagnosis."] * 2
    shown = f"{float(first['probability']):.1%}"
    assert f"Probability of malignancy {shown}; likely malignant from 50.0% on" in labels(panel, "probabilityLabel")[0]
    bars = [bar.value for bar in panel.ui.resultsButton.findChildren(QProgressBar)]
    assert bars == [round(1000 * float(row["probability"])) for row in (first, second)]
    assert panel.ui.statusLabel.text == ""


def test_panel_logic_and_python_give_the_same_probability(panel: Any, model_folder: Path, tmp_path: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    choose_own_model(panel, model_folder)
    choose_modality(panel, "US")
    click_classify(panel)
    from_panel = [float(row["probability"]) for row in rows(tables()[0])]

    results = panel.logic.classify(volume, segmentation, ["spiculated", "oval"], str(model_folder), "US")
    from_logic = [result.prediction.probability for result in reversed(results)]

    model = Model.load(model_folder)
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    from_python = []
    for name, mask in MASKS.items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
        files = tmp_path / "picture.png", tmp_path / f"{name}.png"
        lesion = Lesion.from_files(*files, spacing=SPACING, modality="US")
        from_python.append(model.predict(extract(lesion, model.settings)).probability)

    assert from_panel == pytest.approx(from_python, abs=1e-9, rel=0)
    assert from_logic == pytest.approx(from_python, abs=1e-9, rel=0)


def test_a_failed_segment_has_its_row_with_the_reason(panel: Any, model_folder: Path) -> None:
    one_pixel = np.zeros_like(MASKS["oval"])
    one_pixel[5, 5] = True
    masks = {"nothing": np.zeros_like(one_pixel), "oval": MASKS["oval"], "dot": one_pixel}
    add_segmentation(add_volume(), masks)
    choose_own_model(panel, model_folder)
    click_classify(panel)

    nothing, oval, dot = rows(tables()[0])
    assert nothing["problem"] == "Segment 'the nothing' is empty: mark the lesion."
    assert dot["problem"] == "Segment 'the dot' is a single voxel: mark the whole lesion."
    assert [nothing["probability"], nothing["call"], dot["probability"]] == ["", "", ""]
    assert float(oval["probability"]) > 0
    assert labels(panel, "problemLabel") == ["⚠ " + nothing["problem"], "⚠ " + dot["problem"]]
    assert labels(panel, "callLabel") == ["not classified", oval["call"], "not classified"]


def test_when_every_segment_fails_the_table_still_has_their_rows(panel: Any, model_folder: Path) -> None:
    empty = np.zeros_like(MASKS["oval"])
    add_segmentation(add_volume(), {"a": empty, "b": empty})
    choose_own_model(panel, model_folder)
    click_classify(panel)
    assert ["is empty" in row["problem"] for row in rows(tables()[0])] == [True, True]


def test_a_mistake_of_ours_costs_one_segment_its_result_only(
    panel: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    volume, predict = add_volume(), panel.logic.backend.predict

    def fail_once(lesion: Lesion, model: Model) -> Any:
        if lesion.segment == "the oval":
            raise ZeroDivisionError("a division")
        return predict(lesion, model)

    monkeypatch.setattr(panel.logic.backend, "predict", fail_once)
    results = panel.logic.classify(volume, add_segmentation(volume), model=str(model_folder))
    assert results[0].problem == "Unexpected: a division. Please report it with Slicer's error log."
    assert results[1].prediction is not None
    assert any(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)


def test_a_second_run_replaces_the_rows_of_the_first(panel: Any, model_folder: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    panel.logic.classify(volume, segmentation, None, str(model_folder))
    panel.logic.classify(volume, segmentation, ["oval"], str(model_folder))
    other = add_segmentation(volume)
    panel.logic.classify(volume, other, None, str(model_folder))
    assert [table.GetNumberOfRows() for table in tables()] == [1, 2]


def test_the_table_survives_being_saved(panel: Any, model_folder: Path, tmp_path: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    segmentation.GetSegmentation().GetSegment("oval").SetName('left "upper"\touter\nquadrant, é')
    results = panel.logic.classify(volume, segmentation, None, str(model_folder), "US")
    before = rows(tables()[0])
    restored = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "restored")
    for node, step in ((tables()[0], "WriteData"), (restored, "ReadData")):
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableStorageNode")
        storage.SetFileName(str(tmp_path / "results.tsv"))
        assert getattr(storage, step)(node)
    assert rows(restored) == before
    assert [float(row["probability"]) for row in rows(restored)] == [item.prediction.probability for item in results]
    assert before[0]["segment"] == "left 'upper' outer quadrant, é"


def test_the_table_lies_beside_the_volume_in_the_hierarchy(panel: Any, model_folder: Path) -> None:
    volume = add_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, volume)
    panel.logic.classify(volume, add_segmentation(volume), ["oval"], str(model_folder))
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(tables()[0])) == study


# --- which segments, which model ------------------------------------------------------------------------------------


def test_the_disabled_button_says_why(panel: Any, model_folder: Path) -> None:
    button = panel.ui.classifyButton
    said = [button.toolTip]
    volume = add_volume()
    said.append(button.toolTip)
    segmentation = add_segmentation(volume, {})
    said.append(button.toolTip)
    segmentation.GetSegmentation().AddEmptySegment("one", "one")
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("")
    said.append(button.toolTip)
    assert not button.enabled
    assert said == [
        "Choose the volume that shows the lesions.",
        "Choose the segmentation that marks the lesions.",
        "Draw a segment, or make one visible.",
        "Choose the folder of your model.",
    ]
    choose_own_model(panel, model_folder)
    assert button.enabled
    assert button.toolTip == "Classify every visible segment of this segmentation."
    segmentation.GetSegmentation().RemoveSegment("one")
    assert not button.enabled
    slicer.mrmlScene.Clear()
    assert button.toolTip == "Choose the volume that shows the lesions."


def test_hidden_segments_are_left_out(panel: Any, model_folder: Path) -> None:
    segmentation = add_segmentation(add_volume())
    choose_own_model(panel, model_folder)
    assert panel.ui.segmentsLabel.text == "the oval, the spiculated"
    segmentation.GetDisplayNode().SetSegmentVisibility("oval", False)
    assert panel.ui.segmentsLabel.text == "the spiculated"
    click_classify(panel)
    assert labels(panel, "segmentLabel") == ["the spiculated"]
    segmentation.GetDisplayNode().SetSegmentVisibility("spiculated", False)
    assert not panel.ui.classifyButton.enabled


def test_results_go_when_they_no_longer_belong_to_what_is_chosen(panel: Any, model_folder: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    choose_own_model(panel, model_folder)

    def change_modality() -> None:
        choose_modality(panel, "CT")

    def draw() -> None:
        mask = MASKS["oval"][np.newaxis].astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "spiculated", volume)

    for change in (change_modality, draw, slicer.mrmlScene.Clear):
        click_classify(panel)
        assert len(labels(panel, "callLabel")) == 2
        change()
        slicer.app.processEvents()
        assert labels(panel, "callLabel") == []


@pytest.mark.parametrize("folder", ["no such folder", "."])
def test_a_folder_that_holds_no_model_is_one_sentence(panel: Any, tmp_path: Path, folder: str) -> None:
    add_segmentation(add_volume())
    choose_own_model(panel, tmp_path / folder)
    click_classify(panel)
    assert panel.ui.statusLabel.visible
    assert "model" in panel.ui.statusLabel.text
    assert panel.ui.statusLabel.text.endswith(".")
    assert tables() == []
    assert panel.ui.classifyButton.enabled


def test_shipped_models_are_offered_first(panel: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_segmentation(add_volume())
    monkeypatch.setattr(panel.logic.backend, "modelNames", lambda: [str(model_folder)])
    panel.enter()
    assert panel.ui.modelSelector.currentText == str(model_folder)
    assert not panel.ui.modelFolderEdit.visible
    click_classify(panel)
    assert len(labels(panel, "callLabel")) == 2
    choose_own_model(panel, "a folder of mine")
    assert panel.ui.modelFolderEdit.visible
    panel.enter()
    assert panel.ui.modelSelector.currentData == ""


def test_a_model_is_loaded_once_and_again_when_it_has_changed(panel: Any, model_folder: Path, tmp_path: Path) -> None:
    backend = panel.logic.backend
    model = backend.model(str(model_folder))
    assert backend.model(str(model_folder)) is model
    card = model_folder / "model.json"
    changed = tmp_path / "phantoms"
    changed.mkdir()
    for path in model_folder.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    (changed / card.name).write_text(card.read_text().replace('"threshold": 0.5', '"threshold": 0.25'))
    assert backend.model(str(changed)).card.threshold == 0.25


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("radllm_backend", "The package radllm_backend is missing: install the extension RadiomicsLLM again."),
        ("radiomics", "PyRadiomics is missing: install the extension SlicerRadiomics and restart Slicer."),
        ("torch", "PyTorch is missing: install the extension PyTorch, restart Slicer, and install it in its module."),
        ("peft", "Packages are missing: run slicer.util.pip_install('peft>=0.21') in the Python console."),
    ],
)
def test_what_is_missing_is_said_in_the_panel(
    panel: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, sentence: str
) -> None:
    add_segmentation(add_volume())
    choose_own_model(panel, model_folder)
    monkeypatch.setitem(sys.modules, package, None)
    panel.enter()
    assert panel.ui.statusLabel.text == sentence
    assert panel.ui.classifyButton.toolTip == sentence
    assert not panel.ui.classifyButton.enabled
    monkeypatch.undo()
    panel.enter()
    assert panel.ui.statusLabel.text == ""
    assert panel.ui.classifyButton.enabled


def test_the_packages_to_install_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(PIP_PACKAGES.values()) <= {*project["dependencies"], *project["optional-dependencies"]["llm"]}


def test_the_backend_needs_no_other_package_of_the_project() -> None:
    """Only the command line, the reports, training and the base models' conversion need the rest."""
    code = """
        import sys
        for name in ("jinja2", "rich", "typer", "gguf", "pylibjpeg"): sys.modules[name] = None
        from radllm_backend import Lesion, Model, RadllmError, extract
        import radllm_backend.bundle
    """
    python(code)


def test_opening_the_module_imports_nothing_heavy() -> None:
    code = """
        import sys
        from pathlib import Path
        from slicer_harness import load_module, open_module
        heavy = {"torch", "transformers", "radiomics", "SimpleITK", "pydantic", "sklearn"}
        module = load_module(Path(sys.argv[1]))
        print(sorted(heavy & set(sys.modules)))
        open_module(module)
        print(sorted({"torch", "transformers", "radiomics"} & set(sys.modules)))
    """
    assert python(code, str(MODULE)).split("\n")[:2] == ["[]", "[]"]


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


def test_the_modality_is_the_user_s_or_else_dicom_s(panel: Any, model_folder: Path) -> None:
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

    choose_own_model(panel, model_folder)
    choose_modality(panel, "MG")
    click_classify(panel)
    (caution,) = {text for text in labels(panel, "cautionLabel") if "modality" in text}
    assert "trained on ultrasound images and this is a mammogram" in caution
    assert caution.removeprefix("⚠ ") in rows(tables()[0])[0]["cautions"]


def test_what_cannot_be_a_lesion_is_one_sentence(panel: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    with pytest.raises(RadllmError, match="There is no segment with the ID 'gone'"):
        SegmentedVolume(volume, segmentation).lesion("gone")
    bare = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "bare")
    with pytest.raises(RadllmError, match="The volume 'bare' has no voxels"):
        SegmentedVolume(bare, segmentation).lesion("oval")


# --- the module's own tests, its picture, and the harness -----------------------------------------------------------


def test_the_module_s_own_test_passes(panel: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InProcessBackend, "modelNames", lambda self: [str(model_folder)])
    RadiomicsLLM.RadiomicsLLMTest().runTest()


def test_the_module_s_build_time_tests_pass() -> None:
    slicer.mrmlScene.Clear()
    folder = MODULE.parent / "Testing" / "Python"
    result = unittest.TextTestRunner().run(unittest.TestLoader().discover(str(folder), "*ModuleTest.py"))
    assert result.testsRun > 0
    assert result.wasSuccessful()
    assert result.skipped == []


def test_the_screenshot_shows_results_at_400_pixels(model_folder: Path, tmp_path: Path) -> None:
    take_screenshot(model_folder, tmp_path / "panel.png")
    picture = Image.open(tmp_path / "panel.png").convert("RGB")
    assert picture.width == 400
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert colours & {(0x1F, 0x7A, 0x6F), (0xB8, 0x32, 0x46)}
    assert (0x6B, 0x6B, 0x6B) in colours
    assert slot_errors == []


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
