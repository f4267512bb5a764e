"""A batch through clicks on the panel: a real DICOM database, real processes, a tiny model."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from Testing.slicer.module_scene import (
    RadiomicsLLM,
    choose_backend,
    choose_own_model,
    longest_pause,
    rows,
    slicer,
    tables,
    wait_until,
)

pytest.importorskip("highdicom", reason="the databases are written with highdicom")

from PySide6.QtWidgets import QCheckBox, QComboBox, QLineEdit, QProgressBar

from radllm_backend import RadllmError
from Testing.slicer.harness import close_module, open_module
from Testing.slicer.module_batch import (
    GONE,
    POINT,
    STUDIES,
    begin,
    button,
    child,
    do,
    double_click,
    finish,
    opened_database,
    rows_of,
    status,
    write_lesions,
)
from Testing.slicer.test_module_event_loop import LONGEST

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.BackendPython import GivenPython
from RadiomicsLLMLib.batch.BatchProcess import BatchProcess
from RadiomicsLLMLib.batch.BatchProgress import BatchProgress

pytestmark = pytest.mark.alone
LESIONS = [f"{series}: {segment}" for series, segments in STUDIES.items() if series != GONE for segment in segments]
ALL = len(LESIONS)
LEFT_OUT = "Its image is not here: add the series that it was drawn on."


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM database's folder; nothing in it is changed."""
    return write_lesions(tmp_path_factory.mktemp("batch") / "Datenbank")


@pytest.fixture
def database(archive: Path) -> Iterator[Any]:
    """Open in Slicer."""
    with opened_database(archive) as opened:
        yield opened


@pytest.fixture
def batch(database: Any, panel: Any, self_contained_model: Path) -> Any:
    """A panel that can run it: the section is unfolded, and a model is chosen."""
    choose_backend(panel, "local")
    choose_own_model(panel, self_contained_model)
    panel.ui.batchButton.click()
    slicer.app.processEvents()
    return panel


def choose_output(panel: Any, folder: Path) -> None:
    child(panel, "batchOutputEdit").currentPath = str(folder)


# --- what would run -------------------------------------------------------------------------------------------------


def test_the_list_says_what_would_run_and_what_not_and_why(batch: Any, tmp_path: Path) -> None:
    assert not child(batch, "batchTable").visible
    assert do(batch, "List") == f"{ALL} lesions would run; 1 left out."
    *runs, leftOut = rows_of(batch)
    assert runs == [(lesion, "US", "yes") for lesion in LESIONS]
    assert leftOut[0].startswith("'Läsion' (number 1) in SEG")
    assert leftOut[2] == f"no: {LEFT_OUT}"
    assert tables("batch") == []

    words = {"Description": "US*", "Segment": "S*", "After": "2024-01-02", "Before": "2024-01-02"}
    for name, word in words.items():
        child(batch, f"batch{name}Edit", QLineEdit).text = word
    assert do(batch, "List") == "1 lesion would run; 1 left out."
    assert rows_of(batch)[0] == (LESIONS[2], "US", "yes")
    child(batch, "batchModalitySelector", QComboBox).currentIndex = 3
    assert do(batch, "List") == "0 lesions would run; 1 left out."


def test_what_cannot_be_listed_is_one_sentence(batch: Any, tmp_path: Path) -> None:
    edit = child(batch, "batchDatabaseEdit")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ctkDICOM.sql").write_bytes(b"SQLite format 3\0 but not for long" * 100)
    for folder, words in (("nowhere", "nowhere holds no ctkDICOM.sql"), ("broken", "ctkDICOM.sql is damaged")):
        edit.currentPath = str(tmp_path / folder)
        said = do(batch, "List")
        assert said.startswith(words)
        assert said.endswith(".")
        assert not child(batch, "batchTable").visible
        assert button(batch, "List").enabled
    batch.panel.batch.refresh()  # another database than Slicer's was chosen, and stays so
    assert edit.currentPath == str(tmp_path / "broken")
    edit.currentPath = ""
    batch.panel.batch.refresh()
    assert edit.currentPath == slicer.dicomDatabase.databaseDirectory


