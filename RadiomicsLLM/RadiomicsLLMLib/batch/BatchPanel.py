"""All lesions of a DICOM database, classified beside Slicer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from ..backend.BackendPython import BackendPython
from ..panel.BackgroundRun import BackgroundRun
from ..panel.PanelWidgets import enable, makeButton, makeLabel, makeRow
from ..scene.DicomDatabase import DicomDatabase
from .BatchChoice import BatchChoice
from .BatchLesion import BatchLesion
from .BatchLoader import LoadedLesion, loadLesion
from .BatchProcess import BatchProcess
from .BatchProgress import BatchProgress
from .BatchResults import BatchResults
from .BatchTable import BatchTable

_INTERVAL = 50  # milliseconds between two looks at what the process tells
_AT_ONCE = 50  # events, between two turns of the event loop
_PATIENCE = 400  # looks that a cancelled process may go on for


class BatchPanel:
    """Fills a layout: what to read, List, Run and Cancel, how far it is, and a table of lesions.

    The work is done by ``radllm batch`` in the backend's Python; this only starts it and looks at what it tells.
    """

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        *,
        python: Callable[[], BackendPython],
        model: Callable[[], str],
        onLoaded: Callable[[LoadedLesion], None],
    ) -> None:
        """
        Args:
            python: gives where it runs.
            model: gives a shipped model's name or a folder; empty where none on this computer is chosen.
            onLoaded: called when the user has opened a lesion.
        """
        self._python, self._model, self._onLoaded = python, model, onLoaded
        self._database = DicomDatabase()
        self._process: BatchProcess | None = None
        self._filling: BackgroundRun[int] | None = None
        self._results: BatchResults | None = None
        self._isCancelled = False
        self._summary: dict[str, Any] = {}
        self._widgets(layout)
        self._timer = qt.QTimer(self._bar)
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        self.refresh()

    @property
    def isRunning(self) -> bool:
        """Whether a process or the reading of its results goes on."""
        return self._process is not None or self._filling is not None

    @property
    def processId(self) -> int | None:
        return self._process.processId if self._process else None

    def refresh(self) -> None:
        """Look again which database is open."""
        self._choice.offerDatabase(self._database.folder())
        self.update()

    def update(self) -> None:
        """Look again at what can be done; what is disabled says why."""
        isRunning = self.isRunning
        busy = _("A batch is going on: wait, or cancel it.") if isRunning else ""
        obstacle = busy or self._choice.databaseObstacle() or self._python().problem()
        enable(self._list, obstacle, _("Say what would run and what not, and why. Nothing is classified."))
        if not self._model():
            obstacle = obstacle or _("Choose a model under “Model”; it has to be on this computer.")
        about = _("Classify all of them in the background. What is in the results already is not done again.")
        enable(self._run, obstacle or self._choice.outputObstacle(), about)
        self._cancel.visible = self._bar.visible = isRunning
        self._retry.enabled = not isRunning
        self._choice.enable(not isRunning)

    def stop(self) -> None:
        """The backend is about to be changed or removed."""
        if self.isRunning:
            self.close()
            self._finish(_("Stopped, as the backend is being set up anew: “Run” goes on from what is kept."))

    def close(self) -> None:
        """The process ends: the panel goes."""
        self._timer.stop()
        if self._filling:
            self._filling.abandon()
            self._filling = None
        if self._process:
            self._process.close()
            self._process = None

    def _widgets(self, layout: qt.QVBoxLayout) -> None:
        form = qt.QFormLayout()
        layout.addLayout(form)
        self._choice = BatchChoice(form, lambda: self.update())
        self._retry = qt.QCheckBox(_("Try failed ones again"))
        self._retry.objectName = "batchRetryBox"
        self._retry.toolTip = _("Also lesions that failed in an earlier run, after what was wrong was put right.")
        form.addRow("", self._retry)
        self._list = makeButton("batchListButton", _("List"), "", self._onList)
        self._run = makeButton("batchRunButton", _("Run"), "", self._onRun)
        about = _("Stop, and keep what is done.")
        self._cancel = makeButton("batchCancelButton", _("Cancel"), about, self._onCancel)
        self._bar = qt.QProgressBar()
        self._bar.objectName = "batchProgressBar"
        self._bar.maximum = 1000
        self._bar.textVisible = False
        self._status = makeLabel("batchStatusLabel")
        layout.addLayout(makeRow(self._list, self._run, self._cancel))
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        self._table = BatchTable(layout, self._onOpened)
        self._say("")

    def _say(self, sentence: str) -> None:
        self._status.text = sentence
        self._status.visible = bool(sentence)

    # ------------------------------------------------------------------------------------------- what the buttons do

    def _onList(self, *_arguments: object) -> None:
        self._results = None
        self._begin([*self._choice.arguments(), "--list"], _("Looking for lesions…"))
        self._table.startList()

    def _onRun(self, *_arguments: object) -> None:
        output, model = self._choice.output(), self._model()
        self._results = BatchResults(output, model)
        # One processor is left to Slicer, where there are several.
        workers = max(1, (os.cpu_count() or 1) - 1)
        more = [f"--model={model}", f"--output={output}", f"--workers={workers}"]
        more += ["--retry"] if self._retry.checked else []
        self._begin([*self._choice.arguments(), *more], _("Starting…"))
        self._table.startResults()

    def _onCancel(self, *_arguments: object) -> None:
        self._isCancelled = True
        self._cancel.enabled = False
        self._say(_("Cancelling…"))
        if self._process:
            self._process.cancel()
        if self._filling:
            self._filling.cancel()

    def _onOpened(self, lesion: BatchLesion) -> None:
        from radllm_backend import RadllmError

        try:
            self._onLoaded(loadLesion(lesion, self._database))
        except RadllmError as error:
            self._say(str(error))

    # --------------------------------------------------------------------------------------------------- while it runs

    def _begin(self, arguments: list[str], sentence: str) -> None:
        from radllm_backend import RadllmError

        self._isCancelled = False
        self._looks = 0
        self._progress, self._counts, self._summary = BatchProgress(), {"candidate": 0, "left-out": 0}, {}
        try:
            self._process = BatchProcess(self._python(), arguments)
        except RadllmError as error:
            self._say(str(error))
            return
        self._bar.value = 0
        self._cancel.enabled = True
        self._say(sentence)
        self._timer.start()
        self.update()

    def _look(self) -> None:
        assert self._process is not None
        isOver = not self._process.isRunning()  # before the events: none comes after it
        events = self._process.events(_AT_ONCE)
        self._take(events)
        if isOver and not events:
            self._end(self._process)
        elif self._isCancelled:
            self._looks += 1
            if self._looks == _PATIENCE:
                self._process.kill()

    def _take(self, events: list[dict[str, Any]]) -> None:
        listed = [event for event in events if event["event"] in self._counts]
        for event in listed:
            self._counts[event["event"]] += 1
        if listed:
            self._table.add([BatchLesion.fromRecord(event) for event in listed])
        for event in events:
            if event["event"] == "lesion":
                self._progress.add(event)
            elif event["event"] == "summary":
                self._summary = event
        if self._results and self._progress.settled and not self._isCancelled:
            self._bar.value = round(1000 * self._progress.fraction)
            self._say(self._progress.sentence())

    def _end(self, process: BatchProcess) -> None:
        self._timer.stop()
        self._process = None
        problem = process.problem()
        process.close()
        sentence = self._outcome(problem)
        if self._results and self._results.exist():
            self._fill(self._results, sentence, bool(problem))
        else:
            self._finish(sentence)

    def _outcome(self, problem: str) -> str:
        """What came of it, in one sentence."""
        summary = self._summary
        if summary.get("stopped"):
            kept = summary["kept"] + summary["done"] + summary["failed"]
            sentence = _("Stopped with {kept} of {lesions} kept: “Run” goes on from there.")
            return sentence.format(kept=kept, lesions=_counted(summary["lesions"]))
        if self._isCancelled:
            return _("Stopped: “Run” goes on from what is kept.") if self._results else _("Stopped.")
        if problem:
            return problem
        if self._results is None:
            sentence = _("{runs} would run; {leftOut} left out.")
            return sentence.format(runs=_counted(self._counts["candidate"]), leftOut=self._counts["left-out"])
        sentence = _("{count}: {done} classified now, {failed} failed, {kept} kept from before; {left_out} left out.")
        return sentence.format(count=_counted(summary["lesions"]), **summary)

    def _fill(self, results: BatchResults, sentence: str, hasFailed: bool) -> None:
        """Show what the folder holds, whatever became of the run: rows of earlier ones may be among it."""

        def finished(count: int | None, error: BaseException | None) -> None:
            self._filling = None
            self._finish(str(error) if error and not hasFailed else sentence)
            if error and type(error).__name__ != "RadllmError":
                logging.error("RadiomicsLLM could not show a batch's results.", exc_info=error)

        steps = results.steps(self._table.add)
        self._filling = BackgroundRun(steps, told=lambda told, fraction: None, finished=finished)
        self._filling.start()

    def _finish(self, sentence: str) -> None:
        self._say(sentence)
        self.update()


def _counted(lesions: int) -> str:
    return _("1 lesion") if lesions == 1 else _("{count} lesions").format(count=lesions)
