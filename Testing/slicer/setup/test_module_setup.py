"""Setting up and removing the local server's environment: real widgets, environments, wheels and processes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
slicer = pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from PySide6.QtWidgets import QProgressBar

from radllm_backend import RadllmError, __version__
from Testing.slicer.setup.module_setup import (
    LONGEST_PAUSE,
    ROOT,
    FakePackages,
    Panel,
    answering,
    entries,
    panels,
    set_up_panel,
    write_wheel,
)

from RadiomicsLLMLib.backend.BackendEnvironment import (
    CONSTRAINTS,
    BackendEnvironment,
    describing,
    readRequirements,
)
from RadiomicsLLMLib.backend.BackendPython import environmentFolder, programCode
from RadiomicsLLMLib.backend.SlicerPackages import SlicerPackages
from RadiomicsLLMLib.panel.BackgroundSteps import BackgroundSteps, Step
from RadiomicsLLMLib.setup.DoctorPanel import DoctorPanel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels, as in a hospital without a network, that holds one package of one line."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "tinypack", "1.0")
    return folder


@dataclass
class SettingUp:
    """What was seen while an environment was set up from the folder of wheels."""

    environment: BackendEnvironment
    question: str = ""
    sentences: set[str] = field(default_factory=set)
    progress: list[int] = field(default_factory=list)
    longestPause: float = 0
    atTheEnd: str = ""
    log: str = ""

    def copy(self, folder: Path) -> BackendEnvironment:
        """The same in a folder that a test may change."""
        shutil.copytree(self.environment.folder, folder, symlinks=True)
        return BackendEnvironment(folder, self.environment.requirements)


@pytest.fixture(scope="module")
def setting_up(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> SettingUp:
    """Through clicks on the panel, where there was nothing before."""
    environment = BackendEnvironment(tmp_path_factory.mktemp("user") / "settings" / "RadiomicsLLM", ["tinypack"])
    seen = SettingUp(environment)
    with panels() as make, answering(True) as questions:
        panel, finished = set_up_panel(make, environment, wheels=wheels)
        assert panel.text("setupStateLabel") == environment.problem()
        assert "not set up yet" in environment.problem()
        panel.click("setupButton")
        (seen.question,) = questions
        assert not panel.child("setupButton").enabled
        assert panel.child("setupProgressBar", QProgressBar).visible

        def is_done() -> bool:
            seen.sentences.add(panel.text("setupStateLabel"))
            seen.progress.append(panel.child("setupProgressBar", QProgressBar).value)
            return bool(finished)

        seen.longestPause = panel.run_until(is_done)
        seen.atTheEnd = panel.text("setupStateLabel")
        seen.log = panel.child("setupLog").plainText
        assert not panel.child("setupProgressBar", QProgressBar).visible
        assert panel.child("removeDownloadsButton").visible
    return seen


# --- making, replacing and removing the environment ------------------------------------------------------------------


def test_setting_up_asks_first_and_says_what_it_does(setting_up: SettingUp, wheels: Path) -> None:
    assert str(setting_up.environment.folder) in setting_up.question
    assert str(wheels) in setting_up.question
    assert "Nothing is downloaded" in setting_up.question
    assert {"Downloading and installing the packages…", "Fetching the base model…"} <= setting_up.sentences
    assert setting_up.progress == sorted(setting_up.progress)
    assert len(set(setting_up.progress)) > 3
    assert setting_up.longestPause < LONGEST_PAUSE
    # The one package that was installed cannot fetch a base model: that is told, and spoils nothing.
    assert setting_up.atTheEnd.startswith("The local server is set up")
    assert "Fetching the base model failed" in setting_up.atTheEnd
    assert "Successfully installed tinypack-1.0" in setting_up.log


def test_the_environment_has_the_packages_and_the_backend(setting_up: SettingUp) -> None:
    environment = setting_up.environment
    assert environment.isReady()
    code = "import tinypack, radllm_backend; print(tinypack.ANSWER, radllm_backend.__version__, tinypack.__file__)"
    variables = environment.variables(os.environ)
    command = [environment.python, *programCode(environment, code)]
    told = subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.split()
    (folder,), _last = environment.paths()
    assert told == ["42", __version__, f"{folder}/tinypack.py"]
    assert environment.isSlicers
    assert environment.python == Path(sys.executable)
    assert environment.bytes == pytest.approx(environment.size(), rel=0.2)


def test_when_pip_fails_there_is_one_sentence_and_all_is_as_before(
    opened: Callable[..., Panel], asked: list[str], setting_up: SettingUp, wheels: Path, tmp_path: Path
) -> None:
    environment = setting_up.copy(tmp_path / "copy")
    before = environment.paths()
    environment.requirements = ["tinypack", "no-such-package"]
    assert "other packages than it needs" in environment.problem()
    panel, finished = set_up_panel(opened, environment, wheels=wheels)
    panel.click("setupButton")
    panel.run_until(lambda: bool(finished))
    assert panel.text("setupStateLabel") == (
        "Downloading and installing the packages failed: No matching distribution found for no-such-package. "
        "The log has the details."
    )
    assert "Could not find a version" in panel.child("setupLog").plainText
    assert panel.child("setupButton").enabled
    environment.requirements = ["tinypack"]
    assert environment.isReady()
    assert environment.paths() == before
    assert entries(environment.folder) == ["made-by-RadiomicsLLM.txt", Path(before[0][0]).name, "packages.json"]


def test_only_the_base_model_is_fetched_again(
    opened: Callable[..., Panel], asked: list[str], setting_up: SettingUp, tmp_path: Path
) -> None:
    environment = setting_up.copy(tmp_path / "copy")
    panel, finished = set_up_panel(opened, environment)
    panel.click("setupButton")
    panel.run_until(lambda: bool(finished))
    assert "base model" in asked[0]
    assert "Downloading and installing" not in panel.child("setupLog").plainText
    assert panel.child("setupLog").plainText.startswith("# Fetching the base model")
    assert environment.isReady()


def test_remove_downloads_leaves_what_is_not_its_own(
    opened: Callable[..., Panel], asked: list[str], setting_up: SettingUp, tmp_path: Path
) -> None:
    environment = setting_up.copy(tmp_path / "copy")
    (environment.folder / "notes.txt").write_text("the user's own")
    (environment.folder / "t").mkdir()
    panel, finished = set_up_panel(opened, environment)
    panel.click("removeDownloadsButton")
    assert str(environment.folder) in asked[0]
    panel.run_until(lambda: bool(finished))
    assert entries(environment.folder) == ["notes.txt"]
    assert panel.text("setupStateLabel") == environment.problem()
    assert "not set up yet" in environment.problem()


def test_nothing_happens_unless_the_user_agrees(opened: Callable[..., Panel], tmp_path: Path) -> None:
    environment = BackendEnvironment(tmp_path / "new", ["tinypack"])
    panel, finished = set_up_panel(opened, environment)
    with answering(False) as questions:
        panel.click("setupButton")
        slicer.app.processEvents()
    assert "GB of packages are downloaded" in questions[0]
    assert str(environment.folder) in questions[0]
    assert entries(tmp_path) == []
    environment.claim()
    panel.panel.update()
    with answering(False):
        panel.click("removeDownloadsButton")
        slicer.app.processEvents()
    assert environment.folder.is_dir()
    assert finished == []


def test_a_python_that_is_none_is_one_sentence(
    opened: Callable[..., Panel], asked: list[str], wheels: Path, tmp_path: Path
) -> None:
    environment = BackendEnvironment(tmp_path / "new", ["tinypack"])
    panel, finished = set_up_panel(opened, environment, wheels=wheels)
    panel.child("basePythonEdit").currentPath = str(tmp_path / "no-python")
    panel.click("setupButton")
    panel.run_until(lambda: bool(finished))
    assert panel.text("setupStateLabel").startswith("Looking at the chosen Python failed: ")
    assert "No such file" in panel.text("setupStateLabel")
    assert not environment.folder.exists()


def test_cancelled_in_the_middle_it_leaves_nothing_and_no_process(
    opened: Callable[..., Panel], asked: list[str], tmp_path: Path
) -> None:
    """pip is at work on a package whose build takes a minute, in a process that pip started."""
    sign = tmp_path / "build-process.txt"
    source = tmp_path / "slowpack-1.0"
    source.mkdir()
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: slowpack\nVersion: 1.0\n")
    build = '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'
    (source / "pyproject.toml").write_text(build)
    (source / "slow.py").write_text(
        f"import os, time\nfrom pathlib import Path\nPath({str(sign)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    (tmp_path / "wheels").mkdir()
    with tarfile.open(tmp_path / "wheels" / "slowpack-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)

    environment = BackendEnvironment(tmp_path / "new", ["slowpack"])
    panel, finished = set_up_panel(opened, environment, wheels=tmp_path / "wheels")
    panel.click("setupButton")
    panel.run_until(lambda: sign.exists() and bool(sign.read_text()))
    assert "t" in entries(environment.folder)
    assert not environment.isReady()
    panel.click("setupCancelButton")
    assert panel.run_until(lambda: bool(finished), 20) < LONGEST_PAUSE
    assert not environment.folder.exists()
    assert panel.text("setupStateLabel") == environment.problem()
    panel.run_until(lambda: not is_alive(int(sign.read_text())), 10)


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    if sys.platform == "linux":
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(process)], capture_output=True).returncode == 0


@pytest.mark.parametrize("step", ["remove", "claim"])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, step: str) -> None:
    (tmp_path / "p-0a1b").mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    environment = BackendEnvironment(tmp_path, ["tinypack"])
    environment.discardUnfinished()
    with pytest.raises(RadllmError, match=r"was not made by RadiomicsLLM|holds other files"):
        getattr(environment, step)()
    assert entries(tmp_path) == ["p-0a1b", "precious.txt"]


def test_setting_up_in_a_foreign_folder_is_refused(
    opened: Callable[..., Panel], asked: list[str], wheels: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    panel, finished = set_up_panel(opened, BackendEnvironment(tmp_path, ["tinypack"]), wheels=wheels)
    panel.click("setupButton")
    panel.run_until(lambda: bool(finished))
    assert "holds other files" in panel.text("setupStateLabel")
    panel.click("removeDownloadsButton")
    panel.run_until(lambda: len(finished) == 2)
    assert "was not made by RadiomicsLLM" in panel.text("setupStateLabel")
    assert entries(tmp_path) == ["precious.txt"]


def accepted(folder: Path, base: str = "") -> BackendEnvironment:
    """As if packages had been installed."""
    environment = BackendEnvironment(folder, ["tinypack"])
    environment.claim()
    packages = environment.newPackages()
    packages.mkdir()
    subprocess.run([sys.executable, "-c", describing(packages)], check=True)
    environment.accept(packages, base, measures=False)
    return environment


def test_the_stamp_tells_when_to_set_up_again(tmp_path: Path) -> None:
    environment = accepted(tmp_path / "new")
    assert environment.problem() == ""
    stamp = environment.folder / "packages.json"
    sound = json.loads(stamp.read_text())
    for changed, word in (
        ({"requirements": []}, "other packages"),
        ({"interpreter": [[3, 9], "linux-x86_64"]}, "another Python"),
        ({"interpreter": [sound["interpreter"][0], "win-amd64"]}, "another Python"),
        ({"base": str(tmp_path / "removed")}, "moved or removed"),
        ({"packages": "../../elsewhere"}, "not set up"),
        ({"packages": "p-0000"}, "moved or removed"),
        ({"base": 3}, "not set up"),
    ):
        stamp.write_text(json.dumps({**sound, **changed}))
        assert word in environment.problem(), changed
        assert not environment.isReady()
    stamp.write_text("{")
    assert "not set up" in environment.problem()


@pytest.mark.parametrize("moved", ["Slicer", "the extension", "the version"])
def test_an_update_that_changes_no_package_needs_no_new_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """Slicer and the extension lie elsewhere after an update."""
    environment = accepted(tmp_path / "new")
    if moved == "Slicer":
        monkeypatch.setattr(SlicerPackages, "python", lambda self: "/elsewhere/bin/PythonSlicer")
        assert environment.python == Path("/elsewhere/bin/PythonSlicer")
    elif moved == "the extension":
        monkeypatch.setattr("radllm_backend.__file__", str(tmp_path / "elsewhere" / "radllm_backend" / "__init__.py"))
        assert environment.paths()[1] == [str(tmp_path / "elsewhere")]
    else:
        monkeypatch.setattr("radllm_backend.__version__", "9.9")
    assert environment.problem() == ""


def test_only_slicer_s_own_python_keeps_what_its_launcher_sets(tmp_path: Path) -> None:
    given = {"PYTHONHOME": "/slicer/lib/Python", "PYTHONPATH": "/slicer/bin", "PATH": "x"}
    assert accepted(tmp_path / "own").variables(given) == {**given, "PYTHONNOUSERSITE": "1"}
    other = accepted(tmp_path / "other", sys.executable)
    assert other.variables(given) == {"PATH": "x", "PYTHONNOUSERSITE": "1"}


def test_on_windows_every_file_has_a_path_that_windows_can_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a user with a long name, pip's temporary folder for ``--target``, and each package's longest path.

    ``longest-paths.csv`` was measured in the wheels for Windows, with the compiled files that pip adds.
    """
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", f"C:\\Users\\{'n' * 30}\\AppData\\Local")
    folder = len(str(environmentFolder()))
    temporary = len("/t/pip-target-abcdefgh/lib/python/")
    with (Path(__file__).parent / "longest-paths.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert len(row["path"]) == int(row["characters"])
        assert folder + temporary + len(row["path"]) < 260, row
    measured = {f"{row['package']}=={row['version']}" for row in rows}
    pinned = {re.sub(r"[-_.]+(?=.*==)", "-", line).lower() for line in readRequirements(CONSTRAINTS)}
    assert pinned - measured == set()


def test_the_progress_stays_within_its_step_and_the_log_within_bounds() -> None:
    talk = "for number in range(3000): print('line', number)"
    listen = "import sys; print('ready', flush=True); sys.stdin.read(); import time; time.sleep(0.5)"
    steps = [
        Step("Talking", [sys.executable, "-c", talk], expectedLines=10),
        Step("Failing", [sys.executable, "-c", "import sys; sys.exit('ERROR: it cannot be')"], optional=True),
        Step("Waiting", [sys.executable, "-c", listen], share=2),
    ]
    job = BackgroundSteps(steps, os.environ)
    job.start()
    fractions = []
    while not job.wait(0.005):
        fractions.append((job.sentence, job.fraction))
    assert max(fraction for sentence, fraction in fractions if sentence == "Talking") <= 0.25
    assert 0.5 <= fractions[-1][1] < 1
    assert job.fraction == pytest.approx(1)
    assert job.problem == ""
    assert job.note == "Failing failed: it cannot be."
    assert job.lineCount > 3000
    assert len(job.log) == 2000
    assert job.log[-2:] == ["# Waiting", "ready"]


def test_the_doctor_says_what_cannot_be_imported(opened: Callable[..., Panel], setting_up: SettingUp) -> None:
    panel = opened(lambda layout: DoctorPanel(layout, setting_up.environment, FakePackages()))
    panel.click("examineButton")
    panel.run_until(lambda: panel.child("examineButton").enabled)
    findings = panel.text("doctorFindingsLabel")
    server = findings[findings.index("Local server") :]
    assert "→  click “Set up backend…”, or “Remove downloads” first" in server
    assert "Not everything works" in panel.text("doctorSummaryLabel")


def test_what_the_server_and_a_batch_need_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    reading = {"gguf>=0.17", "safetensors>=0.5", "tokenizers>=0.22"}
    wanted = {*project["dependencies"], *extras["server"], *extras["batch"], *reading}
    assert set(BackendEnvironment("unused").requirements) == wanted
    tested = set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert set(readRequirements(CONSTRAINTS)) <= tested
    assert not any(line.startswith(("torch", "transformers", "accelerate")) for line in readRequirements(CONSTRAINTS))
