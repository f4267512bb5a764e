"""The Slicer module through clicks on its panel, on real MRML and real Qt widgets. Slicer itself is not needed."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from radllm_backend import Lesion, Model, RadllmError, extract
from Testing.slicer.module_scene import (
    MASKS,
    MODULE,
    PICTURE,
    SPACING,
    add_segmentation,
    add_volume,
    begin,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    finish,
    labels,
    node_ids,
    probabilities,
    python,
    rotated,
    rows,
    shown,
    slicer,
    tables,
    wait_until,
)
from Testing.support.nodules import ball


@pytest.fixture(params=["process", "local"])
def ready(request: pytest.FixtureRequest, panel: Any, self_contained_model: Path) -> Any:
    """A panel whose model answers: in this process, and over the socket."""
    choose_backend(panel, request.param)
    choose_own_model(panel, self_contained_model)
    choose_modality(panel, "US")
    return panel


# --- one click ------------------------------------------------------------------------------------------------------


def test_a_click_gives_every_ticked_segment_its_rows_and_a_card(ready: Any) -> None:
    segmentation = add_segmentation(add_volume())
    before = node_ids()
    classify(ready)

    (table,), (features,) = tables(), tables("features")
    assert len(node_ids() - before) == 3  # the two tables, and the text that the panel is restored from
    assert before <= node_ids()
    first, second = rows(table)
    assert [first["segment"], second["segment"]] == ["the oval", "the spiculated"]
    assert [first["segment_id"], second["segment_id"]] == ["oval", "spiculated"]
    assert table.GetNodeReference("RadiomicsLLM.segmentation") is segmentation
    for row in (first, second):
        assert 0 < float(row["probability"]) < 1
        assert row["call"] in ("likely benign", "uncertain", "likely malignant")
        assert row["prompt"].startswith("Classify benign or malignant of this breast ultrasound")
        assert row["problem"] == ""
    assert first["probability"] != second["probability"]
    assert len(rows(features)) == 2 * 4
    assert {row["segment_id"] for row in rows(features)} == {"oval", "spiculated"}
    assert all(float(row["value"]) and row["effect"] for row in rows(features))

    percents = [f"{float(row['probability']):.1%}" for row in (first, second)]
    assert shown(ready) == [
        ("the oval", percents[0], first["call"]),
        ("the spiculated", percents[1], second["call"]),
    ]
    assert labels(ready, "segmentLabel") == ["the oval"]
    assert labels(ready, "promptLabel") == [first["prompt"]]
    assert labels(ready, "noticeLabel") == ["For research use only. Not for diagnosis."]
    assert labels(ready, "probabilityLabel")[0].startswith(f"Probability of malignancy {percents[0]}. The model calls")
    assert ready.ui.statusLabel.text == ""
    assert ready.ui.classifyButton.text == "Classify"


def test_a_click_on_a_row_shows_its_card_and_goes_to_the_lesion(one: Any) -> None:
    volume = add_volume()
    add_segmentation(volume)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    view.SetLayoutName("Red")
    classify(one)
    table = one.panel.results.table
    QTest.mouseClick(table.viewport(), Qt.LeftButton, pos=table.visualItemRect(table.item(1, 0)).center())
    assert labels(one, "segmentLabel") == ["the spiculated"]
    ijk = np.argwhere(MASKS["spiculated"]).mean(axis=0)[::-1] * SPACING
    matrix = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
    assert matrix[:2, 3] == pytest.approx(ijk, abs=3 * SPACING)


def test_the_chart_is_a_plot_node_of_the_scene(one: Any) -> None:
    add_segmentation(add_volume())
    classify(one)
    one.ui.resultsButton.findChild(object, "plotButton").click()
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert chart.GetTitle() == "the oval: what moved the prediction"
    series = chart.GetNthPlotSeriesNode(0)
    values = series.GetTableNode().GetTable().GetColumnByName("effect")
    effects = [values.GetValue(index) for index in range(values.GetNumberOfTuples())]
    own = [float(row["effect"]) for row in rows(tables("features")[0]) if row["segment_id"] == "oval"]
    assert effects == sorted(own, key=lambda effect: -abs(effect))


@pytest.mark.parametrize("other", ["logic", "command line", "python"])
def test_every_way_gives_the_same_probability(
    ready: Any, self_contained_model: Path, backend_python: str, tmp_path: Path, other: str
) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    classify(ready)
    expected = dict(zip(MASKS, probabilities(), strict=True))
    if other == "logic":
        key = ready.ui.backendSelector.currentData
        results = ready.logic.classify(
            volume, segmentation, ["spiculated", "oval"], str(self_contained_model), "US", backend=key
        )
        found = {result.segmentId: result.prediction.probability for result in results}
    else:
        Image.fromarray(PICTURE).save(tmp_path / "picture.png")
        found = {}
        for name, mask in MASKS.items():
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
            files = tmp_path / "picture.png", tmp_path / f"{name}.png"
            ask = from_command_line if other == "command line" else from_python
            found[name] = ask(backend_python, self_contained_model, *files)
    assert found == pytest.approx(expected, abs=1e-6, rel=0)


def from_command_line(python: str, model: Path, image: Path, mask: Path) -> float:
    output = image.parent / f"{mask.stem}_result"
    given = ["--model", model, "--modality", "US", "--spacing", str(SPACING), "-o", output]
    subprocess.run([python, "-m", "radllm_backend", "classify", image, mask, *given], check=True, capture_output=True)
    return float(json.loads((output / "prediction.json").read_text(encoding="utf-8"))["probability"])


def from_python(_python: str, model: Path, image: Path, mask: Path) -> float:
    loaded = Model.load(model)
    lesion = Lesion.from_files(image, mask, spacing=SPACING, modality="US")
    return loaded.predict(extract(lesion, loaded.settings)).probability


# --- other images ---------------------------------------------------------------------------------------------------


def test_a_full_field_mammogram(one: Any) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 4096, (4084, 3328), dtype=np.int16)
    lesion = np.zeros(picture.shape, dtype=bool)
    yy, xx = np.mgrid[:300, :300]
    lesion[2000:2300, 1500:1800] = np.hypot(yy - 150, xx - 150) < 140
    add_segmentation(add_volume(picture, 0.07), {"mass": lesion})
    choose_modality(one, "MG")
    classify(one)
    assert len(probabilities()) == 1
    (caution,) = [text for text in labels(one, "cautionLabel") if "modality" in text]
    assert "trained on ultrasound images and this is a mammogram" in caution
    assert caution.removeprefix("⚠ ") in rows(tables()[0])[0]["cautions"]


def test_an_oblique_volume_with_a_segmentation_on_another_grid(panel: Any, volume_model: Path) -> None:
    voxels = np.random.default_rng(1).normal(100, 20, (24, 40, 40)).astype(np.float32)
    coarse = slicer.util.addVolumeFromArray(voxels, rotated((0.7, 0.7, 2.0), (5, -3, 11)), "scan")
    fine = slicer.util.addVolumeFromArray(
        np.zeros((48, 80, 80), dtype=np.uint8), rotated((0.35, 0.35, 1.0), (5, -3, 11)), "finer grid"
    )
    segmentation = add_segmentation(fine, {"nodule": ball((48, 80, 80), (24, 40, 40), 13)})
    panel.ui.volumeSelector.setCurrentNode(coarse)
    panel.ui.segmentationSelector.setCurrentNode(segmentation)
    choose_backend(panel, "local")
    choose_own_model(panel, volume_model)
    choose_modality(panel, "CT")
    classify(panel)
    (row,) = rows(tables()[0])
    assert row["problem"] == ""
    assert 0 < float(row["probability"]) < 1
    assert "Classify benign or malignant of this" in row["prompt"]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_failed_segment_has_its_row_with_the_reason(ready: Any) -> None:
    one_pixel = np.zeros_like(MASKS["oval"])
    one_pixel[5, 5] = True
    masks = {"nothing": np.zeros_like(one_pixel), "oval": MASKS["oval"], "dot": one_pixel}
    add_segmentation(add_volume(), masks)
    classify(ready)

    nothing, oval, dot = rows(tables()[0])
    assert nothing["problem"] == "Segment 'the nothing' is empty: mark the lesion."
    assert dot["problem"] == "Segment 'the dot' is a single voxel: mark the whole lesion."
    assert [nothing["probability"], nothing["call"], dot["probability"]] == ["", "", ""]
    assert float(oval["probability"]) > 0
    assert [row[2] for row in shown(ready)] == ["not classified", oval["call"], "not classified"]
    assert labels(ready, "problemLabel") == ["⚠ " + nothing["problem"]]


def test_when_every_segment_fails_the_table_still_has_their_rows(one: Any) -> None:
    empty = np.zeros_like(MASKS["oval"])
    add_segmentation(add_volume(), {"a": empty, "b": empty})
    classify(one)
    assert ["is empty" in row["problem"] for row in rows(tables()[0])] == [True, True]


def test_a_mistake_of_ours_costs_one_segment_its_result_only(
    one: Any, self_contained_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from RadiomicsLLMLib import Classification as home

    volume, measured = add_volume(), sys.modules[home.__module__]._measured

    def fail_once(snapshot: Any, *given: Any) -> Any:
        if snapshot.segmentName == "the oval":
            raise ZeroDivisionError("a division")
        return measured(snapshot, *given)

    monkeypatch.setattr(sys.modules[home.__module__], "_measured", fail_once)
    results = one.logic.classify(volume, add_segmentation(volume), model=str(self_contained_model), backend="local")
    assert results[0].problem == "Unexpected: a division. Please report it with Slicer's error log."
    assert results[1].prediction is not None
    assert any(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("folder", ["no such folder", "."])
def test_a_folder_that_holds_no_model_is_one_sentence(one: Any, tmp_path: Path, folder: str) -> None:
    add_segmentation(add_volume())
    choose_own_model(one, tmp_path / folder)
    classify(one)
    assert one.ui.statusLabel.visible
    assert "model" in one.ui.statusLabel.text
    assert one.ui.statusLabel.text.endswith(".")
    assert tables() == []
    assert one.ui.classifyButton.enabled


def test_a_volume_that_goes_during_the_run_costs_nothing_but_the_result(one: Any) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    begin(one)
    wait_until(lambda: one.ui.statusLabel.text.startswith("Measuring"))
    slicer.mrmlScene.RemoveNode(volume)
    finish(one)
    assert "removed meanwhile" in one.ui.statusLabel.text
    assert tables() == []
    assert slicer.mrmlScene.IsNodePresent(segmentation)


def test_other_lesions_that_are_chosen_during_the_run_do_not_get_its_results(one: Any) -> None:
    """As the menu of another segmentation chooses them, and a batch's table."""
    volume, other = add_volume(), add_volume()
    segmentation, later = add_segmentation(volume), add_segmentation(other)
    one.panel.choose(volume, segmentation)
    begin(one)
    wait_until(lambda: one.ui.statusLabel.text.startswith("Measuring"))
    one.panel.choose(other, later)
    finish(one)
    assert shown(one) == []
    name = segmentation.GetName()
    assert one.ui.statusLabel.text == f"Other lesions were chosen meanwhile: the results of “{name}” are kept with it."
    one.panel.choose(volume, segmentation)
    assert len(shown(one)) == 2


