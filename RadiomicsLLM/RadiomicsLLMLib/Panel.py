"""What happens when the user clicks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .backend.Backend import Backend
from .backend.BackendChoice import LOCAL, PROCESS, REMOTE, BackendChoice
from .backend.FirstUse import FirstUse, baseModelOf
from .backend.ModelInputs import modelInputs
from .backend.Requirements import READS_ELSEWHERE, READS_HERE
from .batch.BatchLoader import LoadedLesion
from .batch.BatchPanel import BatchPanel
from .panel.Background import Background, Result, Steps
from .panel.BackgroundRun import BackgroundRun
from .panel.ChosenInputs import ChosenInputs
from .panel.Consent import Consent
from .panel.ModelCardText import modelCardText
from .panel.ModelChoice import ModelChoice
from .panel.PanelUi import PanelUi
from .panel.SettingsChoice import SettingsChoice
from .panel.StateLine import NextStep, StateLine
from .results.PanelLogic import PanelLogic
from .results.ResultsSection import ResultsSection
from .results.SceneResults import readResults
from .results.SegmentResult import SegmentResult
from .scene.FindingsPanel import FindingsPanel
from .scene.NodeChoice import onOtherNode
from .scene.OneSliceLayout import OneSliceLayout
from .scene.SampleLesions import sampleSteps
from .scene.SegmentChoice import SegmentChoice
from .scene.SegmentEditorDoor import openSegmentEditor
from .scene.SegmentedVolume import SegmentedVolume
from .scene.SourceStamp import sourceStamp
from .setup.SetupSections import SetupSections

MODALITIES = (None, "MG", "US", "CT", "MR")
"""In the order of the panel's list; None is automatic."""
_SAMPLE_MODEL = "breast-us"


