"""Setting up the backend, and removing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping

import ctk
import qt
import slicer.util
from slicer.i18n import tr as _

from ..backend.BackendEnvironment import BackendEnvironment
from ..backend.Requirements import isMissing
from ..backend.SlicerPackages import SlicerPackages
from ..panel.BackgroundSteps import BackgroundSteps, Step
from ..panel.PanelWidgets import makeButton, makeFolded, makeLabel, makePathEdit, makeRow
from .EnvironmentSetup import EnvironmentSetup

_INTERVAL = 100  # milliseconds between two looks at what runs
CONVERTERS = {"accelerate": "accelerate>=1.15", "gguf": "gguf>=0.17"}
"""What fetching a base model needs, by import name."""
_PULL = (
    "import sys; from radllm_backend.language.base_models import pull; "
    "pull('smollm2-135m-instruct', wheelhouse=__import__('pathlib').Path(sys.argv[1]) if sys.argv[1] else None, "
    "progress=lambda sentence, done: print(sentence))"
)


class SetupPanel:
    """Fills a layout with the state of the local server's environment and of Slicer's own packages, and with what
    changes them. Nothing is ever installed or deleted without asking.
    """

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        environment: BackendEnvironment,
        packages: SlicerPackages,
        slicerRequirements: Mapping[str, str],
        finished: Callable[[], None] = lambda: None,
        starting: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            slicerRequirements: what Slicer's own Python has to have, by import name; with ``torch`` among them, the
                backend in Slicer itself, which also needs its base model.
            finished: called whenever something was installed or removed, or failed.
            starting: called before: what uses the environment has to end.
        """
        self._environment, self._packages = environment, packages
        self._finished, self._starting = finished, starting
        self._job: BackgroundSteps | None = None
        self._shownLines = 0
        self._requirements: Mapping[str, str] = {}
        self._widgets(layout)
        self._timer = qt.QTimer(self._bar)
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        self.require(slicerRequirements)

    def require(self, slicerRequirements: Mapping[str, str]) -> None:
        """Slicer's own Python shall have other packages: another backend was chosen."""
        isComplete = "torch" in slicerRequirements
        self._requirements = {**slicerRequirements, **CONVERTERS} if isComplete else slicerRequirements
        self.update()

    def update(self) -> None:
        """Look again at what is installed. Quick."""
        isRunning = self._job is not None and self._job.isRunning()
        missing = self._missing()
        self._state.text = self._sentence(isRunning)
        self._slicerState.text = self._slicerSentence(missing)
        self._bar.visible = self._cancel.visible = isRunning
        for button in (self._setUp, self._remove, self._install):
            button.enabled = not isRunning
        self._remove.visible = self._environment.folder.exists() and not isRunning
        self._install.visible = bool(missing) or self._runsInSlicer()

    def close(self) -> None:
        """Cancel what runs: the panel goes. Its timer goes with it."""
        if self._job and self._job.isRunning():
            self._job.cancel()
            self._job.wait(10)

    def _widgets(self, layout: qt.QVBoxLayout) -> None:
        self._state = makeLabel("setupStateLabel")
        self._bar = qt.QProgressBar()
        self._bar.objectName = "setupProgressBar"
        self._bar.maximum = 1000
        about = _("A private Python environment for the local server. Slicer's own packages stay as they are.")
        self._setUp = makeButton("setupButton", _("Set up backend…"), about, self._onSetUp)
        self._cancel = makeButton(
            "setupCancelButton", _("Cancel"), _("Stop, and leave nothing behind."), self._onCancel
        )
        about = _("Delete the local server's environment and its base models from this computer.")
        self._remove = makeButton("removeDownloadsButton", _("Remove downloads"), about, self._onRemove)
        self._slicerState = makeLabel("slicerPackagesLabel")
        about = _("Install what is missing in Slicer's own Python. You will be asked first.")
        self._install = makeButton("installIntoSlicerButton", _("Install into Slicer…"), about, self._onInstall)
        layout.addWidget(self._state)
        layout.addWidget(self._bar)
        layout.addLayout(makeRow(self._setUp, self._cancel, self._remove))
        layout.addWidget(self._options())
        layout.addWidget(self._logSection())
        layout.addWidget(self._slicerState)
        layout.addWidget(self._install)

    def _options(self) -> ctk.ctkCollapsibleButton:
        section = makeFolded("setupOptionsButton", _("Without a network, or with another Python"))
        about = _("A folder that holds the wheels of all packages. Empty: they are downloaded.")
        self._wheels = makePathEdit("wheelFolderEdit", ctk.ctkPathLineEdit.Dirs, about)
        about = _("The Python 3.11 or newer to make the environment with. Empty: Slicer's.")
        self._python = makePathEdit("basePythonEdit", ctk.ctkPathLineEdit.Files, about)
        form = qt.QFormLayout(section)
        form.addRow(_("Folder of wheels:"), self._wheels)
        form.addRow(_("Python:"), self._python)
        return section

    def _logSection(self) -> ctk.ctkCollapsibleButton:
        section = makeFolded("setupLogButton", _("Log"))
        self._log = qt.QPlainTextEdit()
        self._log.objectName = "setupLog"
        self._log.readOnly = True
        self._log.setMinimumHeight(160)
        qt.QVBoxLayout(section).addWidget(self._log)
        return section

    def _sentence(self, isRunning: bool) -> str:
        """The state of the local server's environment."""
        job = self._job
        if job and isRunning:
            return _("Cancelling…") if job.isCancelled else f"{job.sentence}…"
        state = self._environment.problem() or _("The local server is set up ({size} GB).").format(
            size=f"{self._environment.bytes / 1e9:.1f}"
        )
        if job and (job.problem or job.note):
            return " ".join([job.problem or f"{state} {job.note}", _("The log has the details.")])
        return state

    def _slicerSentence(self, missing: Mapping[str, str]) -> str:
        if not missing:
            return _("Slicer's own Python has every package that it needs.")
        if "torch" in missing and not self._packages.canInstallTorch():
            return _("PyTorch is missing in Slicer: install the extension PyTorch and restart Slicer.")
        return _("Slicer's own Python lacks {packages}.").format(packages=", ".join(missing))

    def _runsInSlicer(self) -> bool:
        return "torch" in self._requirements

    def _missing(self) -> dict[str, str]:
        return {name: wanted for name, wanted in self._requirements.items() if isMissing(name)}

    # --- what the buttons do ---

    def _onSetUp(self, *_arguments: object) -> None:
        if not slicer.util.confirmOkCancelDisplay(self._question(), _("Set up the local server")):
            return
        python = self._python.currentPath or self._packages.python()
        variables = self._packages.variables(python)
        self._begin(EnvironmentSetup(self._environment, python, variables, self._wheels.currentPath))

    def _question(self) -> str:
        if self._environment.isReady():
            return self._modelQuestion()
        folder = self._environment.folder
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = f"{shutil.disk_usage(existing).free / 1e9:.0f}"
        if self._wheels.currentPath:
            source = _("Nothing is downloaded: packages and base model come from {wheels}.")
            source = source.format(wheels=self._wheels.currentPath)
        elif sys.platform.startswith("linux"):
            # The registry's PyTorch for Linux comes with NVIDIA's libraries, whether there is a GPU or not.
            source = _("About 0.6 GB are downloaded, or 3 GB where PyTorch comes with GPU libraries.")
        else:
            source = _("About 0.6 GB are downloaded.")
        return _(
            "PyTorch, transformers, a web server and the base model SmolLM2-135M (Apache-2.0) will be installed for "
            "the local server in\n\n{folder}\n\n{source} They take 2 to 7 GB there, where {free} GB are free. Slicer's "
            "own packages stay as they are. “Remove downloads” deletes everything again."
        ).format(folder=folder, source=source, free=free)

    def _modelQuestion(self) -> str:
        return _(
            "The base model SmolLM2-135M (Apache-2.0) will be installed, unless it is there: 0.1 GB to download, "
            "0.6 GB on disk."
        )

    def _onCancel(self, *_arguments: object) -> None:
        if self._job:
            self._job.cancel()
        self.update()

    def _onRemove(self, *_arguments: object) -> None:
        text = _("The local server's environment and its base models will be deleted:\n\n{folder}")
        text = text.format(folder=self._environment.folder)
        if slicer.util.confirmOkCancelDisplay(text, _("Remove downloads")):
            self._begin(BackgroundSteps([Step(_("Removing"), self._environment.remove)], os.environ))

    def _onInstall(self, *_arguments: object) -> None:
        try:
            isDone = self._installTorch() and self._installPackages()
        except subprocess.CalledProcessError:
            self._slicerState.text = _("The packages could not be installed: Slicer's Python console says why.")
            return
        if isDone and self._runsInSlicer() and slicer.util.confirmOkCancelDisplay(self._modelQuestion()):
            self._begin(self._pulling())
        else:
            self.update()
            self._finished()

    def _installTorch(self) -> bool:
        """Whether there is PyTorch, or none is needed. It comes first: pip would else choose a build of its own."""
        if "torch" not in self._missing():
            return True
        return self._packages.canInstallTorch() and self._packages.installTorch()

    def _installPackages(self) -> bool:
        requirements = [wanted for name, wanted in self._missing().items() if name != "torch"]
        return not requirements or self._packages.install(requirements)

    def _pulling(self) -> BackgroundSteps:
        """The base model for Slicer's own Python, unless it is there."""
        command = [self._packages.python(), "-c", _PULL, self._wheels.currentPath]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return BackgroundSteps([Step(_("Fetching the base model"), command, expectedLines=3)], variables)

    # --- while it runs ---

    def _begin(self, job: BackgroundSteps) -> None:
        self._starting()
        self._job = job
        self._shownLines = 0
        self._log.clear()
        job.start()
        self._timer.start()
        self.update()

    def _look(self) -> None:
        assert self._job is not None
        # Slicer lets other threads run while Python waits, and hardly otherwise.
        isOver = self._job.wait(0.01)
        self._bar.value = round(1000 * self._job.fraction)
        self._state.text = self._sentence(not isOver)
        self._showLog(self._job)
        if isOver:
            self._timer.stop()
            self.update()
            self._finished()

    def _showLog(self, job: BackgroundSteps) -> None:
        if job.lineCount == self._shownLines:
            return
        self._shownLines = job.lineCount
        self._log.setPlainText("\n".join(job.log))
        self._log.verticalScrollBar().setValue(self._log.verticalScrollBar().maximum)
