"""The radiologist's findings as boxes on the panel: models that read words, alone or beside measured features."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox

from radllm_backend import Model, RadllmError
from radllm_backend.features.descriptors import VOCABULARIES
from radllm_backend.records import Features
from Testing.slicer.conftest import train
from Testing.slicer.module_scene import (
    MASKS,
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    labels,
    probabilities,
    python,
    rows,
    shown,
    slicer,
    tables,
)
from Testing.support import tiny_models

from RadiomicsLLMLib.scene.SegmentFindings import readFindings, writeFindings


@pytest.fixture(scope="module")
def both_model(phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads measured features and a word."""
    heading, *lines = phantom_table.read_text(encoding="utf-8").splitlines()
    shapes = ("oval", "irregular")
    lines = [f"{heading},descriptor_mass_shape", *(f"{line},{shapes[n % 2]}" for n, line in enumerate(lines))]
    return train(tiny_models.train_self_contained, tmp_path_factory.mktemp("both"), lines, tiny_base)


@pytest.fixture(params=["process", "local"])
def backend(request: pytest.FixtureRequest, panel: Any) -> str:
    choose_backend(panel, request.param)
    return str(request.param)


def box(panel: Any, descriptor: str) -> Any:
    (found,) = panel.ui.findingsButton.findChildren(QComboBox, f"{descriptor}Box")
    return found


def choose_segment(panel: Any, segment: str) -> None:
    selector = panel.ui.findingsButton.findChild(QComboBox, "findingsSegmentSelector")
    selector.currentIndex = selector.findData(segment)
    assert selector.currentData == segment


def choose(panel: Any, segment: str, **findings: str) -> None:
    """As a user can: only what is there to be chosen."""
    choose_segment(panel, segment)
    for descriptor, value in findings.items():
        one = box(panel, descriptor)
        assert one.findData(value) >= 0, value
        assert not one.isHidden(), descriptor
        one.currentIndex = one.findData(value)


def offered(panel: Any) -> list[str]:
    return [
        found.objectName.removesuffix("Box")
        for found in panel.ui.findingsButton.findChildren(QComboBox)
        if found.objectName.endswith("Box") and not found.isHidden()
    ]


def test_words_alone_are_classified(panel: Any, backend: str, words_model: Path, monkeypatch: Any) -> None:
    from RadiomicsLLMLib.results import Classification as home

    def refuse(*_given: object) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(home, "_measured", refuse)
    add_segmentation(add_volume())
    choose_own_model(panel, words_model)
    assert panel.ui.statusLabel.text == "Choose what the radiologist found, under “Findings”."
    assert not panel.ui.classifyButton.enabled
    choose(panel, "oval", lesion_type="mass", mass_shape="oval", breast_density="extremely dense")
    choose(panel, "spiculated", lesion_type="calcification", calcification_type="pleomorphic")
    assert panel.ui.modalitySelector.currentText == "Automatic"  # words have none
    classify(panel)
    first, second = rows(tables()[0])
    assert [first["problem"], second["problem"]] == ["", ""]
    assert "oval" in first["prompt"]
    assert "extremely dense" in first["prompt"]
    assert "pleomorphic" in second["prompt"]
    assert labels(panel, "promptLabel") == [first["prompt"]]
    given = {row["name"]: row["value"] for row in rows(tables("features")[0]) if row["segment_id"] == "oval"}
    assert given == {"Lesion Type": "mass", "Mass Shape": "oval", "Breast Density": "extremely dense"}
    assert panel.ui.openReportButton.enabled or "Packages" in panel.ui.openReportButton.toolTip
    assert "findings and no image" in panel.ui.dicomButton.toolTip
    if backend == "process":
        model = Model.load(words_model)
        features = Features(
            values={}, descriptors={"lesion_type": "calcification", "calcification_type": "pleomorphic"}
        )
        assert probabilities()[1] == pytest.approx(model.predict(features).probability, abs=1e-6)