# --- running --------------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled_and_goes_on_where_it_was_while_the_event_loop_stays_free(
    batch: Any, tmp_path: Path, self_contained_model: Path
) -> None:
    output = tmp_path / "results"
    choose_output(batch, output)
    said: set[str] = set()

    def run_and_cancel(panel: Any) -> None:
        begin(panel, "Run")
        assert not button(panel, "Run").enabled
        assert "going on" in button(panel, "Run").toolTip
        assert button(panel, "Cancel").visible
        wait_until(lambda: said.add(status(panel)) or child(panel, "batchProgressBar", QProgressBar).value > 0)
        begin(panel, "Cancel")
        assert status(panel) == "Cancelling…"
        finish(panel)

    pauses = [longest_pause(batch, run_and_cancel)]
    assert "Starting…" in said
    assert any(word.startswith("Classified ") and f" of {ALL}" in word for word in said)
    kept = len(rows_of(batch))
    assert 1 <= kept < ALL
    assert status(batch) == f"Stopped with {kept} of {ALL} lesions kept: “Run” goes on from there."
    assert len(rows(tables("batch")[0])) == kept
    assert batch.panel.batch.processId is None

    pauses.append(longest_pause(batch, lambda panel: do(panel, "Run")))
    assert min(pauses) < LONGEST, pauses
    with sqlite3.connect(output / "results.sqlite") as connection:
        failed = connection.execute("SELECT COUNT(*) FROM results WHERE status = 'failed'").fetchone()[0]
    assert failed == 1
    summary = status(batch)
    assert summary.startswith(f"{ALL} lesions: ")
    assert f"{kept} kept from before; 1 left out." in summary
    assert not button(batch, "Cancel").visible
    check_results(batch)


def check_results(panel: Any) -> None:
    (node,) = tables("batch")
    found = rows(node)
    assert sorted(f"{row['series']}: {row['segment']}" for row in found) == sorted(LESIONS)
    shownRows = {lesion: (probability, outcome) for lesion, probability, outcome in rows_of(panel)}
    for row in found:
        lesion = f"{row['series']}: {row['segment']}"
        if row["segment"] == POINT:
            assert row["probability"] == row["call"] == ""
            assert row["reason"].endswith(".")
            assert shownRows[lesion] == ("", row["reason"])
        else:
            assert 0 < float(row["probability"]) < 1
            assert shownRows[lesion][1] == row["call"] + (" ⚠" if row["cautions"] else "")
            assert row["reason"] == ""


def test_a_model_or_a_folder_that_is_not_there_is_one_sentence(batch: Any, tmp_path: Path) -> None:
    choose_output(batch, tmp_path / "no" / "folder")
    assert "does not exist" in do(batch, "Run")
    choose_output(batch, tmp_path)
    choose_own_model(batch, tmp_path / "gone")
    assert do(batch, "Run").startswith("There is no model ")
    assert tables("batch") == []


def test_the_process_ends_with_the_panel_and_with_slicer(
    batch: Any, archive: Path, backend_python: str, self_contained_model: Path, tmp_path: Path
) -> None:
    begin(batch, "List")
    process = batch.panel.batch._process
    batch.panel.batch.close()
    assert not process.isRunning()
    batch.panel.batch.update()
    # Loading the model and starting workers takes long enough for it to see that nobody is there.
    job = [f"--dicom-database={archive}", f"--model={self_contained_model}", f"--output={tmp_path / 'out'}"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts Slicer in the background
    try:
        alone = BatchProcess(GivenPython(backend_python), job)
    finally:
        signal.signal(signal.SIGINT, before)
    alone._process.stdin.close()  # what the system does when Slicer is gone
    wait_until(lambda: not alone.isRunning())
    assert alone.events(1) == []
    assert alone.problem().endswith(".")
    alone.close()


def test_a_python_that_is_gone_is_one_sentence(batch: Any, tmp_path: Path) -> None:
    batch.logic.backends["local"]._python, before = (
        GivenPython(tmp_path / "python"),
        batch.logic.backends["local"]._python,
    )
    try:
        begin(batch, "List")
    finally:
        batch.logic.backends["local"]._python = before
    assert status(batch).endswith("cannot be started (No such file or directory): set up the backend again.")
    assert button(batch, "List").enabled


def test_failed_lesions_are_tried_again_on_demand(batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def start(_python: object, arguments: list[str]) -> None:
        given[:] = arguments
        raise RadllmError("Not here.")

    monkeypatch.setattr("RadiomicsLLMLib.batch.BatchPanel.BatchProcess", start)
    choose_output(batch, tmp_path)
    for box, expected in ((False, False), (True, True)):
        child(batch, "batchRetryBox", QCheckBox).checked = box
        assert do(batch, "Run") == "Not here."
        assert ("--retry" in given) is expected


def test_an_environment_of_slicer_s_python_finds_slicer_s_pyradiomics(tmp_path: Path) -> None:
    """No wheels of it are there to be installed; everything else is the environment's own."""
    tell = (
        "import json, importlib.util as u; print(json.dumps({'event': 'found', 'it': bool(u.find_spec('radiomics'))}))"
    )
    (tmp_path / "radllm_backend").mkdir()
    (tmp_path / "radllm_backend" / "cli").mkdir()
    (tmp_path / "radllm_backend" / "cli" / "__init__.py").touch()
    (tmp_path / "radllm_backend" / "cli" / "main.py").write_text(f"def main():\n    {tell}\n")
    bare = GivenPython(sys._base_executable)
    bare.variables = lambda inherited: {**inherited, "PYTHONPATH": str(tmp_path)}
    for isSlicers, expected in ((True, True), (False, False)):
        bare.isSlicers = isSlicers
        process = BatchProcess(bare, [])
        wait_until(lambda process=process: not process.isRunning())
        assert process.events(9) == [{"event": "found", "it": expected}], process.problem()
        process.close()


def test_the_progress_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.0, 130.0, 700.0])
    monkeypatch.setattr("RadiomicsLLMLib.batch.BatchProgress.time.monotonic", lambda: next(now))
    progress = BatchProgress()
    assert progress.sentence() == "Starting…"
    progress.add({"settled": 64, "total": 1000, "status": "done"})
    assert progress.sentence() == "Classified 64 of 1000…"
    progress.add({"settled": 94, "total": 1000, "status": "failed"})
    assert progress.sentence() == "Classified 94 of 1000, 1 failed, 60 a minute, 15 minutes left…"
    assert progress.fraction == pytest.approx(0.094)


