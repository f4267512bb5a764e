"""Which segments, which model, which settings: what the panel lets its user choose, and says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PySide6.QtCore import Qt

from Testing.slicer.harness.widgets import HEARD
from Testing.slicer.module_scene import (
    MASKS,
    ROOT,
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    finish,
    labels,
    shown,
    slicer,
)

from RadiomicsLLMLib.panel.PanelUi import PanelUi


def test_the_panel_knows_the_widgets_of_its_file() -> None:
    """Type checkers know them by this class alone; its annotations are texts."""
    file = ElementTree.parse(ROOT / "RadiomicsLLM" / "Resources" / "UI" / "RadiomicsLLM.ui")
    there = {widget.get("name"): widget.get("class") for widget in file.iter("widget")}
    known = {name: kind.rpartition(".")[2] for name, kind in PanelUi.__annotations__.items()}
    assert known.items() <= there.items()
    others = {there[name] for name in there.keys() - known.keys()}
    assert others == {"QLabel", "ctkCollapsibleButton", "qMRMLWidget"}


def test_the_disabled_button_says_why(panel: Any, self_contained_model: Path, backend_python: str) -> None:
    choose_backend(panel, "local")
    button = panel.ui.classifyButton
    said = [button.toolTip]
    volume = add_volume()
    said.append(button.toolTip)
    segmentation = add_segmentation(volume, {})
    said.append(button.toolTip)
    segmentation.GetSegmentation().AddEmptySegment("one", "one")
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("")
    said.append(button.toolTip)
    choose_own_model(panel, self_contained_model)
    panel.ui.settingsSelector.currentIndex = panel.ui.settingsSelector.findData("own")
    said.append(button.toolTip)
    assert not button.enabled
    assert said == [
        "Load an image that shows the lesions, or click “Load sample”.",
        "Draw the lesions: click “Segment Editor”.",
        "Draw a segment, or tick one.",
        "Choose the folder of your model.",
        "Choose your PyRadiomics parameter file.",
    ]
    panel.ui.settingsSelector.currentIndex = 0
    assert button.enabled
    assert button.toolTip == "Classify every ticked segment."
    segmentation.GetSegmentation().RemoveSegment("one")
    assert not button.enabled
    slicer.mrmlScene.Clear()
    assert button.toolTip == "Load an image that shows the lesions, or click “Load sample”."


def test_visible_segments_are_ticked_and_any_may_be_chosen(one: Any) -> None:
    segmentation = add_segmentation(add_volume())
    assert one.panel.segments.current() == ["oval", "spiculated"]
    segmentation.GetDisplayNode().SetSegmentVisibility("oval", False)
    assert one.panel.segments.current() == ["spiculated"]
    one.ui.segmentsList.item(0).setCheckState(Qt.Checked)
    one.ui.segmentsList.item(1).setCheckState(Qt.Unchecked)
    segmentation.GetDisplayNode().SetSegmentVisibility("oval", True)
    assert one.panel.segments.current() == ["oval"]
    classify(one)
    assert [row[0] for row in shown(one)] == ["the oval"]
    one.ui.segmentsList.item(0).setCheckState(Qt.Unchecked)
    assert not one.ui.classifyButton.enabled


def test_the_list_keeps_its_current_row_and_its_place(panel: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume, {f"s{number}": MASKS["oval"] for number in range(12)})
    segments, rows = segmentation.GetSegmentation(), panel.ui.segmentsList
    rows.setCurrentRow(8)
    rows.verticalScrollBar().setValue(rows.verticalScrollBar().maximum)
    place = rows.verticalScrollBar().value
    assert place > 0
    for state in (Qt.Unchecked, Qt.Checked, Qt.Unchecked):
        rows.item(8).setCheckState(state)
        assert (rows.currentRow, rows.verticalScrollBar().value) == (8, place)
    segments.GetSegment("s8").SetName("renamed")
    segments.AddEmptySegment("last", "the last")
    segmentation.GetDisplayNode().SetSegmentVisibility("s1", False)
    assert (rows.item(8).text(), rows.currentRow, rows.verticalScrollBar().value) == ("renamed", 8, place)
    assert panel.panel.segments.current() == [*(f"s{n}" for n in range(12) if n not in (1, 8)), "last"]
    segments.RemoveSegment("s2")
    segments.SetSegmentIndex("s5", 0)
    names = [segments.GetSegment(segment).GetName() for segment in segments.GetSegmentIDs()]
    segmentation.GetDisplayNode().SetSegmentVisibility("s3", False)
    assert [rows.item(row).text() for row in range(rows.count)] == names
    assert rows.currentItem().text() == "renamed"


@pytest.fixture(params=HEARD)
def heard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The selectors signal as in each version of Slicer."""
    monkeypatch.setattr(slicer.qMRMLNodeComboBox, "heard", HEARD[request.param])
    return str(request.param)


