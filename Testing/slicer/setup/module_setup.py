"""What the tests of setting up share: panels of their own, and a Slicer that installs nothing."""

from __future__ import annotations

import contextlib
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import shiboken6
import slicer
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from Testing.slicer.harness import load_module, slot_errors, stray_attributes

ROOT = Path(__file__).resolve().parents[3]
load_module(ROOT / "RadiomicsLLM" / "RadiomicsLLM.py")

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.setup.SetupPanel import SetupPanel

LONGEST_PAUSE = 0.3  # seconds that one turn of the event loop may take on a busy machine


class FakePackages(SlicerPackages):
    """Of a Slicer whose Python is this one, and which nobody may change."""

    def slicerVersion(self) -> str:
        return "5.12.4"

    def python(self) -> str:
        return sys.executable

    def mayAsk(self) -> bool:
        return True

    def install(self, wheels: Any, folder: Path) -> Any:
        raise AssertionError("this Python is the tests' own")


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A package of one line, which asks for another one where that is named."""
    own = f"{name}-{version}"
    content = {
        f"{name}.py": "ANSWER = 42\n",
        f"{own}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{own}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{own}.dist-info/RECORD"
    content[record] = "".join(f"{path},,\n" for path in (*content, record))
    path = folder / f"{own}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in content.items():
            wheel.writestr(inside, text)
    return path


class Panel:
    """A panel of its own, with what the tests ask it."""

    def __init__(self, make: Callable[[QVBoxLayout], Any]) -> None:
        self.parent = QWidget()
        self.panel = make(QVBoxLayout(self.parent))
        self.parent.resize(400, 600)
        self.parent.show()
        slicer.app.processEvents()

    def child(self, name: str, kind: type = QWidget) -> Any:
        return self.parent.findChild(kind, name)

    def text(self, name: str) -> str:
        return self.child(name, QLabel).text

    def click(self, name: str) -> None:
        button = self.child(name, QPushButton)
        assert button.visible
        assert button.enabled
        QTest.mouseClick(button, Qt.LeftButton)

    def run_until(self, done: Callable[[], bool], seconds: float = 120) -> float:
        """Let the event loop run; the longest turn, in seconds."""
        longest, end = 0.0, time.monotonic() + seconds
        while not done():
            began = time.monotonic()
            assert began < end, "it takes too long"
            slicer.app.processEvents()
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.005)
        slicer.app.processEvents()
        return longest


@contextlib.contextmanager
def panels() -> Iterator[Callable[..., Panel]]:
    """Makes panels. However it ends, no slot raised and no property was misspelt."""
    made: list[Panel] = []
    slot_errors.clear()

    def make(factory: Callable[[QVBoxLayout], Any]) -> Panel:
        made.append(Panel(factory))
        return made[-1]

    yield make
    errors = list(slot_errors)
    strays = [stray for panel in made for stray in stray_attributes(panel.parent)]
    slot_errors.clear()
    for panel in made:
        panel.panel.close()
        shiboken6.delete(panel.parent)
    assert errors == []
    assert strays == []


@contextlib.contextmanager
def answering(answer: bool) -> Iterator[list[str]]:
    """The questions that the user is asked meanwhile, each with the same answer."""
    questions: list[str] = []

    def confirm(text: str, *_arguments: Any, **_options: Any) -> bool:
        questions.append(text)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
        yield questions


def set_up_panel(
    opened: Callable[..., Panel],
    environment: BackendEnvironment,
    packages: SlicerPackages | None = None,
    uses: Collection[str] = (),
    wheels: Path | None = None,
) -> tuple[Panel, list[str]]:
    """The panel, and the list that grows whenever it says that it has finished."""
    finished: list[str] = []

    def make(layout: QVBoxLayout) -> SetupPanel:
        return SetupPanel(layout, environment, packages or FakePackages(), uses, lambda: finished.append("finished"))

    panel = opened(make)
    if wheels:
        panel.child("wheelFolderEdit").currentPath = str(wheels)
    return panel, finished


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