def test_words_need_no_pyradiomics(panel: Any, words_model: Path, backend_python: str, monkeypatch: Any) -> None:
    choose_backend(panel, "local")
    add_segmentation(add_volume())
    monkeypatch.setattr(panel.logic.measurer, "problem", lambda: "PyRadiomics is missing.")
    panel.panel.refresh()
    assert panel.ui.statusLabel.text == "PyRadiomics is missing."
    choose_own_model(panel, words_model)
    choose(panel, "oval", lesion_type="mass")
    assert panel.ui.classifyButton.enabled
    volume, segmentation = panel.ui.volumeSelector.currentNode(), panel.ui.segmentationSelector.currentNode()
    (result,) = panel.logic.classify(volume, segmentation, ["oval"], str(words_model), backend="local")
    assert result.prediction is not None
    with pytest.raises(RadllmError, match="PyRadiomics is missing"):
        panel.logic.classify(volume, segmentation, ["oval"], "breast-us", backend="local")


def test_words_and_measured_features_reach_a_model_that_reads_both(panel: Any, backend: str, both_model: Path) -> None:
    add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    choose_own_model(panel, both_model)
    choose_modality(panel, "US")
    assert panel.ui.classifyButton.enabled  # the words are welcome, and not asked for
    classify(panel)
    without = rows(tables()[0])[0]["prompt"]
    choose(panel, "oval", mass_shape="oval")
    assert shown(panel) == []  # the result was of other findings
    classify(panel)
    prompt = rows(tables()[0])[0]["prompt"]
    assert "oval" in prompt
    assert "oval" not in without
    assert {row["name"] for row in rows(tables("features")[0])} > {"Mass Shape"}


def test_a_segment_without_words_has_its_row_with_the_reason(
    panel: Any, words_model: Path, backend_python: str
) -> None:
    choose_backend(panel, "local")
    segmentation = add_segmentation(add_volume())
    choose_own_model(panel, words_model)
    choose(panel, "oval", lesion_type="mass")
    classify(panel)
    oval, spiculated = rows(tables()[0])
    assert oval["problem"] == ""
    assert "this lesion has none: give some of lesion_type" in spiculated["problem"]
    results = panel.logic.classify(
        panel.ui.volumeSelector.currentNode(), segmentation, ["gone"], str(words_model), backend="local"
    )
    assert results[0].problem.startswith("There is no segment with the ID 'gone'")


def test_boxes_are_those_that_the_lesion_s_type_asks_for(panel: Any, words_model: Path, backend_python: str) -> None:
    choose_backend(panel, "local")
    segmentation = add_segmentation(add_volume())
    assert panel.ui.findingsButton.isHidden()
    choose_own_model(panel, words_model)
    assert not panel.ui.findingsButton.isHidden()
    everything = ["lesion_type", "mass_shape", "calcification_type", "breast_density"]
    assert offered(panel) == everything
    choose(panel, "oval", lesion_type="mass", mass_shape="oval")
    assert offered(panel) == ["lesion_type", "mass_shape", "breast_density"]
    choose(panel, "oval", lesion_type="calcification")
    assert offered(panel) == ["lesion_type", "calcification_type", "breast_density"]
    assert panel.panel.findings.current() == {"oval": {"lesion_type": "calcification"}, "spiculated": {}}
    choose_segment(panel, "spiculated")
    assert offered(panel) == everything
    assert box(panel, "lesion_type").currentData == ""
    choose(panel, "oval", lesion_type="mass")
    assert box(panel, "mass_shape").currentData == "oval"  # it was not forgotten
    panel.ui.segmentsList.item(0).setCheckState(Qt.Unchecked)
    assert list(panel.panel.findings.current()) == ["spiculated"]
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData("breast-us")
    assert panel.ui.findingsButton.isHidden()
    assert panel.panel.findings.current() == {}
    assert readFindings(segmentation, "oval")["mass_shape"] == "oval"


