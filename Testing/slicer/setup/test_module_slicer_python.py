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

from radllm_backend import RadllmError
from Testing.slicer.harness.slicer_python import site_packages, slicer_python
from Testing.slicer.setup.module_setup import ROOT
from Testing.support.servers import lesions

from RadiomicsLLMLib.backend.BackendEnvironment import BackendEnvironment
from RadiomicsLLMLib.backend.FirstUse import BASE_MODEL, FirstUse
from RadiomicsLLMLib.backend.LocalServerBackend import LocalServerBackend
from RadiomicsLLMLib.backend.Requirements import READS_HERE, Package
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.panel.Background import runHere
from RadiomicsLLMLib.setup.EnvironmentSetup import EnvironmentSetup

pytestmark = pytest.mark.alone
SLICERS_OWN = ("numpy==2.4.6", "packaging==26.2", "pydicom==3.0.2", "requests", "scipy==1.17.1", "simpleitk==2.5.5")


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
    bare = subprocess.run([launcher.with_name("python-real"), "-c", ""], capture_output=True, env={"PATH": ""})
    assert bare.returncode != 0
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
    except RadllmError as error:
        if "torch" not in str(error):
            raise
        pytest.skip("reading a model still needs torch here")
    finally:
        server.close()
    until = time.monotonic() + 20
    while processes(environment.folder):  # the interpreter too, and not only its launcher
        assert time.monotonic() < until
        time.sleep(0.1)


def test_in_this_slicer_the_first_use_ends_with_a_probability(
    launcher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """From Slicer's own packages, through the one question, to a prediction by a shipped model."""
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(SlicerPackages, "mayAsk", lambda self: True)
    monkeypatch.setattr(SlicerPackages, "isImported", lambda self, module: False)
    pip = [launcher, "-m", "pip", "install", "-q", "--no-cache-dir", *SLICERS_OWN]
    subprocess.run(pip, check=True, capture_output=True)
    site = site_packages(launcher)
    monkeypatch.setattr(
        Package, "isMissing", lambda self: not list(site.glob(f"{self.name.replace('-', '_')}-*.dist-info"))
    )
    try:
        runHere(FirstUse(SlicerPackages()).steps(READS_HERE, BASE_MODEL))
    except RadllmError as error:
        if "torch" not in str(error):
            raise
        pytest.skip("fetching a base model still needs torch here")
    assert len(asked) == 1
    (features,) = lesions("breast-us", 1)
    code = (
        "import sys; from radllm_backend import Features, Model; "
        "features = Features.model_validate_json(sys.stdin.read()); "
        "print(Model.load('breast-us').predict(features).probability, 'torch' in sys.modules)"
    )
    told = subprocess.run(
        [launcher, "-c", code],
        input=features.model_dump_json(),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if "No module named 'torch'" in told.stderr:
        pytest.skip("reading a model still needs torch here")
    assert told.returncode == 0, told.stderr
    probability, hasTorch = told.stdout.split()
    assert 0 < float(probability) < 1
    assert hasTorch == "False"


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
