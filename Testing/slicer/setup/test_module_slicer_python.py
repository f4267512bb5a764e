"""The local server on a Python laid out as Slicer lays it out, set up from the machine's own package registry."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from Testing.slicer.harness.slicer_python import slicer_python
from Testing.support.servers import lesions

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.LocalServerBackend import LocalServerBackend
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.setup.EnvironmentSetup import EnvironmentSetup

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """PythonSlicer, as the module finds it."""
    launcher = slicer_python(tmp_path_factory.mktemp("slicer"), sys.executable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlicerPackages, "python", lambda self: str(launcher))
        patch.delenv("PYTHONPATH", raising=False)
        yield launcher


def test_slicer_s_python_is_as_slicer_s(launcher: Path, tmp_path: Path) -> None:
    """What the module relies on, and what it must not rely on."""
    home = launcher.parents[1] / "lib" / "Python"
    told = subprocess.run([launcher, "-c", "import sys; print(sys.prefix)"], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == str(home)
    code = "import os; print(os.__file__)"  # it may find a library of the system's, and mix the two
    bare = subprocess.run([launcher.with_name("python-real"), "-c", code], capture_output=True, text=True, env={})
    assert bare.returncode != 0 or not Path(bare.stdout.strip()).is_relative_to(launcher.parents[1])
    venv = subprocess.run([launcher, "-m", "venv", tmp_path / "venv"], capture_output=True, text=True)
    assert "ensurepip" in venv.stdout + venv.stderr
    assert venv.returncode != 0


def test_the_whole_set_up_runs_to_a_served_answer(launcher: Path, self_contained_model: Path, tmp_path: Path) -> None:
    environment = BackendEnvironment(tmp_path / "RadLLM")
    setup = EnvironmentSetup(environment, str(launcher), os.environ, isSlicers=True)
    setup.start()
    assert setup.wait(580), setup.sentence
    assert setup.problem == ""
    assert environment.problem() == ""
    assert environment.isSlicers
    assert environment.bytes < 1_050_000_000

    server = LocalServerBackend(environment)
    try:
        model = server.model(str(self_contained_model))
        assert 0 < model.predict(lesions(self_contained_model, 1)[0]).probability < 1
    finally:
        server.close()
    until = time.monotonic() + 20
    while processes(environment.folder):  # the interpreter too, and not only its launcher
        assert time.monotonic() < until
        time.sleep(0.1)


def processes(folder: Path) -> list[str]:
    """The processes that were told of a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in command and str(os.getpid()) != path.parent.name:
            found.append(command.decode(errors="replace"))
    return found
