"""Reports exported through clicks on the panel."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel

from Testing.slicer.harness import close_module, open_module
from Testing.slicer.module_scene import (
    MASKS,
    RadiomicsLLM,
    add_segmentation,
    add_volume,
    begin,
    choose_own_model,
    classify,
    click,
    finish,
    longest_pause,
    node_ids,
    python,
    slicer,
    wait_until,
)

pytest.importorskip("jinja2", reason="reports need jinja2")
pytest.importorskip("fpdf", reason="reports need fpdf2")

from radllm_backend import Features, Prediction

FILES = {
    "json": "prediction.json",
    "csv": "features.csv",
    "html": "report.html",
    "pdf": "report.pdf",
    "png": "key-image.png",
}


def choose(panel: Any, folder: Path | str, *formats: str) -> None:
    """A folder, and these formats alone; without any, those that are ticked stay so."""
    panel.ui.exportFolderEdit.currentPath = str(folder)
    for name in FILES if formats else ():
        box = getattr(panel.ui, f"{name}Box")
        if box.checked != (name in formats):
            box.click()


def export(panel: Any) -> str:
    """A click on “Export report”, and all that follows; what the status line says."""
    click(panel.ui.exportButton)
    finish(panel)
    return str(panel.ui.statusLabel.text)


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def in_every(lesions: list[str], formats: Any = FILES) -> list[str]:
    return sorted(f"{lesion}/{FILES[name]}" for lesion in lesions for name in formats)


# --- what is written ------------------------------------------------------------------------------------------------


def test_every_classified_segment_gets_a_folder_with_every_ticked_format(one: Any, tmp_path: Path) -> None:
    masks = {"oval": MASKS["oval"], "nothing": np.zeros_like(MASKS["oval"]), "spiculated": MASKS["spiculated"]}
    add_segmentation(add_volume(), masks)
    classify(one)
    before = node_ids()
    choose(one, tmp_path / "new" / "reports", *FILES)
    said = export(one)
    assert said == "Exported to the folder “reports”: lesion-1 (the oval), lesion-2 (the spiculated)."
    assert written(tmp_path) == [f"new/reports/{name}" for name in in_every(["lesion-1", "lesion-2"])]
    assert node_ids() == before

    results = [result for result in one.panel.results.results if result.prediction]
    for number, result in enumerate(results, 1):
        folder = tmp_path / "new" / "reports" / f"lesion-{number}"
        text = (folder / "prediction.json").read_text(encoding="utf-8")
        assert Prediction.model_validate_json(text) == result.prediction
        table = (folder / "features.csv").read_text(encoding="utf-8")
        assert table == result.features.to_csv()
        assert len(table.splitlines()) > 50  # all that was measured, not what the prompt holds alone
        assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / "key-image.png").read_bytes().startswith(b"\x89PNG")
        assert "data:image/png" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_knows_the_model_s_card_but_not_another_one_s(
    one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radllm_backend.reports import files

    cards: list[Any] = []
    monkeypatch.setattr(files, "write_reports", lambda *given, **_options: cards.append(given[4]))
    add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    classify(one)
    choose(one, tmp_path, "json")
    export(one)
    assert cards[0].name == one.panel.results.results[0].prediction.model.name
    other = {**one.logic.backends["local"].card(one.panel.models.current()), "name": "another"}
    monkeypatch.setattr(one.logic.backends["local"], "card", lambda _name: other)
    export(one)
    monkeypatch.undo()
    assert cards[1] is None


def test_a_second_export_replaces_nothing(one: Any, tmp_path: Path) -> None:
    add_segmentation(add_volume())
    classify(one)
    choose(one, tmp_path, "json")
    for taken in ("lesion-2", "Lesion-7", "lesion-x", "else"):
        (tmp_path / taken).mkdir()
    (tmp_path / "lesion-2" / "prediction.json").write_text("mine", encoding="utf-8")
    assert "lesion-8 (the oval), lesion-9 (the spiculated)" in export(one)
    assert "lesion-10 (the oval), lesion-11 (the spiculated)" in export(one)
    assert (tmp_path / "lesion-2" / "prediction.json").read_text(encoding="utf-8") == "mine"
    new = [f"lesion-{number}" for number in (8, 9, 10, 11)]
    assert written(tmp_path) == sorted([*in_every(new, ["json"]), "lesion-2/prediction.json"])


def test_nothing_that_is_written_names_anybody(one: Any, tmp_path: Path) -> None:
    volume = add_volume()
    segmentation = add_segmentation(volume)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "MARKpatient")
    study = hierarchy.CreateStudyItem(patient, "MARKstudy")
    hierarchy.CreateItem(study, volume)
    volume.SetName("MARKvolume")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.MARK")
    segmentation.SetName("MARKsegmentation")
    segmentation.GetSegmentation().GetSegment("oval").SetName("MARKsegment")
    classify(one)
    (tmp_path / "MARKfolder").mkdir()
    choose(one, tmp_path / "MARKfolder", *FILES)
    assert "MARKsegment" in export(one)
    files = [path for path in (tmp_path / "MARKfolder").rglob("*") if path.is_file()]
    assert len(files) == 2 * len(FILES)
    for path in files:
        content = path.read_bytes()
        assert b"MARK" not in content, path.name
        assert str(tmp_path).encode() not in content, path.name
        assert "MARK" not in path.relative_to(tmp_path / "MARKfolder").as_posix()
        if path.suffix == ".pdf":
            assert "MARK" not in words(path)


def words(pdf: Path) -> str:
    """What can be read on a PDF's pages: its fonts hide letters from a look at the bytes."""
    if not find_spec("pypdfium2"):
        return ""
    import pypdfium2

    return "".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf))