def test_a_scene_that_closes_during_the_run_ends_it(one: Any) -> None:
    add_segmentation(add_volume())
    begin(one)
    wait_until(lambda: one.ui.statusLabel.text.startswith(("Measuring", "Loading")))
    slicer.mrmlScene.Clear()
    finish(one)
    assert tables() == []
    assert one.ui.statusLabel.text == "The scene was closed: nothing was classified."
    assert one.ui.classifyButton.toolTip == "Load an image that shows the lesions, or click “Load sample”."
    add_segmentation(add_volume())
    classify(one)
    assert len(probabilities()) == 2


def test_cancel_leaves_the_scene_as_it_was(ready: Any) -> None:
    add_segmentation(add_volume())
    before = node_ids()
    begin(ready)
    assert ready.ui.classifyButton.text == "Cancel"
    assert ready.ui.progressBar.visible
    wait_until(lambda: ready.ui.statusLabel.text.startswith(("Measuring", "Asking")))
    QTest.mouseClick(ready.ui.classifyButton, Qt.LeftButton)
    assert ready.ui.statusLabel.text == "Cancelling…"
    finish(ready)
    assert node_ids() == before
    assert ready.ui.statusLabel.text == "Cancelled: nothing was classified."
    assert not ready.ui.progressBar.visible
    classify(ready)
    assert len(probabilities()) == 2


