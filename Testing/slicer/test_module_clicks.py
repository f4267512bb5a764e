"""The panel as a person uses it: the sample, reports, colours, views, other modules, and the menu of a segmentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PySide6.QtCore import QObject
from PySide6.QtGui import QDesktopServices

from Testing.slicer.harness import close_module, open_module, slot_errors
from Testing.slicer.module_scene import (
    MASKS,
    PICTURE,
    ROOT,
    RadiomicsLLM,
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    click,
    finish,
    node_ids,
    rows,
    shown,
    slicer,
    tables,
)

ONE_VIEW = slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
FOUR_VIEWS = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


@pytest.fixture(autouse=True)
def _usual_views() -> Iterator[None]:
    slicer.app.layoutManager().setLayout(FOUR_VIEWS)
    yield
    slicer.app.layoutManager().setLayout(FOUR_VIEWS)


def red() -> Any:
    return slicer.app.layoutManager().sliceWidget("Red")


# --- the sample, and what to do next --------------------------------------------------------------------------------


def test_the_sample_is_ready_to_classify_with_one_click(panel: Any, self_contained_model: Path) -> None:
    choose_backend(panel, "local")
    choose_modality(panel, "MG")
    click(panel.ui.sampleButton)
    finish(panel)
    volume, segmentation = panel.ui.volumeSelector.currentNode(), panel.ui.segmentationSelector.currentNode()
    assert (volume.GetName(), segmentation.GetName()) == ("Ultrasound (synthetic)", "Lesions (synthetic)")
    assert panel.ui.modalitySelector.currentText == "Automatic"
    assert panel.ui.modelSelector.currentData == "breast-us"
    assert slicer.app.layoutManager().layout == ONE_VIEW
    assert red().mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    assert (panel.ui.statusLabel.visible, panel.ui.nextButton.visible) == (False, False)
    assert panel.ui.classifyButton.enabled
    choose_own_model(panel, self_contained_model)  # the shipped one wants its base model
    classify(panel)
    assert len(shown(panel)) == len(segmentation.GetSegmentation().GetSegmentIDs())
    assert {row["problem"] for row in rows(tables()[0])} == {""}


def test_a_second_sample_is_another_one_and_is_chosen(panel: Any) -> None:
    click(panel.ui.sampleButton)
    finish(panel)
    first = panel.ui.volumeSelector.currentNode()
    click(panel.ui.sampleButton)
    finish(panel)
    assert panel.ui.volumeSelector.currentNode() is not first
    assert slicer.app.layoutManager().layout == ONE_VIEW
    click(panel.ui.layoutBox)
    assert slicer.app.layoutManager().layout == FOUR_VIEWS  # and not the one view of the first sample


def test_an_empty_panel_says_what_to_do(panel: Any, self_contained_model: Path) -> None:
    choose_backend(panel, "local")
    assert panel.ui.statusLabel.text == "Load an image that shows the lesions, or click “Load sample”."
    volume = add_volume()
    assert panel.ui.statusLabel.text == "Draw the lesions: click “Segment Editor”."
    segmentation = add_segmentation(volume, {})
    assert panel.ui.statusLabel.text == "Draw a segment, or tick one."
    segmentation.GetSegmentation().AddEmptySegment("one", "one")
    assert (panel.ui.statusLabel.text, panel.ui.statusLabel.visible) == ("", False)
    assert not panel.ui.nextButton.visible


def test_what_is_missing_has_a_button_that_leads_there(panel: Any) -> None:
    choose_backend(panel, "remote")
    assert panel.ui.statusLabel.text.startswith("Enter the address")
    assert panel.ui.backendButton.collapsed
    assert panel.ui.setupSectionButton.collapsed
    click(panel.ui.nextButton)
    assert not panel.ui.backendButton.collapsed
    assert not panel.ui.setupSectionButton.collapsed


def test_only_one_widget_has_a_name(panel: Any) -> None:
    own = [child.objectName for child in panel.parent.findChildren(QObject) if child.objectName]
    named = [name for name in own if not name.startswith("qt_") and name[0].islower()]
    assert sorted(set(named)) == sorted(named)


# --- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_picture_lies_in_one_view_as_it_was_taken(panel: Any, plane: str) -> None:
    columns, down, normal = {
        "axial": ([-1, 0, 0], [0, -1, 0], [0, 0, 1]),
        "coronal": ([0, -1, 0], [0, 0, -1], [1, 0, 0]),  # as a mammogram in MLO has it: A to P, and H to F
        "sagittal": ([0, 1, 0], [0, 0, -1], [-1, 0, 0]),
    }[plane]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([columns, down, normal]).T * 0.08
    matrix[:3, 3] = (12, -7, 30)
    slicer.util.addVolumeFromArray(PICTURE[np.newaxis], matrix, "picture")
    assert panel.ui.layoutBox.visible
    click(panel.ui.layoutBox)
    assert slicer.app.layoutManager().layout == ONE_VIEW
    directions = slicer.util.arrayFromVTKMatrix(red().mrmlSliceNode().GetSliceToRAS())
    assert directions[:3, 0].tolist() == columns
    assert directions[:3, 1].tolist() == [-one for one in down]
    centre = matrix @ [(PICTURE.shape[1] - 1) / 2, (PICTURE.shape[0] - 1) / 2, 0, 1]
    np.testing.assert_allclose(directions[:3, 3], centre[:3], atol=0.08)
    click(panel.ui.layoutBox)
    assert slicer.app.layoutManager().layout == FOUR_VIEWS


def test_a_volume_of_many_slices_keeps_its_layout(panel: Any) -> None:
    slicer.util.addVolumeFromArray(np.zeros((5, 20, 20), np.int16), np.eye(4), "ct")
    assert not panel.ui.layoutBox.visible
    assert slicer.app.layoutManager().layout == FOUR_VIEWS


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The pages that were opened, and local application data of this test alone."""
    pytest.importorskip("jinja2", reason="reports need jinja2")
    pytest.importorskip("fpdf", reason="reports need fpdf2")
    opened: list[Path] = []
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(
        QDesktopServices, "openUrl", lambda url: opened.append(Path(url.toLocalFile())) or True, raising=True
    )
    return opened