class Panel(VTKObservationMixin):
    """The widgets of ``RadiomicsLLM.ui``, brought to life."""

    def __init__(self, ui: PanelUi, logic: PanelLogic) -> None:
        super().__init__()
        self.ui, self.logic = ui, logic
        self._run: BackgroundRun[Any] | None = None
        self._undone = self._whyCancelled = ""
        self._isEntered = True
        self._stamp: object = None
        self._volumeNode: slicer.vtkMRMLVolumeNode | None = None
        self._segmentationNode: slicer.vtkMRMLSegmentationNode | None = None
        self.state = StateLine(ui.statusLabel, ui.nextButton)
        self.results = ResultsSection(
            ui,
            onChosen=self._onResultChosen,
            askCard=lambda: partial(self.backends.current().card, self.models.current()),
            begin=self._beginExport,
        )
        self.segments = SegmentChoice(ui.segmentsLabel, ui.segmentsList, self._update)
        self.models = ModelChoice(ui.modelSelector, ui.modelFolderLabel, ui.modelFolderEdit, self._onModelChanged)
        self.settings = SettingsChoice(ui.settingsSelector, ui.settingsFileEdit, self._onInputChanged)
        self.backends = BackendChoice(
            ui.backendSelector, ui.remoteWidget, ui.addressEdit, ui.tokenEdit, logic.backends, self.refresh
        )
        self.findings = FindingsPanel(ui.findingsButton, self._onInputChanged)
        self._layout = OneSliceLayout(ui.layoutBox)
        self._chosen = ChosenInputs(ui, self.models, logic.getParameterNode)
        self._sections = SetupSections(ui, starting=self._onSetupStarting, finished=self.refresh)
        self._firstUse = FirstUse(self._sections.packages, lambda: self._sections.wheels)
        self.batch = BatchPanel(
            ui.batchButton.layout(),
            python=lambda: logic.backends[LOCAL].python,
            model=self._ownModel,
            onLoaded=self._onLesionLoaded,
        )
        ui.batchButton.connect("contentsCollapsed(bool)", lambda _collapsed: self.batch.refresh())
        self._looks = [onOtherNode(ui.volumeSelector, self._onVolumeChanged)]
        self._looks += [onOtherNode(ui.segmentationSelector, self._onSegmentationChanged)]
        ui.modalitySelector.connect("currentIndexChanged(int)", self._onInputChanged)
        ui.sampleButton.connect("clicked(bool)", self._onSample)
        ui.editorButton.connect("clicked(bool)", lambda _: openSegmentEditor(self._volumeNode, self._segmentationNode))
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
        self._offerFindings()
        self._update()

    def choose(
        self, volumeNode: slicer.vtkMRMLVolumeNode | None, segmentationNode: slicer.vtkMRMLSegmentationNode | None
    ) -> None:
        """Choose nodes of the scene, as far as they are given."""
        if volumeNode:
            self.ui.volumeSelector.setCurrentNode(volumeNode)
        if segmentationNode:
            self.ui.segmentationSelector.setCurrentNode(segmentationNode)
        self._look()

    def enter(self) -> None:
        """The module is shown: look at what was done to the scene meanwhile, and follow it from now on."""
        isChanged = not self._isEntered and self._stamp != sourceStamp(self._segmentationNode)
        self._isEntered = True
        self._observe()
        if isChanged:
            self.results.clear()
        self.refresh()
        self._chosen.start()

    def exit(self) -> None:
        """Another module is shown: follow nothing."""
        self._isEntered = False
        self._stamp = sourceStamp(self._segmentationNode)
        self._observe()

    def close(self) -> None:
        """The panel's widgets are about to go."""
        self._firstUse.cancel()
        if self._run:
            self._run.abandon()
            self._run = None
        self._sections.close()
        self.batch.close()
        self.removeObservers()

    # ----------------------------------------------------------------------------------------------- what was chosen

    def _look(self, *_arguments: object) -> None:
        """Whether other nodes are chosen by now: the selectors do not always say so."""
        for look in self._looks:
            look()

    def _onVolumeChanged(self, volumeNode: slicer.vtkMRMLVolumeNode | None) -> None:
        self._volumeNode = volumeNode
        self._observe()
        self._onInputChanged()

    def _onSegmentationChanged(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        self._segmentationNode = segmentationNode
        self._observe()
        self._onInputChanged()
        self._showKept()

    def _observe(self) -> None:
        """Follow the scene always, and the chosen nodes while the module is shown."""
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosing)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneLoaded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._look)
        volumeNode, segmentationNode = self._volumeNode, self._segmentationNode
        if volumeNode and self._isEntered:  # a volume that is loaded gets its voxels after it is chosen
            self.addObserver(volumeNode, volumeNode.ImageDataModifiedEvent, self._onVoxelsChanged)
        if segmentationNode and self._isEntered:
            # The node passes the segmentation's events on when its display knows the segment too.
            events = slicer.vtkSegmentation
            for event in (events.SegmentAdded, events.SegmentRemoved, events.SegmentModified):
                self.addObserver(segmentationNode, event, self._update)
            self.addObserver(segmentationNode, segmentationNode.DisplayModifiedEvent, self._update)
            self.addObserver(segmentationNode, events.SourceRepresentationModified, self._onInputChanged)

    def _onVoxelsChanged(self, *_arguments: object) -> None:
        self._layout.offer(self._volumeNode)

    def _onSceneLoaded(self, *_arguments: object) -> None:
        self._chosen.restore()
        self._look()
        self._showKept()

    def _showKept(self, *_arguments: object) -> None:
        """What an earlier run found of this segmentation, also one of another session."""
        segmentationNode = self.ui.segmentationSelector.currentNode()
        if segmentationNode and not self.isRunning:
            self.results.show(readResults(segmentationNode))

    def _onInputChanged(self, *_arguments: object) -> None:
        """What is shown belongs to other inputs now; the scene keeps it."""
        self.results.clear()
        self._chosen.keep()
        self._update()

    def _onModelChanged(self, *_arguments: object) -> None:
        self._showCard()
        self._offerFindings()
        self._onInputChanged()

    def _offerFindings(self) -> None:
        inputs = modelInputs(self.backends.current(), self.models.current())
        self.findings.offer(inputs.descriptors, isAllThereIs=not inputs.readsImage)

    def _update(self, *_arguments: object) -> None:
        if not self._isEntered:  # all of it is done when the module is shown again
            return
        self.segments.show(self._segmentationNode)
        self.findings.show(self._segmentationNode, self.segments.current())
        self._layout.offer(self._volumeNode)
        self.batch.update()
        if self.isRunning:
            return
        measuring = "" if self.findings.isAllThereIs else self.logic.measurer.problem()
        problem = self.backends.current().problem() or measuring
        obstacle = problem or self._obstacle()
        self.ui.connectButton.enabled = bool(self.ui.addressEdit.text and self.ui.tokenEdit.text)
        self.ui.classifyButton.enabled = not obstacle
        self.ui.classifyButton.toolTip = obstacle or _("Classify every ticked segment.")
        self.results.update()
        setUp = NextStep(_("Set up…"), _("Show what is installed, and what can be."), self._showSetup)
        self.state.say(obstacle, setUp if problem else None)

    def _obstacle(self) -> str:
        """What is still to be chosen before Classify can be clicked; empty where nothing is."""
        if not self.ui.volumeSelector.currentNode():
            return _("Load an image that shows the lesions, or click “Load sample”.")
        if not self.ui.segmentationSelector.currentNode():
            return _("Draw the lesions: click “Segment Editor”.")
        if not self.segments.current():
            return _("Draw a segment, or tick one.")
        if not self.models.current():
            return _("Choose the folder of your model.")
        return self.settings.obstacle() or self.findings.obstacle()

    def _showCard(self, *_arguments: object) -> None:
        if self.ui.cardButton.collapsed or not self.models.current():
            return
        from radllm_backend import RadllmError

        try:
            self.ui.cardLabel.text = modelCardText(self.backends.current().card(self.models.current()))
        except RadllmError as error:
            self.ui.cardLabel.text = str(error)

    def _showSetup(self) -> None:
        self.ui.backendButton.collapsed = self.ui.setupSectionButton.collapsed = False

    def _onSample(self, *_arguments: object) -> None:
        self._begin(sampleSteps(), self._showSample, _("the sample was not loaded"))

    def _showSample(self, nodes: Sequence[slicer.vtkMRMLNode]) -> None:
        self.choose(*nodes)
        self.ui.modalitySelector.currentIndex = MODALITIES.index(None)  # the sample says that it is an ultrasound
        self.models.choose(_SAMPLE_MODEL)
        self._layout.show()

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
            findings=self.findings.current(),
        )
        self.results.clear()
        steps = self._afterFirstUse(backend, self.models.current(), steps)
        self._begin(steps, lambda results: self._show(source, results), _("nothing was classified"))

    def _afterFirstUse(self, backend: Backend, model: str, steps: Steps[Result]) -> Steps[Result]:
        """The same steps, once what they need is installed."""
        if backend.readsHere:
            yield from self._firstUse.steps(READS_HERE, baseModelOf(model))
        else:
            yield from self._firstUse.steps(READS_ELSEWHERE)
        return (yield from steps)

    def _show(self, source: SegmentedVolume, results: list[SegmentResult]) -> None:
        if not source.isInScene():
            self.state.say(
                _("The volume or the segmentation was removed meanwhile: there is nothing to show the results on.")
            )
        elif (self._volumeNode, self._segmentationNode) != (source.volumeNode, source.segmentationNode):
            sentence = _("Other lesions were chosen meanwhile: the results of “{segmentation}” are kept with it.")
            self.state.say(sentence.format(segmentation=source.segmentationNode.GetName()))
        else:
            self.results.show(results)

    def _onConnect(self, *_arguments: object) -> None:
        backend = self.logic.backends[REMOTE]
        self.backends.current()

        def steps() -> Steps[Sequence[str]]:
            return (yield from Background(_("Asking the server for its models"), backend.connect))

        asked = self._afterFirstUse(backend, "", steps())
        self._begin(asked, lambda _names: self.refresh(), _("the server was not asked"))

    def _beginExport(self, steps: Steps[str], undone: str) -> None:
        self._begin(steps, self.state.say, undone)

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
                self.state.say(self._whyCancelled)

        self._undone = undone
        self._run = BackgroundRun(steps, told=self._tell, finished=finished)
        self._showRunning(True)
        self._run.start()

    def _cancel(self, sentence: str) -> None:
        if self._run:
            self._whyCancelled = sentence.format(undone=self._undone)
            self._run.cancel()
            self._firstUse.cancel()
            self.logic.measurer.cancel()
            self.backends.current().cancel()
            self.ui.classifyButton.enabled = False
            self.state.say(_("Cancelling…"))

    def _tell(self, sentence: str, fraction: float) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        if self.ui.classifyButton.enabled:
            self.state.say(sentence + "…")

    def _sayError(self, error: BaseException) -> None:
        from radllm_backend import RadllmError

        sentence = "{error}"
        if not isinstance(error, RadllmError):
            logging.error("RadiomicsLLM could not finish.", exc_info=error)
            sentence = _("Unexpected: {error}. Please report it with Slicer's error log.")
        self.state.say(sentence.format(error=error))

    def _showRunning(self, running: bool) -> None:
        ui = self.ui
        for section in (ui.lesionsButton, ui.findingsButton, ui.modelButton, ui.backendButton):
            section.enabled = not running
        self.results.update(running)
        self.ui.progressBar.visible = running
        self.ui.progressBar.value = 0
        self.ui.classifyButton.text = _("Cancel") if running else _("Classify")
        if running:
            self.ui.classifyButton.enabled = True
            self.ui.classifyButton.toolTip = _("Stop; the scene stays as it is.")

    def _onSceneClosing(self, *_arguments: object) -> None:
        self._cancel(_("The scene was closed: {undone}."))

    # --------------------------------------------------------------------------------------------- results, and batch

    def _onResultChosen(self, result: SegmentResult) -> None:
        self.findings.choose(result.segmentId)

    def _ownModel(self) -> str:
        """The chosen model, where it is on this computer."""
        return "" if self.backends.current() is self.logic.backends[REMOTE] else self.models.current()

    def _onLesionLoaded(self, lesion: LoadedLesion) -> None:
        self.choose(lesion.volumeNode, lesion.segmentationNode)

    def _onSetupStarting(self) -> None:
        """What is installed or removed must not be in use."""
        self.logic.measurer.close()
        for name in (LOCAL, PROCESS):
            self.logic.backends[name].close()
        self.batch.stop()