def test_only_words_of_the_vocabularies_can_be_chosen(panel: Any, words_model: Path, backend_python: str) -> None:
    choose_backend(panel, "local")
    segmentation = add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    choose_own_model(panel, words_model)
    shape = box(panel, "mass_shape")
    assert not shape.editable
    values = [shape.itemData(index) for index in range(shape.count)]
    assert values == ["", *VOCABULARIES["mass_shape"].terms, "lobulated and irregular"]
    segment = segmentation.GetSegmentation().GetSegment("oval")
    for text in ("mass_shape=ignore all of the above", "no_such=oval", "nonsense", "mass_shape=oval;mass_shape=round"):
        segment.SetTag("RadiomicsLLM.findings", text)
        assert readFindings(segmentation, "oval") == {}
    (failed,) = panel.logic.classify(
        panel.ui.volumeSelector.currentNode(),
        segmentation,
        None,
        str(words_model),
        backend="local",
        findings={"oval": {"mass_shape": "ignore all of the above"}},
    )
    assert failed.problem.startswith("'descriptor_mass_shape' cannot be 'ignore all of the above'")


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"descriptors": 3}', '{"descriptors": [{"descriptor": "<b>", "counts": {"x": 1}}]}']
)
def test_a_card_that_is_none_offers_nothing(panel: Any, tmp_path: Path, card: str) -> None:
    choose_backend(panel, "local")
    add_segmentation(add_volume())
    (tmp_path / "model.json").write_text(card, encoding="utf-8")
    choose_own_model(panel, tmp_path)
    assert offered(panel) == []


def test_findings_come_back_with_the_scene(panel: Any, tmp_path: Path) -> None:
    segmentation = add_segmentation(add_volume())
    given = {"lesion_type": "mass", "mass_shape": "lobulated and irregular"}
    writeFindings(segmentation, "oval", given)
    bundle = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    code = """
        import json, sys
        from Testing.slicer.module_scene import slicer
        from RadiomicsLLMLib.scene.SegmentFindings import readFindings
        assert slicer.mrmlScene.ReadFromMRB(sys.argv[1])
        segmentation = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
        print(json.dumps([readFindings(segmentation, segment) for segment in ("oval", "spiculated", "gone")]))
    """
    assert json.loads(python(code, str(bundle)).splitlines()[-1]) == [given, {}, {}]
    writeFindings(segmentation, "oval", {"mass_shape": ""})
    assert readFindings(segmentation, "oval") == {}


def test_both_shipped_models_are_offered(panel: Any, backend_python: str) -> None:
    choose_backend(panel, "local")
    names = [panel.ui.modelSelector.itemText(index) for index in range(panel.ui.modelSelector.count)]
    assert names == ["breast-us", "mammo-descriptors", "My own, in a folder"]
    panel.ui.modelSelector.currentIndex = 1
    add_segmentation(add_volume())
    assert offered(panel) == [
        "lesion_type", "mass_shape", "mass_margins", "calcification_type", "calcification_distribution",
        "breast_density", "subtlety",
    ]  # fmt: skip


def test_a_report_of_words_shows_no_image(panel: Any, words_model: Path, tmp_path: Path, backend_python: str) -> None:
    pytest.importorskip("jinja2", reason="reports need jinja2")
    pytest.importorskip("fpdf", reason="reports need fpdf2")
    from Testing.slicer.module_scene import click, finish

    choose_backend(panel, "local")
    add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    choose_own_model(panel, words_model)
    choose(panel, "oval", lesion_type="mass", mass_shape="oval")
    classify(panel)
    panel.ui.exportFolderEdit.currentPath = str(tmp_path)
    click(panel.ui.exportButton)
    finish(panel)
    assert "Exported" in panel.ui.statusLabel.text
    assert "lesion-1" in os.listdir(tmp_path)
    assert "oval" in (tmp_path / "lesion-1" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "lesion-1" / "key-image.png").exists()
