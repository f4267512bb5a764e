"""What happens when the user clicks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .backend.Backend import Backend
from .backend.BackendChoice import LOCAL, PROCESS, REMOTE, BackendChoice, Backends
from .batch.BatchLoader import LoadedLesion
from .batch.BatchPanel import BatchPanel
from .panel.Background import Background, Result, Steps
from .panel.BackgroundRun import BackgroundRun
from .panel.Consent import Consent
from .panel.ModelCardText import modelCardText
from .panel.ModelChoice import ModelChoice
from .panel.PanelUi import PanelUi
from .panel.SettingsChoice import SettingsChoice
from .results.Classification import Approve
from .results.ClassifiedLesions import ClassifiedLesions
from .results.ExportPanel import ExportPanel
from .results.FeaturePlot import plotFeatures
from .results.ResultPanel import ResultPanel
from .results.SceneResults import readResults
from .results.SegmentResult import SegmentResult
from .scene.NodeChoice import onOtherNode
from .scene.SegmentChoice import SegmentChoice
from .scene.SegmentedVolume import SegmentedVolume
from .scene.ViewJump import jumpTo, showChart
from .setup.SetupSections import SetupSections

MODALITIES = (None, "MG", "US", "CT", "MR")
"""In the order of the panel's list; None is automatic."""


class PanelLogic(Protocol):
    """What the panel asks of the module's logic, which scripts use too."""

    @property
    def backends(self) -> Backends: ...

    def steps(
        self,
        source: SegmentedVolume,
        segmentIds: Sequence[str],
        model: str,
        *,
        settings: str | None,
        backend: Backend,
        approve: Approve | None = None,
    ) -> Steps[list[SegmentResult]]:
        """Classify segments of a volume, and keep the results in the scene."""