def test_another_node_counts_and_not_another_name(heard: str, one: Any) -> None:
    volume, other = add_volume(), add_volume()
    segmentation = add_segmentation(volume)
    one.ui.volumeSelector.setCurrentNode(volume)
    classify(one)
    for node in (volume, segmentation):
        node.SetName("renamed")
        assert len(shown(one)) == 2
    volume.SetName(other.GetName())
    one.ui.volumeSelector.setCurrentNode(other)
    one.ui.volumeSelector.nodeActivated.emit(other)  # as a click does
    assert shown(one) == []
    assert one.panel._volumeNode is other


@pytest.mark.parametrize("names", [("scan", "scan", "scan"), ("a", "b", "c")])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_node_that_is_removed_is_chosen_no_more(heard: str, one: Any, gone: int, names: tuple[str, str, str]) -> None:
    """Whichever Qt chooses in its place, and whether the selector says so or not."""
    volumes = [add_volume() for _name in names]
    segmentations = [add_segmentation(volume, {"oval": MASKS["oval"]}) for volume in volumes]
    for nodes in (volumes, segmentations):
        for node, name in zip(nodes, names, strict=True):
            node.SetName(name)
    one.panel.choose(volumes[gone], segmentations[gone])
    assert one.panel._volumeNode is volumes[gone]
    assert one.panel._segmentationNode is segmentations[gone]
    for nodes, selector in ((segmentations, one.ui.segmentationSelector), (volumes, one.ui.volumeSelector)):
        removed = nodes.pop(gone)
        slicer.mrmlScene.RemoveNode(removed)
        chosen = one.panel._volumeNode if nodes is volumes else one.panel._segmentationNode
        assert chosen is selector.currentNode()
        assert chosen is not removed
        assert chosen is nodes[min(gone, 1)]  # Qt takes the next row, or the last one
    assert one.ui.classifyButton.enabled
    slicer.mrmlScene.Clear()
    assert (one.panel._volumeNode, one.panel._segmentationNode) == (None, None)
    assert not one.ui.classifyButton.enabled


def test_what_a_program_chooses_is_chosen(heard: str, one: Any) -> None:
    """Also a second sample, whose nodes have the names of the first one's."""
    for _ in range(2):
        one.ui.sampleButton.click()
        finish(one)
        assert one.panel._volumeNode is one.ui.volumeSelector.currentNode()
        assert one.panel._segmentationNode is one.ui.segmentationSelector.currentNode()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
    assert one.panel._segmentationNode is slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[1]


def test_the_selector_of_the_harness_chooses_as_slicer_s(panel: Any) -> None:
    selector, told = panel.ui.volumeSelector, []
    selector.currentNodeChanged.connect(told.append)
    first, second, third = add_volume(), add_volume(), add_volume()
    assert selector.currentNode() is first
    selector.setCurrentNode(third)
    slicer.mrmlScene.RemoveNode(third)  # Qt decides what is chosen then
    assert selector.currentNode() is told[-1]
    assert told[-1] is not third
    slicer.mrmlScene.RemoveNode(first)
    selector.setCurrentNode(second)
    assert selector.currentNode() is second
    second.SetHideFromEditors(True)
    assert (selector.currentNode(), told[-1], selector.nodeCount()) == (None, None, 0)
    assert not panel.ui.classifyButton.enabled


def test_results_go_when_they_no_longer_belong_to_what_is_chosen(one: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)

    def change_modality() -> None:
        choose_modality(one, "CT")

    def draw() -> None:
        mask = MASKS["oval"][np.newaxis].astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "spiculated", volume)

    for change in (change_modality, draw, slicer.mrmlScene.Clear):
        classify(one)
        assert len(shown(one)) == 2
        change()
        slicer.app.processEvents()
        assert shown(one) == []


def test_other_settings_are_a_guess_and_the_result_says_so(one: Any, tmp_path: Path) -> None:
    add_segmentation(add_volume())
    preset = (ROOT / "radllm_backend" / "features" / "settings" / "breast-ultrasound.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(preset.replace("binCount: 64", "binCount: 32"), encoding="utf-8")
    one.ui.settingsSelector.currentIndex = one.ui.settingsSelector.findData("own")
    one.ui.settingsFileEdit.currentPath = str(tmp_path / "mine.yaml")
    classify(one)
    assert any("settings" in text for text in labels(one, "cautionLabel"))


def test_a_model_s_card_is_a_click_away(one: Any) -> None:
    one.ui.cardButton.click()
    if "asked" in one.ui.cardLabel.text:  # only a server that runs can tell
        add_segmentation(add_volume())
        classify(one)
        one.ui.cardButton.click()
        one.ui.cardButton.click()
    assert "For ultrasound images." in one.ui.cardLabel.text
    assert "24 lesions (12 malignant)" in one.ui.cardLabel.text
    assert "how well it does is unknown" in one.ui.cardLabel.text