def open_report(panel: Any) -> str:
    click(panel.ui.openReportButton)
    finish(panel)
    return str(panel.ui.statusLabel.text)


def test_a_click_opens_the_report_of_the_chosen_row(one: Any, pages: list[Path], tmp_path: Path) -> None:
    assert one.ui.openReportButton.toolTip == "There is no result yet: classify a segment first."
    add_segmentation(add_volume(), {**MASKS, "nothing": np.zeros_like(MASKS["oval"])})
    classify(one)
    before = node_ids()
    one.panel.results.table.setCurrentCell(1, 0)
    said = open_report(one)
    (page,) = pages
    assert said == f"The report of the spiculated is open in your browser; its files lie in {page.parent}."
    assert page.is_relative_to(tmp_path / "data")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "features.csv", "prediction.json", "report.html", "report.pdf",
    ]  # fmt: skip
    content = json.loads((page.parent / "prediction.json").read_text(encoding="utf-8"))
    assert content["probability"] == float(rows(tables()[0])[1]["probability"])
    folder = page.parent.parent
    assert folder.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lesion-1", "lesion-2"]
    assert "spiculated" not in page.read_text(encoding="utf-8")

    one.panel.results.table.setCurrentCell(0, 0)
    open_report(one)  # written already
    assert pages[1:] == [folder / "lesion-1" / "report.html"]
    assert len(list(folder.iterdir())) == 2
    one.panel.results.table.setCurrentCell(2, 0)
    assert not one.ui.openReportButton.enabled
    assert one.ui.openReportButton.toolTip == "Choose a row that has a result."
    one.panel.results.table.setCurrentCell(0, 0)
    classify(one)
    open_report(one)
    assert pages[-1] == folder / "lesion-3" / "report.html"
    assert node_ids() == before