class Panel(VTKObservationMixin):
    """The widgets of ``RadiomicsLLM.ui``, brought to life."""

    def __init__(self, ui: PanelUi, logic: PanelLogic) -> None:
        super().__init__()
        self.ui, self.logic = ui, logic
        self._run: BackgroundRun[Any] | None = None
        self._undone = self._whyCancelled = ""
        self.results = ResultPanel(ui.resultWidget.layout(), onChosen=self._onResultChosen, onPlot=self._onPlot)
        self.segments = SegmentChoice(ui.segmentsList, self._update)
        self.models = ModelChoice(ui.modelSelector, ui.modelFolderLabel, ui.modelFolderEdit, self._onModelChanged)
        self.settings = SettingsChoice(ui.settingsSelector, ui.settingsFileEdit, self._onInputChanged)
        self.backends = BackendChoice(
            ui.backendSelector, ui.remoteWidget, ui.addressEdit, ui.tokenEdit, logic.backends, self.refresh
        )
        self._exports = ExportPanel(ui, shown=self._classified, askCard=self._askingCard, begin=self._beginExport)
        self._sections = SetupSections(ui, starting=self._onSetupStarting, finished=self.refresh)
        self.batch = BatchPanel(
            ui.batchButton.layout(),
            python=lambda: logic.backends[LOCAL].python,
            model=self._ownModel,
            onLoaded=self._onLesionLoaded,
        )
        ui.batchButton.connect("contentsCollapsed(bool)", lambda _collapsed: self.batch.refresh())
        onOtherNode(ui.volumeSelector, self._onInputChanged)
        onOtherNode(ui.segmentationSelector, self._onSegmentationChanged)
        ui.modalitySelector.connect("currentIndexChanged(int)", self._onInputChanged)
        ui.cardButton.connect("contentsCollapsed(bool)", self._showCard)
        ui.connectButton.connect("clicked(bool)", self._onConnect)
        ui.classifyButton.connect("clicked(bool)", self._onClassify)
        self._showRunning(False)

    @property
    def isRunning(self) -> bool:
        """Whether something goes on beside the event loop."""
        return self._run is not None

    @property
    def isExamining(self) -> bool:
        """Whether the doctor is still looking."""
        return self._sections.isExamining

    def refresh(self) -> None:
        """Look again for packages and models: they may have been installed meanwhile."""
        backend = self.backends.current()
        self.models.offer(backend.modelNames(), ownFolder=backend is not self.logic.backends[REMOTE])
        self._sections.refresh(inSlicer=backend is self.logic.backends[PROCESS])
        self.batch.refresh()
        self._showCard()
        self._update()

    def close(self) -> None:
        """The panel's widgets are about to go."""
        if self._run:
            self._run.abandon()
            self._run = None
        self._sections.close()
        self.batch.close()
        self.removeObservers()

    # ----------------------------------------------------------------------------------------------- what was chosen

    def _onSegmentationChanged(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosing)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._showKept)
        if segmentationNode:
            # The node passes the segmentation's events on when its display knows the segment too.
            events = slicer.vtkSegmentation
            for event in (events.SegmentAdded, events.SegmentRemoved, events.SegmentModified):
                self.addObserver(segmentationNode, event, self._update)
            self.addObserver(segmentationNode, segmentationNode.DisplayModifiedEvent, self._update)
            self.addObserver(segmentationNode, events.SourceRepresentationModified, self._onInputChanged)
        self._onInputChanged()
        self._showKept()

    def _showKept(self, *_arguments: object) -> None:
        """What an earlier run found of this segmentation, also one of another session."""
        segmentationNode = self.ui.segmentationSelector.currentNode()
        if segmentationNode and not self.isRunning:
            self._showResults(readResults(segmentationNode))

    def _onInputChanged(self, *_arguments: object) -> None:
        """What is shown belongs to other inputs now; the scene keeps it."""
        self.results.clear()
        self._update()

    def _onModelChanged(self, *_arguments: object) -> None:
        self._showCard()
        self._onInputChanged()

    def _update(self, *_arguments: object) -> None:
        self.segments.show(self.ui.segmentationSelector.currentNode())
        self.batch.update()
        if self.isRunning:
            return
        problem = self.backends.current().problem()
        obstacle = problem or self._obstacle()
        self.ui.connectButton.enabled = bool(self.ui.addressEdit.text and self.ui.tokenEdit.text)
        self.ui.classifyButton.enabled = not obstacle
        self.ui.classifyButton.toolTip = obstacle or _("Classify every ticked segment.")
        self._exports.update()
        self._say(problem)

    def _obstacle(self) -> str:
        """What is still to be chosen before Classify can be clicked; empty where nothing is."""
        if not self.ui.volumeSelector.currentNode():
            return _("Choose the volume that shows the lesions.")
        if not self.ui.segmentationSelector.currentNode():
            return _("Choose the segmentation that marks the lesions.")
        if not self.segments.current():
            return _("Draw a segment, or tick one.")
        if not self.models.current():
            return _("Choose the folder of your model.")
        return self.settings.obstacle()

    def _showCard(self, *_arguments: object) -> None:
        if self.ui.cardButton.collapsed or not self.models.current():
            return
        from radllm_backend import RadllmError

        try:
            self.ui.cardLabel.text = modelCardText(self.backends.current().card(self.models.current()))
        except RadllmError as error:
            self.ui.cardLabel.text = str(error)

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)

    # ------------------------------------------------------------------------------------------------------- running

    def _onClassify(self, *_arguments: object) -> None:
        if self.isRunning:
            self._cancel(_("Cancelled: {undone}."))
            return
        backend = self.backends.current()
        consent = Consent(self.ui.addressEdit.text.strip()) if backend.leavesComputer else None
        source = SegmentedVolume(
            self.ui.volumeSelector.currentNode(),
            self.ui.segmentationSelector.currentNode(),
            MODALITIES[self.ui.modalitySelector.currentIndex],
        )
        steps = self.logic.steps(
            source,
            self.segments.current(),
            self.models.current(),
            settings=self.settings.current(),
            backend=backend,
            approve=consent.ask if consent else None,
        )
        self.results.clear()
        self._begin(steps, lambda results: self._show(source, results), _("nothing was classified"))

    def _show(self, source: SegmentedVolume, results: list[SegmentResult]) -> None:
        if source.isInScene():
            self._showResults(results)
        else:
            self._say(
                _("The volume or the segmentation was removed meanwhile: there is nothing to show the results on.")
            )

    def _onConnect(self, *_arguments: object) -> None:
        backend = self.logic.backends[REMOTE]
        self.backends.current()

        def steps() -> Steps[Sequence[str]]:
            return (yield from Background(_("Asking the server for its models"), backend.connect))

        self._begin(steps(), lambda _names: self.refresh(), _("the server was not asked"))

    def _beginExport(self, steps: Steps[str], undone: str) -> None:
        self._begin(steps, self._say, undone)

    def _begin(self, steps: Steps[Result], show: Callable[[Result], None], undone: str) -> None:
        def finished(answer: Result | None, error: BaseException | None) -> None:
            self._run = None
            self._showRunning(False)
            self._update()
            if answer is not None:
                show(answer)
            elif error is not None:
                self._sayError(error)
            else:
                self._say(self._whyCancelled)

        self._undone = undone
        self._run = BackgroundRun(steps, told=self._tell, finished=finished)
        self._showRunning(True)
        self._run.start()

    def _cancel(self, sentence: str) -> None:
        if self._run:
            self._whyCancelled = sentence.format(undone=self._undone)
            self._run.cancel()
            self.backends.current().cancel()
            self.ui.classifyButton.enabled = False
            self._say(_("Cancelling…"))

    def _tell(self, sentence: str, fraction: float) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        if self.ui.classifyButton.enabled:
            self._say(sentence + "…")

    def _sayError(self, error: BaseException) -> None:
        from radllm_backend import RadllmError

        if isinstance(error, RadllmError):
            self._say(str(error))
            return
        logging.error("RadiomicsLLM could not finish.", exc_info=error)
        self._say(_("Unexpected: {error}. Please report it with Slicer's error log.").format(error=error))

    def _showRunning(self, running: bool) -> None:
        for section in (self.ui.lesionsButton, self.ui.modelButton, self.ui.backendButton):
            section.enabled = not running
        self._exports.update(running)
        self.ui.progressBar.visible = running
        self.ui.progressBar.value = 0
        self.ui.classifyButton.text = _("Cancel") if running else _("Classify")
        if running:
            self.ui.classifyButton.enabled = True
            self.ui.classifyButton.toolTip = _("Stop; the scene stays as it is.")

    def _onSceneClosing(self, *_arguments: object) -> None:
        self._cancel(_("The scene was closed: {undone}."))

    # ------------------------------------------------------------------------------------------------------- results

    def _showResults(self, results: Sequence[SegmentResult]) -> None:
        self.results.show(results)
        self._exports.update()

    def _classified(self) -> ClassifiedLesions:
        return ClassifiedLesions(self.ui.segmentationSelector.currentNode(), self.results.results)

    def _askingCard(self) -> Callable[[], dict[str, Any]]:
        return partial(self.backends.current().card, self.models.current())

    def _onResultChosen(self, result: SegmentResult) -> None:
        jumpTo(self.ui.segmentationSelector.currentNode(), result.segmentId)

    def _onPlot(self, result: SegmentResult) -> None:
        nodes = self.ui.volumeSelector.currentNode(), self.ui.segmentationSelector.currentNode()
        showChart(plotFeatures(*nodes, result))

    # --------------------------------------------------------------------------------------------------------- batch

    def _ownModel(self) -> str:
        """The chosen model, where it is on this computer."""
        return "" if self.backends.current() is self.logic.backends[REMOTE] else self.models.current()

    def _onLesionLoaded(self, lesion: LoadedLesion) -> None:
        self.ui.volumeSelector.setCurrentNode(lesion.volumeNode)
        self.ui.segmentationSelector.setCurrentNode(lesion.segmentationNode)

    def _onSetupStarting(self) -> None:
        """What is installed or removed must not be in use."""
        self.logic.backends[LOCAL].close()
        self.batch.stop()
