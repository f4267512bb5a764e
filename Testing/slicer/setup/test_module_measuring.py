"""Where Slicer has no PyRadiomics, as on macOS: one sentence, or the same values from another Python."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from radllm_backend import Lesion, RadllmError, extract
from Testing.slicer.module_scene import (
    MASKS,
    PICTURE,
    add_segmentation,
    add_volume,
    begin,
    classify,
    finish,
    probabilities,
    slicer,
    wait_until,
)
from Testing.support.nodules import ball

from RadiomicsLLMLib.backend import Measurer as measuring
from RadiomicsLLMLib.backend.BackendPython import GivenPython
from RadiomicsLLMLib.backend.Measurer import Measurer


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measurer]:
    """Slicer has no PyRadiomics, and this Python, in a process of its own, has."""
    monkeypatch.setattr(measuring, "isMissing", lambda module: True)
    measurer = Measurer(GivenPython(sys.executable))
    yield measurer
    measurer.close()


def plane() -> Lesion:
    image = sitk.GetImageFromArray(PICTURE.astype(np.float32) / 3)
    mask = sitk.GetImageFromArray(MASKS["oval"].astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing((0.1 / 3, 0.08))
    return Lesion.from_images(image, mask, modality="US")


def volume() -> Lesion:
    numbers = np.random.default_rng(3)
    image = sitk.GetImageFromArray(numbers.normal(size=(12, 20, 24)))
    mask = sitk.GetImageFromArray(ball((12, 20, 24), (6, 10, 12), 4).astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing((0.7, 0.9, 2.5))
        one.SetOrigin((-12.5, 1 / 3, 7))
        one.SetDirection((0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    return Lesion.from_images(image, mask, modality="CT", spacing_known=False)


@pytest.mark.parametrize(("make", "settings"), [(plane, "breast-ultrasound"), (volume, "ct")])
def test_another_python_gives_the_same_features(elsewhere: Measurer, make: Any, settings: str) -> None:
    """Every value to its last bit, and what they were measured of."""
    from radllm_backend.features.extraction import load_settings

    lesion, chosen = make(), load_settings(settings)
    assert elsewhere.extract(lesion, chosen) == extract(lesion, chosen)


def test_one_process_measures_all_and_nothing_stays(
    elsewhere: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radllm_backend.features.extraction import load_settings

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = load_settings("breast-ultrasound")
    elsewhere.extract(plane(), settings)
    process = elsewhere._process
    with pytest.raises(RadllmError, match="2D"):
        elsewhere.extract(plane(), load_settings("ct"))
    elsewhere.extract(plane(), settings)
    assert elsewhere._process is process
    assert list(tmp_path.iterdir()) == []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert elsewhere.extract(plane(), settings).values
    elsewhere.close()
    assert elsewhere._process is None


def test_cancelled_it_ends_within_a_second_and_the_next_lesion_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from radllm_backend.features.extraction import load_settings

    monkeypatch.setattr(measuring, "isMissing", lambda module: True)
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    measurer = Measurer(GivenPython(slow))
    ends: list[BaseException] = []

    def work() -> None:
        try:
            measurer.extract(plane(), load_settings("breast-ultrasound"))
        except RadllmError as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while measurer._process is None:
        time.sleep(0.01)
    began = time.monotonic()
    measurer.cancel()
    thread.join(5)
    assert time.monotonic() - began < 1
    assert str(ends[0]).startswith("The lesion was not measured: ")
    measurer.close()


@pytest.mark.parametrize(
    ("system", "words"),
    [("darwin", "There is no extension SlicerRadiomics for macOS"), ("linux", "install the extension SlicerRadiomics")],
)
def test_without_any_pyradiomics_one_sentence_says_so_before_anything_is_tried(
    panel: Any, monkeypatch: pytest.MonkeyPatch, system: str, words: str
) -> None:
    monkeypatch.setattr(measuring, "isMissing", lambda module: True)
    monkeypatch.setattr(sys, "platform", system)
    panel.logic.measurer = Measurer(GivenPython(sys.executable, measures=False))
    add_segmentation(add_volume())
    panel.enter()
    assert words in panel.ui.statusLabel.text
    assert "click “Set up backend…”" in panel.ui.statusLabel.text
    assert not panel.ui.classifyButton.enabled
    with pytest.raises(RadllmError, match=words):
        panel.logic.measurer.extract(plane(), None)


def test_the_panel_gives_the_same_probabilities(one: Any, elsewhere: Measurer) -> None:
    add_segmentation(add_volume())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "isMissing", lambda module: False)
        one.panel.refresh()
        classify(one)
    here = probabilities()
    one.logic.measurer = elsewhere
    one.panel.refresh()
    classify(one)
    assert probabilities() == here
    assert elsewhere._process is not None


# --- the server's start -------------------------------------------------------------------------------------------


def test_a_server_that_is_still_starting_is_cancelled_within_a_second(
    panel: Any, self_contained_model: Path, tmp_path: Path
) -> None:
    from Testing.slicer.module_scene import prepare

    from RadiomicsLLMLib import LocalServerBackend

    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path / 'child'}\nwait\n")
    slow.chmod(0o755)
    panel.logic.backends["local"] = LocalServerBackend(GivenPython(slow))
    prepare(panel, self_contained_model)
    add_segmentation(add_volume())
    begin(panel)
    wait_until(lambda: (tmp_path / "child").exists() and bool((tmp_path / "child").read_text()))
    began = time.monotonic()
    panel.ui.classifyButton.click()
    finish(panel)
    assert time.monotonic() - began < 1
    assert panel.ui.statusLabel.text == "Cancelled: nothing was classified."
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    wait_until(lambda: not child.exists() or ") Z " in child.read_text())  # what the launcher started is gone too
    slicer.app.processEvents()


# --- Windows ------------------------------------------------------------------------------------------------------


def test_no_program_opens_a_console_window_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would show up for every lesion, and closing it would end the program."""
    import subprocess

    from radllm_backend.server import local

    from RadiomicsLLMLib.panel import ProcessGroup

    given: list[dict[str, Any]] = []

    def started(*_command: Any, **options: Any) -> Any:
        given.append(options)
        raise FileNotFoundError(2, "No such file")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    monkeypatch.setattr(subprocess, "Popen", started)
    process = type("Process", (), {"pid": 4})()
    for start in (
        lambda: ProcessGroup.startGroup(["x"], {}),
        lambda: ProcessGroup.killGroup(process),
        lambda: local.LocalServer.start([]),
        lambda: local.end(process),
    ):
        with pytest.raises((OSError, RadllmError)):
            start()
    assert [options.get("creationflags") for options in given] == [0x08000000] * 4
    assert not any(options.get("start_new_session") for options in given)


def test_every_program_of_the_module_is_started_there() -> None:
    """In the one function that the test above looks at."""
    from Testing.slicer.module_scene import MODULE

    for path in MODULE.parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = [call for call in ("Popen(", ".run([", "check_call(", "check_output(", "os.system(") if call in text]
        assert not found or path.name == "ProcessGroup.py", (path.name, found)