def test_a_page_that_nothing_opens_is_one_sentence(
    one: Any, pages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_segmentation(add_volume())
    classify(one)
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    said = open_report(one)
    assert said.startswith("No program on this computer opens pages: the report is ")
    assert Path(said.partition("the report is ")[2].removesuffix(".")).is_file()


def test_a_folder_that_cannot_be_made_is_one_sentence(one: Any, pages: list[Path], tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    add_segmentation(add_volume())
    classify(one)
    assert open_report(one).startswith("The folder for reports cannot be made (")
    assert pages == []


# --- units ----------------------------------------------------------------------------------------------------------


def test_the_feature_table_has_units(panel: Any) -> None:
    from RadiomicsLLMLib.results.ResultTable import _unit

    assert _unit("original_shape2D_MaximumDiameter", True) == "mm"
    assert _unit("original_shape2D_MaximumDiameter", False) == "pixels"
    assert _unit("original_shape_MeshVolume", True) == "mm3"
    assert _unit("original_shape2D_Sphericity", True) == ""
    assert _unit("original_firstorder_Mean", True) == ""


# --- beside other modules -------------------------------------------------------------------------------------------


def test_the_segment_editor_opens_with_what_is_chosen(panel: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    click(panel.ui.editorButton)
    assert slicer.util.selectedModule() == "SegmentEditor"
    node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert node.GetSegmentationNode() is segmentation
    assert node.GetSourceVolumeNode() is volume
    slicer.util.selectModule("RadiomicsLLM")
    click(panel.ui.editorButton)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode") == 1


def test_nothing_is_followed_while_another_module_is_shown(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    classify(one)
    looked: list[object] = []
    show = one.panel.segments.show
    monkeypatch.setattr(one.panel.segments, "show", lambda node: looked.append(node) or show(node))
    slicer.util.selectModule("SegmentEditor")
    segmentation.GetSegmentation().GetSegment("oval").SetName("renamed")
    segmentation.GetDisplayNode().SetSegmentVisibility("oval", False)
    assert looked == []
    slicer.util.selectModule("RadiomicsLLM")
    assert looked
    assert one.ui.segmentsList.item(0).text() == "renamed"
    assert len(shown(one)) == 2  # the lesions are the same
    slicer.util.selectModule("SegmentEditor")
    mask = MASKS["oval"][np.newaxis].astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "spiculated", volume)
    slicer.util.selectModule("RadiomicsLLM")
    assert shown(one) == []
    assert slot_errors == []


def test_a_renamed_volume_is_the_same_volume(one: Any) -> None:
    volume = add_volume()
    add_segmentation(volume)
    classify(one)
    volume.SetName("another name")
    for selector in (one.ui.volumeSelector, one.ui.segmentationSelector):
        selector.currentNodeChanged.emit(selector.currentNode())  # as Slicer 5.12 does
    assert len(shown(one)) == 2


def test_what_is_chosen_is_kept_in_the_scene(panel: Any, self_contained_model: Path, tmp_path: Path) -> None:
    choose_backend(panel, "local")
    volumes = [add_volume(), add_volume(), add_volume()]
    segmentations = [add_segmentation(volume) for volume in volumes]
    panel.ui.volumeSelector.setCurrentNode(volumes[1])
    panel.ui.segmentationSelector.setCurrentNode(segmentations[2])
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("mammo-descriptors")
    choose_modality(panel, "MG")
    for number, node in enumerate((*volumes, *segmentations)):
        node.SetName(f"node {number}")
    bundle = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    slicer.mrmlScene.Clear()
    choose_modality(panel, "US")
    panel.ui.modelSelector.currentIndex = 0
    assert slicer.mrmlScene.ReadFromMRB(str(bundle))
    slicer.app.processEvents()
    assert panel.ui.volumeSelector.currentNode().GetName() == "node 1"
    assert panel.ui.segmentationSelector.currentNode().GetName() == "node 5"
    assert panel.ui.modelSelector.currentText == "mammo-descriptors"
    assert panel.ui.modalitySelector.currentText == "Mammography (MG)"
    again = open_module(RadiomicsLLM)
    assert again.ui.segmentationSelector.currentNode().GetName() == "node 5"
    close_module(again)


# --- the menu of a segmentation -------------------------------------------------------------------------------------


def test_a_segmentation_s_menu_opens_the_module_with_it(panel: Any) -> None:
    volume, other = add_volume(), add_volume()
    add_segmentation(other)
    segmentation = add_segmentation(volume)
    slicer.app.startupCompleted.emit()
    handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
    assert "RadiomicsLLM" in handler.plugins
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    items = [hierarchy.CreateItem(hierarchy.GetSceneItemID(), node) for node in (volume, segmentation)]
    assert handler.menu(items[0]) == []
    assert handler.menu(hierarchy.GetSceneItemID()) == []
    panel.ui.volumeSelector.setCurrentNode(other)
    slicer.util.selectModule("SegmentEditor")
    (action,) = handler.menu(items[1])
    assert action.text == "Classify with RadiomicsLLM"
    action.trigger()
    assert slicer.util.selectedModule() == "RadiomicsLLM"
    assert panel.ui.segmentationSelector.currentNode() is segmentation
    assert panel.ui.volumeSelector.currentNode() is volume
    handler.menu(items[0])
    action.trigger()  # of an item that is none any more: nothing happens
    assert slot_errors == []


def test_the_module_links_to_its_documentation() -> None:
    assert '<a href="https://' in slicer.modules.radiomicsllm.helpText


def test_the_card_says_how_exact_the_base_model_is(panel: Any) -> None:
    choose_backend(panel, "process")
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("breast-us")
    panel.ui.cardButton.click()
    assert "smollm2-135m-instruct" in panel.ui.cardLabel.text
    assert "4-bit (Q4_1) weights, expanded to fp32" in panel.ui.cardLabel.text


def test_the_tab_key_goes_from_top_to_bottom() -> None:
    file = ElementTree.parse(ROOT / "RadiomicsLLM" / "Resources" / "UI" / "RadiomicsLLM.ui")
    there = [widget.get("name") for widget in file.iter("widget")]
    stops = [stop.text for stop in file.iter("tabstop")]
    assert stops == [name for name in there if name in stops]