def test_a_result_of_an_earlier_session_can_be_exported(one: Any, tmp_path: Path) -> None:
    volume = add_volume()
    add_segmentation(volume)
    classify(one)
    expected = [result.prediction.model_dump_json(indent=2) for result in one.panel.results.results]
    slicer.mrmlScene.RemoveNode(one.logic.getParameterNode())  # as in a scene of an older version
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    code = """
        import sys
        from PySide6.QtCore import QSettings
        from Testing.slicer.module_scene import RadiomicsLLM, add_volume, click, finish
        from Testing.slicer.module_scene import open_module, slicer, slot_errors
        QSettings().clear()
        panel = open_module(RadiomicsLLM)
        add_volume()  # comes first in the list, and is not the one that was classified
        assert slicer.mrmlScene.ReadFromMRB(sys.argv[1])
        panel.ui.segmentationSelector.setCurrentNode(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0])
        slicer.util.arrayFromVolume(panel.ui.volumeSelector.currentNode())[:] = 0
        panel.ui.exportFolderEdit.currentPath = sys.argv[2]
        panel.ui.pdfBox.click()
        click(panel.ui.exportButton)
        finish(panel)
        assert slot_errors == []
        print(panel.ui.statusLabel.text)
    """
    said = python(code, str(tmp_path / "scene.mrb"), str(tmp_path / "reports")).splitlines()[-1]
    assert "lesion-1 (the oval), lesion-2 (the spiculated)" in said
    assert written(tmp_path / "reports") == in_every(["lesion-1", "lesion-2"], ["json", "csv", "html"])
    for number, text in enumerate(expected, 1):
        found = (tmp_path / "reports" / f"lesion-{number}" / "prediction.json").read_text(encoding="utf-8")
        assert json.loads(found) == json.loads(text)


# --- folder and formats ---------------------------------------------------------------------------------------------


def test_folder_and_formats_are_remembered(one: Any, tmp_path: Path) -> None:
    assert [name for name in FILES if getattr(one.ui, f"{name}Box").checked] == ["json", "csv", "html", "pdf"]
    for formats in (("csv", "png"), ("pdf",), ()):
        choose(one, tmp_path / "reports", *FILES)
        for name in set(FILES) - set(formats):
            getattr(one.ui, f"{name}Box").click()
        again = open_module(RadiomicsLLM)
        assert [name for name in FILES if getattr(again.ui, f"{name}Box").checked] == list(formats)
        assert again.ui.exportFolderEdit.currentPath == str(tmp_path / "reports")
        close_module(again)


