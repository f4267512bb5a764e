"""Slicer's own packages, the doctor, and that nothing is installed by itself: real widgets and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from radllm_backend import __version__
from Testing.slicer.setup.module_setup import LONGEST_PAUSE, ROOT, FakePackages, Panel, entries, set_up_panel

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.Requirements import READS_HERE, Package
from RadiomicsLLMLib.setup.DoctorPanel import DoctorPanel, withoutUser

# --- Slicer's own packages -------------------------------------------------------------------------------------------


def test_the_set_up_installs_what_the_first_classify_would(
    opened: Callable[..., Panel], asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same class: here, that its button begins it, and shows what comes of it."""
    monkeypatch.setattr(Package, "isMissing", lambda self: self.name == "gguf")
    packages = FakePackages()
    monkeypatch.setattr(packages, "python", lambda: str(tmp_path / "no-python"))
    panel, finished = set_up_panel(opened, BackendEnvironment(tmp_path / "new"), packages, READS_HERE)
    assert (
        panel.text("slicerPackagesLabel")
        == "Slicer's own Python lacks gguf: the next Classify installs what is missing."
    )
    panel.click("installIntoSlicerButton")
    panel.run_until(lambda: bool(finished))
    assert "gguf 0.19.0" in asked[0]
    panel.panel.update()  # as the whole panel does when it has finished
    assert panel.text("slicerPackagesLabel").startswith("Not everything could be installed: ")
    monkeypatch.undo()
    panel.panel._installProblem = ""
    panel.panel.require(())
    assert not panel.child("installIntoSlicerButton").visible
    assert "every package" in panel.text("slicerPackagesLabel")


# --- the doctor ------------------------------------------------------------------------------------------------------


def test_the_doctor_s_report_names_no_user(
    opened: Callable[..., Panel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "ada.lovelace"
    (home / "broken").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "ada.lovelace")
    monkeypatch.setenv("LOGNAME", "ada.lovelace")
    monkeypatch.setenv("RADLLM_CACHE", str(home / "cache"))
    packages = FakePackages()
    panel = opened(lambda layout: DoctorPanel(layout, BackendEnvironment(home / "RadiomicsLLM"), packages))
    assert panel.text("doctorSummaryLabel") == "Not examined yet."
    panel.click("examineButton")
    assert panel.run_until(lambda: panel.child("examineButton").enabled) < LONGEST_PAUSE
    assert "numpy" in panel.text("doctorFindingsLabel")
    assert "transformers" not in panel.text("doctorFindingsLabel")
    panel.click("copyReportButton")
    copied = slicer.app.clipboard().text()
    for word in (__version__, "Slicer 5.12.4", "✓ numpy: ", "Local server", "not set up yet"):
        assert word in copied
    panel.panel.examine(inSlicer=True)
    panel.run_until(lambda: panel.child("examineButton").enabled)
    panel.click("copyReportButton")
    copied = slicer.app.clipboard().text()
    assert "transformers" not in copied
    assert "safetensors" in copied
    assert "ada.lovelace" not in copied
    assert str(home) not in copied
    monkeypatch.setattr(packages, "python", lambda: str(home / "no-python"))
    panel.click("examineButton")
    panel.run_until(lambda: panel.child("examineButton").enabled)
    assert panel.text("doctorSummaryLabel").endswith("each cross (1).")
    assert str(home) in panel.text("doctorFindingsLabel")
    panel.click("copyReportButton")
    copied = slicer.app.clipboard().text()
    assert "~" in copied
    assert "no-python" in copied
    assert "ada.lovelace" not in copied
    assert withoutUser("/data/ada.lovelace/x and ada.lovelaces") == "/data/USER/x and ada.lovelaces"


@pytest.mark.parametrize(("inSlicer", "begins"), [(True, "Classifying"), (False, "Measuring")])
def test_the_heading_does_not_say_that_all_works_above_what_is_not_set_up(
    opened: Callable[..., Panel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inSlicer: bool, begins: str
) -> None:
    finding = {"subject": "radllm_backend", "works": True, "required": True, "detail": "0.1.0"}
    monkeypatch.setattr("RadiomicsLLMLib.setup.DoctorPanel._findings", lambda job: [finding])
    environment = BackendEnvironment(tmp_path / "new")
    panel = opened(lambda layout: DoctorPanel(layout, environment, FakePackages()))
    panel.panel.examine(inSlicer=inSlicer)
    panel.run_until(lambda: panel.child("examineButton").enabled)
    heading = panel.text("doctorSummaryLabel")
    assert heading.startswith(f"{begins} in this Slicer works.")
    assert heading.endswith("The local server, which a batch needs too, is not set up.")
    monkeypatch.setattr(BackendEnvironment, "problem", lambda self: "")
    panel.panel._show()
    assert panel.text("doctorSummaryLabel") == "Everything that was examined works."


# --- nothing by itself -----------------------------------------------------------------------------------------------


def test_importing_and_opening_start_no_process_and_write_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from Testing.slicer import harness as slicer_harness
from Testing.slicer.harness import pythonqt
pythonqt.find_modules_below(Path(sys.argv[1]))
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.mkdir", "socket.connect"):
        raise RuntimeError(event)
sys.addaudithook(watch)
from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.panel.BackgroundSteps import BackgroundSteps, Step
from RadiomicsLLMLib.setup.DoctorPanel import DoctorPanel
from RadiomicsLLMLib.setup.SetupPanel import SetupPanel
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
import qt
parent = qt.QWidget()
environment = BackendEnvironment(sys.argv[2])
SetupPanel(qt.QVBoxLayout(parent), environment, SlicerPackages(), ["measuring"])
DoctorPanel(qt.QVBoxLayout(), environment, SlicerPackages())
print(sorted({"torch", "transformers", "pydantic", "radiomics"} & set(sys.modules)))
"""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, str(ROOT / "RadiomicsLLM"), str(tmp_path / "new")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert entries(tmp_path) == []