# --- what is disabled says why --------------------------------------------------------------------------------------


def test_what_is_disabled_says_why(batch: Any, tmp_path: Path) -> None:
    listing, run = button(batch, "List"), button(batch, "Run")
    assert listing.enabled
    assert (run.enabled, run.toolTip) == (False, "Choose a folder for the results.")
    choose_output(batch, tmp_path)
    assert run.enabled
    choose_own_model(batch, "")
    assert listing.enabled
    assert not run.enabled
    assert run.toolTip.startswith("Choose a model under “Model”")
    choose_own_model(batch, tmp_path)
    choose_backend(batch, "remote")
    assert "on this computer" in run.toolTip
    choose_backend(batch, "local")
    assert run.enabled

    slicer.dicomDatabase.isOpen = False
    child(batch, "batchDatabaseEdit").currentPath = ""
    batch.enter()
    for each in (listing, run):
        assert (each.enabled, each.toolTip) == (
            False,
            "Open a DICOM database in Slicer's module DICOM, or choose the folder of one.",
        )
    slicer.dicomDatabase.isOpen = True
    batch.enter()
    assert run.enabled


def test_without_a_backend_nothing_runs(batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = BackendEnvironment(tmp_path / "none")
    monkeypatch.setattr(batch.logic.backends["local"], "_python", environment)
    batch.enter()
    assert not button(batch, "List").enabled
    assert button(batch, "List").toolTip == environment.problem()


def test_the_folder_and_the_filters_are_remembered(batch: Any, tmp_path: Path) -> None:
    words = {"Description": "breast", "Segment": "mass*", "After": "2024-01-01", "Before": "2024-12-31"}
    for name, word in words.items():
        child(batch, f"batch{name}Edit", QLineEdit).text = word
    child(batch, "batchModalitySelector", QComboBox).currentIndex = 2
    choose_output(batch, tmp_path)
    other = open_module(RadiomicsLLM)
    try:
        for name, word in words.items():
            assert child(other, f"batch{name}Edit", QLineEdit).text == word
        assert child(other, "batchModalitySelector", QComboBox).currentText == "US"
        assert child(other, "batchOutputEdit").currentPath == str(tmp_path)
    finally:
        close_module(other)


# --- a row is opened ------------------------------------------------------------------------------------------------


def test_a_double_click_loads_the_series_and_its_segment_once(batch: Any) -> None:
    do(batch, "List")
    double_click(batch, 2)
    volume, segmentation = (getattr(batch.ui, f"{name}Selector").currentNode() for name in ("volume", "segmentation"))
    assert volume.GetName() == "US rechts"
    names = [segmentation.GetSegmentation().GetNthSegment(index).GetName() for index in range(2)]
    assert names == ["Läsion", POINT]
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActiveVolumeID() == volume.GetID()
    double_click(batch, 1)  # of the same series
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    double_click(batch, 0)
    assert batch.ui.volumeSelector.currentNode().GetName() == "US links"


def test_what_cannot_be_loaded_is_one_sentence(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    do(batch, "List")
    double_click(batch, ALL)
    assert status(batch).endswith("was left out: there is nothing to load.")
    slicer.dicomDatabase.plugins = set()
    double_click(batch, 0)  # Slicer 5.12 has what reads it
    assert status(batch) == "Slicer could not load the SEG of US links: Läsion: Slicer's error log says why."
    monkeypatch.delitem(slicer.modules.dicomPlugins, "DICOMSegmentationPlugin")
    double_click(batch, 0)
    assert status(batch) == "Slicer loads no SEG yet: install the extension QuantitativeReporting."
    slicer.dicomDatabase._files = {}
    slicer.dicomDatabase._series = {}
    double_click(batch, 1)
    assert status(batch) == "US rechts: Läsion is not in Slicer's open DICOM database."
    assert batch.ui.segmentationSelector.currentNode() is None