# --- saved and restored ---------------------------------------------------------------------------------------------


def test_results_come_back_with_the_scene_in_a_fresh_process(one: Any, tmp_path: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    segmentation.GetSegmentation().GetSegment("oval").SetName('left "upper"\touter\nquadrant, é')
    classify(one)
    before, seen = rows(tables()[0]), shown(one)
    assert before[0]["segment"] == "left 'upper' outer quadrant, é"
    bundle = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    code = """
        import json, sys
        from Testing.slicer.module_scene import RadiomicsLLM, labels, open_module, rows
        from Testing.slicer.module_scene import shown, slicer, slot_errors, tables
        panel = open_module(RadiomicsLLM)
        assert slicer.mrmlScene.ReadFromMRB(sys.argv[1])
        panel.ui.segmentationSelector.setCurrentNode(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0])
        prompts, features = labels(panel, "promptLabel"), rows(tables("features")[0])
        print(json.dumps([rows(tables()[0]), shown(panel), prompts, len(features), len(slot_errors)]))
    """
    table, panel, prompts, features, errors = json.loads(python(code, str(bundle)).splitlines()[-1])
    assert table == before
    assert [tuple(row) for row in panel] == seen
    assert prompts == [before[0]["prompt"]]
    assert (features, errors) == (8, 0)


def test_a_second_run_replaces_the_rows_of_the_first(one: Any, self_contained_model: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    given = {"model": str(self_contained_model), "backend": "local"}
    one.logic.classify(volume, segmentation, None, **given)
    one.logic.classify(volume, segmentation, ["oval"], **given)
    other = add_segmentation(volume)
    one.logic.classify(volume, other, None, **given)
    assert [table.GetNumberOfRows() for table in tables()] == [1, 2]


def test_the_tables_lie_beside_the_volume_in_the_hierarchy(one: Any, self_contained_model: Path) -> None:
    volume = add_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, volume)
    segmentation = add_segmentation(volume)
    one.logic.classify(volume, segmentation, ["oval"], str(self_contained_model), backend="local")
    for node in (*tables(), *tables("features")):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


# --- beside the panel -----------------------------------------------------------------------------------------------


def test_opening_the_module_imports_nothing_heavy() -> None:
    code = """
        import sys
        from Testing.slicer.harness import load_module, open_module
        from pathlib import Path
        heavy = {"torch", "transformers", "radiomics", "SimpleITK", "pydantic", "sklearn"}
        module = load_module(Path(sys.argv[1]))
        open_module(module)
        print(sorted(heavy & set(sys.modules)))
    """
    assert python(code, str(MODULE)).splitlines()[-1] == "[]"


def test_a_missing_segment_or_voxels_are_one_sentence(panel: Any) -> None:
    from RadiomicsLLMLib import SegmentedVolume

    volume = add_volume()
    segmentation = add_segmentation(volume)
    with pytest.raises(RadllmError, match="There is no segment with the ID 'gone'"):
        SegmentedVolume(volume, segmentation).lesion("gone")
    bare = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "bare")
    with pytest.raises(RadllmError, match="The volume 'bare' has no voxels"):
        SegmentedVolume(bare, segmentation).lesion("oval")
    slicer.mrmlScene.RemoveNode(volume)
    with pytest.raises(RadllmError, match="was removed from the scene"):
        SegmentedVolume(volume, segmentation).lesion("oval")
