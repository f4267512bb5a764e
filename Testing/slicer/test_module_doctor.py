"""Slicer's own packages, the doctor, and that nothing is installed by itself: real widgets and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from radllm_backend import __version__
from Testing.slicer.module_setup import LONGEST_PAUSE, ROOT, FakePackages, Panel, entries, set_up_panel

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.setup.DoctorPanel import DoctorPanel, withoutUser

# --- Slicer's own packages -------------------------------------------------------------------------------------------


def test_torch_comes_first_and_from_its_extension_only(
    opened: Callable[..., Panel], asked: list[str], tmp_path: Path
) -> None:
    requirements = {"no_such_torch_user": "no-such-torch-user>=1", "json": "json"}
    packages = FakePackages()
    panel, finished = set_up_panel(opened, BackendEnvironment(tmp_path / "new"), packages, requirements)
    assert panel.text("slicerPackagesLabel") == "Slicer's own Python lacks no_such_torch_user."
    panel.click("installIntoSlicerButton")
    assert packages.calls == [["no-such-torch-user>=1"]]
    assert finished == ["finished"]

    panel.panel.require({})
    assert not panel.child("installIntoSlicerButton").visible
    assert "every package" in panel.text("slicerPackagesLabel")


@pytest.mark.parametrize("hasExtension", [True, False])
def test_without_torch_nothing_else_is_installed_before_it(
    opened: Callable[..., Panel],
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hasExtension: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    packages = FakePackages(torchInstaller=hasExtension)
    monkeypatch.setattr(packages, "python", lambda: str(tmp_path / "no-python"))
    requirements = {"torch": "torch>=2.6", "no_such": "no-such"}
    panel, finished = set_up_panel(opened, BackendEnvironment(tmp_path / "new"), packages, requirements)
    panel.click("installIntoSlicerButton")
    panel.run_until(lambda: bool(finished))
    if hasExtension:
        assert packages.calls[0] == "torch"
        assert "no-such" in packages.calls[1]
        assert "torch>=2.6" not in packages.calls[1]
        assert "base model" in asked[0]
    else:
        assert packages.calls == []
        assert "install the extension PyTorch" in panel.text("slicerPackagesLabel")


def test_slicer_s_own_functions_are_called_as_they_are_documented(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    packages = SlicerPackages()
    monkeypatch.setattr(slicer.util, "pip_install", lambda requirements: calls.append(requirements))
    assert packages.install(["one>=1"])
    assert calls == [["one>=1"]]
    assert "one>=1" in asked[0]

    def pip_ensure(requirements: list[str], requester: str) -> None:
        calls.append((requirements, requester))
        if requirements == ["declined"]:
            raise RuntimeError("User declined")

    monkeypatch.setitem(sys.modules, "slicer.packaging", types.SimpleNamespace(pip_ensure=pip_ensure))
    assert packages.install(["two"])
    assert not packages.install(["declined"])
    assert calls[1:] == [(["two"], "RadiomicsLLM"), (["declined"], "RadiomicsLLM")]
    assert len(asked) == 1  # pip_ensure asks itself

    assert not packages.canInstallTorch()
    logic = types.SimpleNamespace(installTorch=lambda askConfirmation: calls.append(askConfirmation))
    module = types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    assert not packages.installTorch()
    assert calls[-1] is True


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
    assert "transformers" in copied
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
SetupPanel(qt.QVBoxLayout(parent), environment, SlicerPackages(), {"no_such": "no-such"})
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
