"""Which segments, which model, which settings: what the panel lets its user choose, and says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PySide6.QtCore import Qt

from Testing.slicer.module_scene import (
    MASKS,
    ROOT,
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
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