def test_the_disabled_button_says_why(one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    button, said = one.ui.exportButton, []

    def note() -> None:
        assert not button.enabled
        said.append(button.toolTip)

    note()
    empty = np.zeros_like(MASKS["oval"])
    add_segmentation(add_volume(), {"nothing": empty})
    classify(one)
    note()
    slicer.mrmlScene.Clear()
    add_segmentation(add_volume())
    begin(one)
    note()
    finish(one)
    note()
    choose(one, "   ")
    note()
    choose(one, tmp_path)
    assert button.enabled
    assert button.toolTip.startswith("Write a report of each classified segment, without names")
    for name in FILES:
        if getattr(one.ui, f"{name}Box").checked:
            getattr(one.ui, f"{name}Box").click()
    note()
    one.ui.csvBox.click()
    assert button.enabled
    one.panel.results.clear()
    one.panel.refresh()
    note()
    assert said == [
        "There is no result yet: classify a segment first.",
        "There is no result yet: classify a segment first.",
        "Something is still going on: wait, or cancel it.",
        "Choose a folder under “Folder and formats”.",
        "Choose a folder under “Folder and formats”.",
        "Tick a format under “Folder and formats”.",
        "There is no result yet: classify a segment first.",
    ]


def test_missing_packages_are_named_and_offered(one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    classify(one)
    choose(one, tmp_path)
    monkeypatch.setitem(sys.modules, "fpdf", None)
    one.panel.refresh()
    assert not one.ui.exportButton.enabled
    assert one.ui.exportButton.toolTip == "Packages are missing: install fpdf2 under “Set up”."
    assert one.ui.setupSectionButton.findChild(QLabel, "slicerPackagesLabel").text == (
        "Slicer's own Python lacks fpdf2: the next Classify installs what is missing."
    )
    assert one.ui.classifyButton.enabled


def test_a_result_without_its_features_has_to_be_classified_again(one: Any, tmp_path: Path) -> None:
    segmentation = add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    classify(one)
    choose(one, tmp_path)
    (text,) = [node for node in slicer.util.getNodesByClass("vtkMRMLTextNode") if "predictions" in node.GetName()]
    (record,) = json.loads(text.GetText())
    assert Features.model_validate(record.pop("features")) == one.panel.results.results[0].features
    text.SetText(json.dumps([record]))
    one.ui.segmentationSelector.setCurrentNode(add_segmentation(add_volume(), {}))
    one.ui.segmentationSelector.setCurrentNode(segmentation)
    assert len(one.panel.results.results) == 1
    assert one.ui.exportButton.toolTip == "These results are of an older version of the extension: classify again."


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_one_sentence(one: Any, tmp_path: Path, place: str) -> None:
    add_segmentation(add_volume())
    classify(one)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    choose(one, tmp_path / place, "json")
    said = export(one)
    assert "choose another folder." in said
    assert str(tmp_path) not in said
    assert written(tmp_path) == ["file"]
    assert one.ui.exportButton.enabled
    assert len(one.panel.results.results) == 2


def test_what_was_changed_since_is_not_exported(one: Any, tmp_path: Path) -> None:
    volume = add_volume()
    add_segmentation(volume)
    classify(one)
    choose(one, tmp_path, "json")
    slicer.util.arrayFromVolume(volume)[0, 90, 90] += 1
    assert export(one) == "“the oval” or its volume was changed since it was classified: classify it again."
    assert written(tmp_path) == []


def test_all_lesions_are_exported_or_none(one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from radllm_backend import RadllmError
    from radllm_backend.reports import files

    write = files.write_reports

    def fail_at_the_second(folder: Path, *given: Any, **options: Any) -> None:
        if folder.name == "lesion-4":
            raise RadllmError("The disk is full: free some space.")
        write(folder, *given, **options)

    add_segmentation(add_volume())
    classify(one)
    (tmp_path / "lesion-2").mkdir()
    choose(one, tmp_path, "json")
    monkeypatch.setattr(files, "write_reports", fail_at_the_second)
    assert export(one) == "The disk is full: free some space."
    assert [path.name for path in tmp_path.iterdir()] == ["lesion-2"]
    monkeypatch.undo()


def test_cancel_leaves_nothing_behind(one: Any, tmp_path: Path) -> None:
    add_segmentation(add_volume())
    classify(one)
    choose(one, tmp_path, *FILES)
    click(one.ui.exportButton)
    wait_until(lambda: "the spiculated" in one.ui.statusLabel.text)
    assert one.ui.statusLabel.text == "Writing the report of the spiculated…"
    assert not one.ui.exportButton.enabled
    QTest.mouseClick(one.ui.classifyButton, Qt.LeftButton)
    finish(one)
    assert one.ui.statusLabel.text == "Cancelled: nothing was exported."
    assert list(tmp_path.iterdir()) == []
    assert len(one.panel.results.results) == 2


@pytest.mark.alone
def test_the_event_loop_goes_on_meanwhile(one: Any, tmp_path: Path) -> None:
    add_segmentation(add_volume())
    classify(one)
    choose(one, tmp_path, *FILES)
    pauses = [longest_pause(one, export) for _ in range(3)]
    assert min(pauses) < 0.1, pauses
    assert "lesion-6" in one.ui.statusLabel.text


def test_other_settings_of_the_panel_change_nothing_of_it(one: Any, tmp_path: Path) -> None:
    """What is exported is the result that is shown, not what the panel would classify next."""
    add_segmentation(add_volume(), {"oval": MASKS["oval"]})
    classify(one)
    one.ui.segmentsList.item(0).setCheckState(Qt.Unchecked)
    choose(one, tmp_path, "json")
    assert "lesion-1 (the oval)" in export(one)
    choose_own_model(one, tmp_path)  # the result goes
    assert not one.ui.exportButton.enabled
